"""This file knows what is written down about a request: one row, and one entry per attempt."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from droveway.chat import Usage
from droveway.dialects.ending import Outcome
from droveway.money import Money


class AttemptEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was sent to a vendor.

    Attributes:
        provider: Name in the settings.
        account: Which of the provider's accounts, from 1 on.
        model: The vendor's name of the model.
        at: When it started, UTC; decides the price row.
        outcome: How it ended.
        code: The error's code; None when it completed.
        status: The vendor's HTTP status; None when there was none.
        vendor_id: The vendor's own id of the answer, where it told one; not kept in the store.
        abandoned: Whether it was sent and given up before anything came; it may be billed all
            the same, so `usage` is then its input by estimate.
        usage: Tokens, where any were produced.
        cost: What the vendor asks for it; None when it is not known.
        charge: What the caller pays for it, where theirs is the answer; None likewise.
        first_token_ms: From the attempt's start to the first data event; None without one.
        total_ms: The whole attempt.
    """

    provider: str
    account: int = 1
    model: str
    at: datetime
    outcome: Outcome
    code: str | None = None
    status: int | None = None
    vendor_id: str | None = None
    abandoned: bool = False
    usage: Usage | None = None
    cost: Money | None = None
    charge: Money | None = None
    price_row: str | None = None
    first_token_ms: float | None = None
    total_ms: float = 0.0


class Bodies(msgspec.Struct, frozen=True):
    """What was said, where the settings want it kept; each cut at 1 MiB.

    Attributes:
        request: The request's body, as it came, or as it would be written for its vendor.
        answer: The answer's bytes; of a stream, and of a failure, what was read of it, as JSON.
    """

    request: bytes
    answer: bytes


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One request, from the door to its settlement.

    Attributes:
        id: Our id of the request.
        at: When it came in, UTC.
        asked: The model that was asked for.
        served: The model the vendor says has answered.
        outcome: Exactly one of completed, failed, cancelled.
        code: The error's code; None when it completed.
        usage: Tokens of the attempt that answered, or of what it delivered.
        cost: What they cost the caller, a markup included; None when the model is unpriced.
        own_cost: What vendors may ask for all attempts, given up ones by estimate.
        attempts: Every request that was sent, the last one being the one that counts.
        first_token_ms: From the door to the first data event.
        total_ms: From the door to the end.
        overhead_ms: What of it was ours: neither a vendor's time nor waiting for a turn.
        waited_ms: How long it waited for its turn, and between attempts.
        tags: Free words: agent, role and what the caller gave.
        key_id: Whose key it came with; None without keys.
        client_gone: Whether the caller went away before the end.
        conversation: By what its conversation is known again, where its role moves.
        bodies: What was said; None unless `[journal] bodies` is set.
    """

    id: str
    at: datetime
    asked: str
    served: str | None = None
    outcome: Outcome
    code: str | None = None
    usage: Usage | None = None
    cost: Money | None = None
    own_cost: Money | None = None
    price_row: str | None = None
    attempts: tuple[AttemptEntry, ...] = ()
    first_token_ms: float | None = None
    total_ms: float = 0.0
    overhead_ms: float = 0.0
    waited_ms: float = 0.0
    tags: Mapping[str, str] = {}
    key_id: str | None = None
    client_gone: bool = False
    conversation: bytes | None = None
    bodies: Bodies | None = None
