"""This file knows budgets: what a key, an account or a tag may spend in a day, a week, a month.

A budget is counted in spells: one day, one ISO week, one month of UTC, or all time. A request
counts in the spell in which it began. What it may cost is held on each of its budgets as it is
held on its account, by a guarded update, so that however many ask at once no spell goes over.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from droveway.errors import BadRequestError, LimitExceededError
from droveway.ledger import statements
from droveway.money import Money
from droveway.storage import Connection, Store
from droveway.storage.moments import EPOCH, micros, moment

Period = Literal["day", "week", "month", "total"]
PERIODS: Final[tuple[Period, ...]] = get_args(Period)
_KINDS: Final = ("key", "account", "tag")


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent in each spell.

    Attributes:
        id: Ours.
        subject: `key:ID`, `account:ID` or `tag:NAME=VALUE`.
        period: How long a spell is.
        amount: What may be spent in one.
        since: When the present spell began, UTC.
        spent: What was spent in it.
        held: What is held in it for requests on their way.
    """

    id: str
    subject: str
    period: Period
    amount: Money
    since: datetime
    spent: Money
    held: Money

    @property
    def left(self) -> Money:
        """What further requests may cost in the present spell; never below zero."""
        return max(self.amount - self.spent - self.held, Money.zero(self.amount.currency),
                   key=lambda money: money.nano)  # fmt: skip


class Spell(NamedTuple):
    """The present spell of one budget that a request counts in."""

    budget_id: str
    starts_at_us: int
    subject: str
    period: Period
    amount_nano: int
    left_nano: int


def subjects_of(account_id: str, *, key_id: str | None, tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return every subject whose budgets a request counts in."""
    own = (
        (f"account:{account_id}",) if key_id is None else (f"account:{account_id}", f"key:{key_id}")
    )
    return (*own, *(f"tag:{name}={value}" for name, value in tags.items()))


def usable_subject(subject: str) -> str:
    """Return a subject as it is kept.

    Raises:
        BadRequestError: It is none.
    """
    kind, _, rest = subject.partition(":")
    is_tag = "=" in rest and not rest.startswith("=") and not rest.endswith("=")
    if (
        kind not in _KINDS
        or not rest
        or not subject.isprintable()
        or (kind == "tag" and not is_tag)
    ):
        raise BadRequestError(
            f"{subject!r} has no budget; write key:NAME, account:NAME or tag:NAME=VALUE"
        )
    return subject


def starts_at(period: Period, at: datetime) -> datetime:
    """Return when the spell began that a moment is in; UTC, weeks from Monday on."""
    if period == "total":
        return EPOCH
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "month" else day


def spells_of(
    db: Connection, subjects: Sequence[str], *, currency: str, at: datetime
) -> list[Spell]:
    """Return the present spells of every budget that a request counts in."""
    found: list[Spell] = []
    in_force = db.rows(_in_force(len(subjects)), (*subjects, currency))
    for budget_id, subject, period, amount in in_force:
        start = micros(starts_at(period, at))
        known = db.rows(statements.SPELL, (budget_id, start))
        used = sum(known[0]) if known else 0
        found.append(Spell(budget_id, start, subject, period, amount, max(0, amount - used)))
    return found


def reserve(db: Connection, hold_id: str, amount: Money, *, spells: Iterable[Spell]) -> None:
    """Hold an amount on each budget.

    Raises:
        LimitExceededError: One of them has not so much left.
    """
    for spell in spells:
        db.run(statements.OPEN_SPELL, (spell.budget_id, spell.starts_at_us))
        asked = (amount.nano, spell.budget_id, spell.starts_at_us)
        if not db.run(statements.HOLD_IN_SPELL, asked):
            raise used_up(spell, amount)
        db.run(statements.ADD_HOLD_SPELL, (hold_id, spell.budget_id, spell.starts_at_us))


def reserve_more(db: Connection, hold_id: str, more: Money) -> None:
    """Hold more on each budget in whose spell a hold counts.

    Raises:
        LimitExceededError: One of them has not so much left.
    """
    for spell in spells_of_hold(db, hold_id):
        if not db.run(statements.HOLD_IN_SPELL, (more.nano, spell.budget_id, spell.starts_at_us)):
            raise used_up(spell, more)


def spells_of_hold(db: Connection, hold_id: str) -> list[Spell]:
    """Return the spells in which a hold counts."""
    return [Spell(*row) for row in db.rows(statements.SPELLS_OF_HOLD, (hold_id,))]


def used_up(spell: Spell, amount: Money) -> LimitExceededError:
    """Say which budget does not cover a request."""
    budget, left = (
        Money(spell.amount_nano, amount.currency),
        Money(spell.left_nano, amount.currency),
    )
    kind, _, name = spell.subject.partition(":")
    span = "for good" if spell.period == "total" else f"for this {spell.period}"
    return LimitExceededError(
        f"the budget of this {kind} ({name}), {budget} {span}, has {left} left, and this request "
        f"may cost {amount}; ask its operator for more, or set a lower max_tokens"
    )


def set_budget(
    db: Connection, subject: str, amount: Money, *, period: Period, at: datetime
) -> Budget:
    """Set what may be spent; what was spent in the present spell stays counted.

    Raises:
        BadRequestError: The subject is none, the amount is negative, or the budget that is there
            is in another currency.
    """
    subject = usable_subject(subject)
    if amount.nano < 0:
        raise BadRequestError(f"a budget is nothing or more, not {amount}")
    new = (f"bud_{secrets.token_hex(8)}", subject, period, amount.nano, amount.currency, micros(at))
    changed = db.run(statements.CHANGE_BUDGET, (amount.nano, amount.currency, subject, period))
    if not changed:
        if db.rows(statements.BUDGET_OF, (subject, period)):
            raise BadRequestError(f"the budget of {subject!r} is in another currency; end it first")
        db.run(statements.ADD_BUDGET, new)
    ((row),) = db.rows(statements.BUDGET_OF, (subject, period))
    return _budget_of(row, db.rows, at=at)


def end_budget(db: Connection, subject: str, *, period: Period, at: datetime) -> None:
    """Let a subject spend without this bound again.

    Raises:
        BadRequestError: There is no such budget.
    """
    if not db.run(statements.END_BUDGET, (micros(at), subject, period)):
        raise BadRequestError(
            f"{subject!r} has no budget for a {period}; see droveway accounts budget list"
        )


def budgets(store: Store, *, at: datetime) -> tuple[Budget, ...]:
    """Return every budget in force, and what is left of its present spell."""
    return tuple(_budget_of(row, store.read, at=at) for row in store.read(statements.BUDGETS))


def _budget_of(row: tuple[Any, ...], read: Any, *, at: datetime) -> Budget:  # noqa: ANN401 - a store's or a transaction's
    id_, subject, period, amount, currency = row
    start = micros(starts_at(period, at))
    known = read(statements.SPELL, (id_, start))
    spent, held = known[0] if known else (0, 0)
    return Budget(
        id=id_,
        subject=subject,
        period=period,
        amount=Money(amount, currency),
        since=moment(start),
        spent=Money(spent, currency),
        held=Money(held, currency),
    )


def _in_force(count: int) -> str:
    return statements.BUDGETS_OF.replace("(?)", f"({', '.join('?' * count)})", 1)
