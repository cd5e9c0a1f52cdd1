"""This file knows how a role's or a task's work can end: exactly one outcome each."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from droveway.agents.reply import Reply, Spending
from droveway.errors import DrovewayError

Status = Literal["ok", "failed", "cancelled", "skipped"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one role's work ended.

    Attributes:
        role: The role.
        status: ok: there is a reply; failed: there is an error; cancelled: it was stopped on the
            way; skipped: it was never begun.
        replies: One for each turn that was answered; a query is one turn.
        error: Why there is none.
        spending: What its requests came to, whether they were answered or not.
    """

    role: str
    status: Status
    replies: tuple[Reply[Any], ...] = ()
    error: DrovewayError | None = None
    spending: Spending = Spending()

    @property
    def reply(self) -> Reply[Any] | None:
        """The reply to the last turn, when every turn was answered."""
        return self.replies[-1] if self.status == "ok" else None


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How the work of several roles ended.

    Attributes:
        outcomes: One for each role, in the order the roles were named.
        total: What all of them came to.
    """

    outcomes: Mapping[str, Outcome]
    total: Spending

    @property
    def ok(self) -> Sequence[Outcome]:
        """The outcomes with a reply."""
        return [outcome for outcome in self.outcomes.values() if outcome.status == "ok"]

    @property
    def not_ok(self) -> Sequence[Outcome]:
        """The outcomes without one."""
        return [outcome for outcome in self.outcomes.values() if outcome.status != "ok"]


def sum_of(spendings: Sequence[Spending]) -> Spending:
    """Add spendings up."""
    total = Spending()
    for each in spendings:
        total = total.with_all(each)
    return total
