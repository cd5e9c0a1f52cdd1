"""This file knows what a caller allows one call: time, retries, money, and what it is for."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from droveway.engine.settling import Ledger
from droveway.resilience.fair_queue import Priority
from droveway.resilience.retry import RetryPolicy
from droveway.settings import Timeout


class Drain(NamedTuple):
    """How far a call is still answered when its caller is gone.

    Attributes:
        seconds: For how long at most.
        tokens: For how many output tokens of a stream at most.
    """

    seconds: float
    tokens: int


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The terms of one call.

    Attributes:
        timeout: The four clocks.
        retry: How often and how patiently it is tried again.
        ledgers: Who must agree to the cost before anything is sent, besides the engine's own.
        tags: Free words for the journal: agent, role.
        key_id: Whose key the call came with; None without keys.
        conversation: The caller's own name for the conversation; None where there is none.
        weight: How many turns that key gets where others get one.
        priority: How urgent it is, among those who wait for the same model.
        drain: How a call whose caller is gone is still answered; None for not at all.
    """

    timeout: Timeout = Timeout()
    retry: RetryPolicy = RetryPolicy()
    ledgers: tuple[Ledger, ...] = ()
    tags: Mapping[str, str] = {}
    key_id: str | None = None
    conversation: str | None = None
    weight: int = 1
    priority: Priority = "normal"
    drain: Drain | None = None
