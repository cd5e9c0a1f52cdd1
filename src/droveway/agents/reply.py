"""This file knows what an agent gives back: a reply, and a report of what its replies cost."""

from collections.abc import Mapping
from datetime import datetime
from typing import Generic

import msgspec

from droveway.agents.answer_type import T
from droveway.chat import NO_USAGE, Finish, Message, Usage
from droveway.engine.records import Row
from droveway.money import Money


class Reply(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """An answer, and everything that is known about it.

    Attributes:
        text: The answer's text.
        output: The answer as `output_type`; the text itself without one.
        reasoning: The model's reasoning, where it shows it.
        finish_reason: Why the model stopped.
        model: The model the vendor says has answered.
        provider: Who answered.
        usage: Tokens of all rounds.
        cost: What they cost; None when the model is unpriced, never 0.
        attempts: Requests that were sent, in all rounds.
        messages: The whole conversation, this answer included; goes on with one more turn.
        request_ids: Our ids of the requests, one a round.
        started_at: When the call began, UTC.
        first_token_ms: From the call to the first data event of the last round.
        latency_ms: From the call to the end.
    """

    text: str
    output: T
    reasoning: str | None
    finish_reason: Finish | None
    model: str | None
    provider: str | None
    usage: Usage
    cost: Money | None
    attempts: int
    messages: tuple[Message, ...]
    request_ids: tuple[str, ...]
    started_at: datetime
    first_token_ms: float | None
    latency_ms: float


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """What some requests came to.

    Attributes:
        requests: How many.
        failed: How many of them have no answer.
        attempts: How many were sent to vendors.
        usage: Tokens by class.
        cost: Cost of the tokens that came, as far as it is known.
        own_cost: What vendors may ask in all: attempts that were given up after they were sent
            are in it by estimate. This is what `max_cost` counts.
        unpriced: How many have tokens but no price; `cost` is without them.
    """

    requests: int = 0
    failed: int = 0
    attempts: int = 0
    usage: Usage = NO_USAGE
    cost: Money | None = None
    own_cost: Money | None = None
    unpriced: int = 0

    def plus(self, row: Row) -> "Spending":
        """Return the spending with one more request in it."""
        return Spending(
            requests=self.requests + 1,
            failed=self.failed + (row.outcome != "completed"),
            attempts=self.attempts + len(row.attempts),
            usage=self.usage + (row.usage or NO_USAGE),
            cost=_sum(self.cost, row.cost),
            own_cost=_sum(self.own_cost, row.own_cost),
            unpriced=self.unpriced + (row.usage is not None and row.cost is None),
        )

    def with_all(self, other: "Spending") -> "Spending":
        """Return the sum of two spendings."""
        return Spending(
            requests=self.requests + other.requests,
            failed=self.failed + other.failed,
            attempts=self.attempts + other.attempts,
            usage=self.usage + other.usage,
            cost=_sum(self.cost, other.cost),
            own_cost=_sum(self.own_cost, other.own_cost),
            unpriced=self.unpriced + other.unpriced,
        )


def _sum(one: Money | None, other: Money | None) -> Money | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent or a supervisor has used so far.

    Attributes:
        timestamp: When the report was made, UTC.
        total: All requests.
        by_model: By the model that was asked of the vendor.
        by_role: By role, or by the agent's name where it has no role.
    """

    timestamp: datetime
    total: Spending
    by_model: Mapping[str, Spending]
    by_role: Mapping[str, Spending]


class Tally:
    """Adds rows up as they are written."""

    def __init__(self) -> None:
        self._total = Spending()
        self._by_model: dict[str, Spending] = {}
        self._by_role: dict[str, Spending] = {}

    @property
    def total(self) -> Spending:
        """All requests so far."""
        return self._total

    def add(self, row: Row) -> None:
        """Add one request."""
        model = row.attempts[-1].model if row.attempts else row.asked
        role = row.tags.get("role") or row.tags.get("agent") or "agent"
        self._total = self._total.plus(row)
        self._by_model[model] = self._by_model.get(model, Spending()).plus(row)
        self._by_role[role] = self._by_role.get(role, Spending()).plus(row)

    def report(self, now: datetime) -> UsageReport:
        """Return the sums so far."""
        return UsageReport(
            timestamp=now,
            total=self._total,
            by_model=dict(self._by_model),
            by_role=dict(self._by_role),
        )
