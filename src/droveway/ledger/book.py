"""This file knows what is done with accounts: opened, topped up, frozen, shown."""

import secrets
from datetime import datetime
from typing import Any, Final

import msgspec

from droveway.clock import Clock, SystemClock
from droveway.errors import BadRequestError
from droveway.ledger import statements
from droveway.ledger.account import (
    Account,
    account_of,
    micros,
    moment,
    usable_name,
    usable_reference,
)
from droveway.ledger.postings import CLEARING, own_account, post
from droveway.money import NANO_MAX, Money
from droveway.storage import Connection, Store

_EVER_US: Final = (-(2**63), 2**63 - 1)


class TopUp(msgspec.Struct, frozen=True, kw_only=True):
    """Money that came in.

    Attributes:
        id: Ours.
        account: Who has it.
        amount: How much.
        reference: Whose word it is: a bank's, a payment's; no two top-ups share one.
        at: When it was booked, UTC.
        again: Whether it was booked before, and nothing has changed this time.
    """

    id: str
    account: str
    amount: Money
    reference: str
    at: datetime
    again: bool = False


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a statement.

    Attributes:
        at: When, UTC.
        kind: topup or usage.
        reference: The top-up's reference, or the request's id.
        amount: Positive came in, negative was used.
    """

    at: datetime
    kind: str
    reference: str
    amount: Money


class Book:
    """The accounts of a store.

    Args:
        store: Where they are kept.
        clock: Where the moments come from.
    """

    def __init__(self, store: Store, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock: Clock = clock or SystemClock()

    async def open(self, name: str, *, currency: str = "USD") -> Account:
        """Open an account.

        Raises:
            BadRequestError: The name is taken, or is none.
        """
        name, now = usable_name(name), micros(self._clock.now())
        zero = Money.zero(currency)
        row = (f"acct_{secrets.token_hex(8)}", name, "customer", zero.currency, now)
        if not await self._store.write(lambda db: db.run(statements.OPEN_ACCOUNT, row)):
            raise BadRequestError(f"there is an account {name!r} already; take another name")
        return self.show(row[0])

    def list(self) -> tuple[Account, ...]:
        """Return all accounts, the oldest first."""
        return tuple(account_of(row) for row in self._store.read(statements.CUSTOMERS))

    def show(self, name_or_id: str) -> Account:
        """Return one account.

        Raises:
            BadRequestError: There is no such account.
        """
        rows = self._store.read(statements.CUSTOMER, (name_or_id,))
        if not rows:
            raise BadRequestError(f"there is no account {name_or_id!r}; see droveway accounts list")
        return account_of(rows[0])

    async def freeze(self, name_or_id: str) -> Account:
        """Serve nothing more for an account; harmless twice.

        What is on its way ends on the money it holds: a stream that needs more is ended.
        """
        account, now = self.show(name_or_id), micros(self._clock.now())
        await self._store.write(lambda db: db.run(statements.FREEZE, (now, account.id)))
        return self.show(account.id)

    async def thaw(self, name_or_id: str) -> Account:
        """Serve for an account again. Harmless twice."""
        account = self.show(name_or_id)
        await self._store.write(lambda db: db.run(statements.THAW, (account.id,)))
        return self.show(account.id)

    async def top_up(self, name_or_id: str, amount: Money, *, reference: str) -> TopUp:
        """Book money that came in, once for each reference; it is on the disk when this returns.

        Raises:
            BadRequestError: The amount is not positive or of another currency, there is no such
                account, the reference stands for another top-up, or all that ever came in is
                more than can be counted.
        """
        account, now = self.show(name_or_id), self._clock.now()
        reference = usable_reference(reference)
        if amount.nano <= 0:
            raise BadRequestError(f"a top-up is more than nothing, not {amount}")
        if amount.currency != account.posted.currency:
            raise BadRequestError(
                f"the account {account.name!r} is in {account.posted.currency}, not in "
                f"{amount.currency}"
            )
        topup = TopUp(
            id=f"top_{secrets.token_hex(8)}",
            account=account.id,
            amount=amount,
            reference=reference,
            at=now,
        )
        booked = await self._store.write(lambda db: _book(db, topup), durable=True)
        if (booked.account, booked.amount) != (topup.account, topup.amount):
            raise BadRequestError(
                f"the reference {reference!r} is that of a top-up of {booked.amount} of "
                f"{moment_text(booked.at)}; each top-up has a reference of its own"
            )
        return booked

    def entries(
        self, name_or_id: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> tuple[Entry, ...]:
        """Return what moved an account's money, the oldest first.

        Args:
            name_or_id: The account.
            since: From this moment on.
            until: Before this moment.
        """
        account = self.show(name_or_id)
        start = _EVER_US[0] if since is None else micros(since)
        end = _EVER_US[1] if until is None else micros(until)
        rows = self._store.read(statements.ENTRIES_OF, (account.id, start, end))
        return tuple(
            Entry(
                at=moment(at_us),
                kind=kind,
                reference=reference,
                amount=Money(amount, account.posted.currency),
            )
            for _, _, kind, at_us, reference, _, amount in rows
        )


def moment_text(at: datetime) -> str:
    """Write a moment for people."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _book(db: Connection, topup: TopUp) -> TopUp:
    known: list[tuple[Any, ...]] = db.rows(statements.TRANSFER_OF, ("topup", topup.reference))
    currency = topup.amount.currency
    if known:
        id_, at_us, told, account_id, nano = known[0]
        return TopUp(
            id=id_,
            account=account_id,
            amount=Money(nano, msgspec.json.decode(told)["currency"]),
            reference=topup.reference,
            at=moment(at_us),
            again=True,
        )
    clearing = own_account(CLEARING, currency)
    # No balance is further from zero than this one: where it can be counted, all can.
    came_in = -sum(nano for (nano,) in db.rows(statements.BALANCE, (clearing,)))
    if topup.amount.nano > NANO_MAX - came_in:
        raise BadRequestError(
            f"{topup.amount} is more than the ledger can count; {Money(NANO_MAX, currency)} may "
            f"come in for good and all, and {Money(came_in, currency)} did"
        )
    post(
        db,
        topup.id,
        {topup.account: topup.amount.nano, clearing: -topup.amount.nano},
        kind="topup",
        currency=currency,
        at_us=micros(topup.at),
        reference=topup.reference,
        told={"currency": currency},
    )
    return topup
