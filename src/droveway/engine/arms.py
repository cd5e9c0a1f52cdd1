"""This file knows how both sides of a phased move compare, by what the journal says of them."""

from collections import defaultdict
from datetime import datetime
from typing import Any

import msgspec

from droveway.engine import statements
from droveway.engine.journal_store import SINCE_EVER
from droveway.money import Money, divide_half_even
from droveway.storage import Store
from droveway.storage.moments import micros


class ArmCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the priced requests of one side came to, in one currency.

    Attributes:
        requests: How many they are.
        total: What they cost together.
    """

    requests: int
    total: Money

    @property
    def per_request(self) -> Money:
        """What one costs on average, to the nearest nano-unit."""
        return Money(divide_half_even(self.total.nano, self.requests), self.total.currency)


class ArmSums(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of one side came to.

    Attributes:
        role: The role that moves.
        arm: `new` or `old`.
        requests: All of them; what is neither completed nor failed was cancelled.
        completed: Those with an answer.
        failed: Those without.
        latency_us_p50: Half of the completed ones took no longer; None where none is.
        latency_us_p95: Likewise 95 of a hundred.
        input: Input tokens that no cache had.
        cached_read: Input tokens read from a cache.
        cache_write: Input tokens written to one.
        output: Output tokens.
        costs: What they cost, for each currency; requests without a price are in none.
    """

    role: str
    arm: str
    requests: int
    completed: int
    failed: int
    latency_us_p50: int | None
    latency_us_p95: int | None
    input: int
    cached_read: int
    cache_write: int
    output: int
    costs: tuple[ArmCost, ...] = ()

    @property
    def input_total(self) -> int:
        """Input tokens of all classes."""
        return self.input + self.cached_read + self.cache_write


def arms(store: Store, *, since: datetime | None = None, model: str | None = None) -> list[ArmSums]:
    """Sum up both sides of every role that moves, by role, the new side first.

    Args:
        store: Where the journal is.
        since: Only requests that came in at this moment or later.
        model: Only those that asked for it, were sent for it, or were served by it.

    Raises:
        StoreUnavailableError: The journal cannot be read.
    """
    asked = (SINCE_EVER if since is None else micros(since), model)
    costs: defaultdict[tuple[Any, ...], list[ArmCost]] = defaultdict(list)
    for role, arm, currency, requests, nano in store.read(statements.ARM_COSTS, asked):
        costs[role, arm].append(ArmCost(requests=requests, total=Money(nano, currency)))
    names = ArmSums.__struct_fields__[:-1]
    return [
        ArmSums(**dict(zip(names, row, strict=True)), costs=tuple(costs[row[:2]]))
        for row in store.read(statements.ARMS, asked)
    ]
