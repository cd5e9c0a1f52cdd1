"""This file knows what can be done with money: in a transaction of a store, and in the model.

Each function returns both; whoever does them compares what comes of the one and of the other.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

from droveway.errors import DrovewayError
from droveway.ledger import Credit, budgets, claims, holds, statements, topups, vouchers
from droveway.ledger import credits as promotional
from droveway.ledger.budgets import Period
from droveway.ledger.topups import Payment
from droveway.money import Money
from droveway.storage import Connection
from droveway.storage.moments import micros
from ledger.model import Model, RefusedError
from ledger.pictures import RATE, Held

Claimed = tuple[str, bytes]
ANSWER: Final = b"an answer"


class Deed(NamedTuple):
    """One thing that is done.

    Attributes:
        real: It, as a piece of a transaction.
        modelled: It, in the model.
    """

    real: Callable[[Connection], object]
    modelled: Callable[[Model], object]

    def foretold(self, model: Model) -> object:
        """Do it in the model: what is returned, or the type of what must be raised."""
        try:
            return self.modelled(model)
        except RefusedError as refused:
            return refused.kind


def came_of(result: object, error: BaseException | None) -> object:
    """The same of what came of it in a store; what nobody may raise is not taken for a refusal."""
    if error is not None and not isinstance(error, DrovewayError):
        raise error
    return result if error is None else type(error)


# Money that comes in and goes back.


def top_up(account: str, paid: Money, *, reference: str, at: datetime) -> Deed:
    payment = Payment(paid, reference, RATE)
    return Deed(
        lambda db: topups.top_up(db, account, payment, at=at).again,
        lambda model: model.top_up(account, paid, reference=reference, at=at),
    )


def refund(topup: str, paid: Money | None, *, reference: str, at: datetime) -> Deed:
    def real(db: Connection) -> tuple[bool, int]:
        done = topups.refund(db, topup, paid, reference=reference, at=at)
        return done.again, done.paid.nano

    nano = None if paid is None else paid.nano
    return Deed(real, lambda model: model.refund(topup, nano, reference=reference))


def grant(account: str, amount: Money, *, reference: str, hours: int, at: datetime) -> Deed:
    until = at + timedelta(hours=hours)
    credit = Credit(
        id=f"crd_{reference}",
        account=account,
        amount=amount,
        left=amount,
        expires_at=until,
        reference=reference,
    )
    return Deed(
        lambda db: promotional.grant(db, credit, at=at).again,
        lambda model: model.grant(account, amount.nano, until=until, reference=reference, at=at),
    )


def sweep(*, at: datetime) -> Deed:
    return Deed(lambda db: promotional.sweep(db, at=at), lambda model: model.sweep(at=at))


def redeem(account: str, code: str, *, at: datetime) -> Deed:
    return Deed(
        lambda db: vouchers.redeem(db, account, code.lower(), at=at).again,
        lambda model: model.redeem(account, code, at=at),
    )


# Budgets and accounts.


def set_budget(subject: str, amount: Money, *, period: Period, at: datetime) -> Deed:
    return Deed(
        lambda db: budgets.set_budget(db, subject, amount, period=period, at=at).amount,
        lambda model: model.set_budget(subject, period, amount),
    )


def end_budget(subject: str, *, period: Period, at: datetime) -> Deed:
    return Deed(
        lambda db: budgets.end_budget(db, subject, period=period, at=at),
        lambda model: model.end_budget(subject, period),
    )


def freeze(account: str, *, thawed: bool, at: datetime) -> Deed:
    sql, row = (
        (statements.THAW, (account,)) if thawed else (statements.FREEZE, (micros(at), account))
    )
    return Deed(
        lambda db: bool(db.run(sql, row)), lambda model: model.freeze(account, thawed=thawed)
    )


# Requests.


def take(
    hold_id: str,
    amount: Money,
    *,
    account: str,
    epoch: str,
    at: datetime,
    subjects: Sequence[str] = (),
    floor: int = 0,
    claim: Claimed | None = None,
) -> Deed:
    def real(db: Connection) -> None:
        if claim is not None:
            claims.stake(db, claims.claim_of("k", *claim), hold_id, at=at)
        spells = budgets.spells_of(db, subjects, currency=amount.currency, at=at)
        whose = {"account_id": account, "epoch_id": epoch}
        holds.take(db, hold_id, amount, **whose, at=at, spells=spells, floor_nano=floor)

    def modelled(model: Model) -> None:
        bounds = model.bounds_of(subjects, currency=amount.currency, at=at)
        held = Held(account, amount.nano, epoch, bounds)
        model.take(hold_id, held, currency=amount.currency, at=at, floor=floor, claim=claim)

    return Deed(real, modelled)


def extend(hold_id: str, more: Money, *, account: str, at: datetime, floor: int = 0) -> Deed:
    return Deed(
        lambda db: holds.extend(db, hold_id, more, account_id=account, at=at, floor_nano=floor),
        lambda model: model.extend(hold_id, more.nano, at=at, floor=floor),
    )


def note_progress(hold_id: str, cost: Money) -> Deed:
    return Deed(
        lambda db: holds.note_progress(db, hold_id, cost),
        lambda model: model.note_progress(hold_id, cost.nano),
    )


def capture(hold_id: str, cost: Money, *, at: datetime, keep: bool = False) -> Deed:
    """End a hold by its cost; where it ended by that, keep the answer too."""

    def real(db: Connection) -> tuple[int, ...] | None:
        charged = holds.capture(db, hold_id, cost, at=at)
        if charged is None:
            return None
        if keep:
            claims.keep_answer(db, hold_id, ANSWER, at=at)
        return charged.paid.nano, charged.lost.nano, charged.balance.nano

    def modelled(model: Model) -> tuple[int, ...] | None:
        charged = model.capture(hold_id, cost.nano, at=at)
        if charged is not None and keep:
            model.answers[hold_id] = at
        return charged

    return Deed(real, modelled)


def release(hold_id: str, *, at: datetime) -> Deed:
    real = partial(holds.release, hold_id=hold_id, at=at)
    return Deed(real, lambda model: model.release(hold_id))


def resolve(hold_id: str, *, at: datetime) -> Deed:
    real = partial(holds.resolve, hold_id=hold_id, at=at)
    return Deed(real, lambda model: model.resolve(hold_id, at=at))


def forget(*, at: datetime) -> Deed:
    return Deed(lambda db: claims.forget(db, at=at), lambda model: model.forget(at=at))
