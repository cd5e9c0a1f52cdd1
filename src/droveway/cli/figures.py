"""This file knows the figures of a run: what each role did, and what all of it came to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from droveway.agents.outcomes import Outcome, Status
from droveway.agents.reply import Spending
from droveway.cli.percentile import percentile


@dataclass(slots=True)
class Figures:
    """What some tasks came to.

    Attributes:
        tasks: How many were given out; 0 when that is not known beforehand.
        ended: How the tasks ended; one that is asked again counts once, as it ended last.
        asked_again: How many were asked a second time as a whole.
        unsent: Requests that ended before anything was sent: out of money, or out of time in line.
        spending: Requests, tokens and cost of everything, asked again or not.
        first_token_ms: Of each task that is ok, to the first data event of its first answer.
        latency_ms: Of each task that is ok, all turns together.
    """

    tasks: int = 0
    ended: dict[Status, int] = field(
        default_factory=lambda: {"ok": 0, "failed": 0, "cancelled": 0, "skipped": 0}
    )
    asked_again: int = 0
    unsent: int = 0
    spending: Spending = field(default_factory=Spending)
    first_token_ms: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)

    @property
    def ok(self) -> int:
        """Tasks with an answer."""
        return self.ended["ok"]

    @property
    def done(self) -> int:
        """Tasks with an outcome."""
        return sum(self.ended.values())

    @property
    def not_ok(self) -> int:
        """Tasks without an answer."""
        return self.done - self.ok

    @property
    def retries(self) -> int:
        """Requests that were sent beyond the first of each call."""
        return self.spending.attempts - (self.spending.requests - self.unsent)

    def add(self, outcome: Outcome, *, waited_ms: float | None = None) -> None:
        """Count a task that has ended.

        Args:
            outcome: How it ended.
            waited_ms: How long it took, where that is more than the calls of its replies took.
        """
        self.ended[outcome.status] += 1
        self.spending = self.spending.with_all(outcome.spending)
        self.unsent += outcome.error is not None and outcome.error.attempts == 0
        if outcome.status == "ok":
            first = outcome.replies[0].first_token_ms
            if first is not None:
                self.first_token_ms.append(first)
            took_ms = sum(reply.latency_ms for reply in outcome.replies)
            self.latency_ms.append(took_ms if waited_ms is None else waited_ms)

    def take_back(self, outcome: Outcome) -> None:
        """Let a task that failed be asked again; what it used and cost stays counted."""
        self.ended[outcome.status] -= 1
        self.asked_again += 1

    def as_json(self) -> dict[str, Any]:
        """Write the figures as data; `cost` is a decimal string, or null where nothing is known."""
        spending = self.spending
        usage = msgspec.to_builtins(spending.usage)
        del usage["source"]
        return {
            "tasks": self.done,
            **{str(status): count for status, count in self.ended.items()},
            "asked_again": self.asked_again,
            "requests": spending.requests,
            "attempts": spending.attempts,
            "retries": self.retries,
            "tokens": {**usage, "input_total": spending.usage.input_total},
            "cost": None if spending.cost is None else spending.cost.decimal(),
            "currency": None if spending.cost is None else spending.cost.currency,
            "unpriced_requests": spending.unpriced,
            "ttft_ms": percentiles(self.first_token_ms, (50, 95)),
            "latency_ms": percentiles(self.latency_ms, (50, 95, 99)),
        }


class Book:
    """The figures of a run, by role and in all.

    Args:
        roles: The roles, in the order they are shown.
    """

    def __init__(self, roles: Iterable[str]) -> None:
        self.total = Figures()
        self.by_role = {role: Figures() for role in roles}

    def expect(self, role: str) -> None:
        """Count a task that will be given out."""
        self.total.tasks += 1
        self.by_role[role].tasks += 1

    def add(self, outcome: Outcome, *, waited_ms: float | None = None) -> None:
        """Count a task that has ended; arguments as for `Figures.add`."""
        self.total.add(outcome, waited_ms=waited_ms)
        self.by_role[outcome.role].add(outcome, waited_ms=waited_ms)

    def take_back(self, outcome: Outcome) -> None:
        """Let a task that failed be asked again."""
        self.total.take_back(outcome)
        self.by_role[outcome.role].take_back(outcome)

    def as_json(self, wall_s: float) -> dict[str, Any]:
        """Write all figures as data."""
        total = self.total
        rate = round(total.ok / total.done, 4) if total.done else None
        return {
            "roles": [{"role": role, **each.as_json()} for role, each in self.by_role.items()],
            "totals": {**total.as_json(), "success_rate": rate, "wall_s": round(wall_s, 3)},
        }


def percentiles(values: Sequence[float], percents: Sequence[int]) -> dict[str, float | None]:
    """Return some percentiles, rounded to a microsecond."""
    found = {f"p{percent}": percentile(values, percent) for percent in percents}
    return {name: None if value is None else round(value, 3) for name, value in found.items()}
