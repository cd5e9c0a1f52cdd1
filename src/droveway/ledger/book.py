"""This file knows what is done with accounts: opened, topped up, frozen, shown."""

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from droveway.clock import Clock, SystemClock
from droveway.errors import BadRequestError
from droveway.ledger import statements
from droveway.ledger.account import Account, account_of, unknown_account, usable_name
from droveway.ledger.postings import Fund
from droveway.ledger.topups import MANUAL, Payment, Rate, TopUp, the_topup, top_up, topups_of
from droveway.money import Money
from droveway.storage import Connection, Store
from droveway.storage.moments import micros, moment

_EVER_US: Final = (-(2**63), 2**63 - 1)
USE_WATCHED: Final = timedelta(days=7)
_DAY: Final = timedelta(days=1)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a statement.

    Attributes:
        at: When, UTC.
        kind: topup, refund, grant, expiry or usage.
        reference: That of the top-up, refund or credit, or the request's id.
        fund: Whether it is paid-in money or promotional credit.
        amount: Positive came in, negative was used or went back.
        told: Further words, such as what was paid in another currency, and by which rate.
    """

    at: datetime
    kind: str
    reference: str
    fund: Fund
    amount: Money
    told: Mapping[str, Any] = {}


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """For how long what is left will do, if all goes on as in the last week.

    Attributes:
        daily: What was used a day; the mean of the last seven days, or of its whole life.
        days_left: Whole days that what is available covers; None where nothing was used.
    """

    daily: Money
    days_left: int | None


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
        at = self._clock.now()
        account_id = await self._store.write(
            lambda db: open_account(db, name, currency=currency, at=at)
        )
        return self.show(account_id)

    def list(self) -> tuple[Account, ...]:
        """Return all accounts, the oldest first."""
        rows = self._store.read(statements.CUSTOMERS, (micros(self._clock.now()),))
        return tuple(map(account_of, rows))

    def show(self, name_or_id: str) -> Account:
        """Return one account.

        Raises:
            BadRequestError: There is no such account.
        """
        rows = self._store.read(statements.CUSTOMER, (micros(self._clock.now()), name_or_id))
        if not rows:
            raise unknown_account(name_or_id)
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

    async def top_up(
        self,
        name_or_id: str,
        paid: Money,
        *,
        reference: str,
        rate: Rate | None = None,
        source: str = MANUAL,
    ) -> TopUp:
        """Book money that came in, once for each reference; it is on the disk when this returns.

        Raises:
            BadRequestError: As `topups.top_up`.
        """
        payment, at = Payment(paid, reference, rate, source), self._clock.now()
        return await self._store.write(
            lambda db: top_up(db, name_or_id, payment, at=at), durable=True
        )

    def topups(self, name_or_id: str) -> tuple[TopUp, ...]:
        """Return all money that came in for an account, the oldest first."""
        return topups_of(self._store.read(statements.TOPUPS_OF, (self.show(name_or_id).id,)))

    def topup(self, reference: str) -> TopUp:
        """Return one top-up.

        Raises:
            BadRequestError: There is none of this reference.
        """
        rows = self._store.read(statements.TOPUP_BY_REFERENCE, (reference.strip(),))
        return the_topup(rows, reference)

    def first_expiry(self, account: Account) -> datetime | None:
        """Return when the first of an account's promotional credit expires; None without any."""
        now = micros(self._clock.now())
        rows = self._store.read(statements.CREDITS_OF, (account.id,))
        coming = [until for _, _, _, left, until, *_ in rows if left and until > now]
        return moment(min(coming)) if coming else None

    def forecast(self, account: Account) -> Forecast:
        """Return for how long what is available will do."""
        now = self._clock.now()
        since = max(now - USE_WATCHED, account.created_at)
        ((used,),) = self._store.read(statements.USED_SINCE, (account.id, micros(since)))
        span_us = max(_DAY, now - since) // timedelta(microseconds=1)
        daily = used * (_DAY // timedelta(microseconds=1)) // span_us
        return Forecast(
            daily=Money(daily, account.posted.currency),
            days_left=max(0, account.available.nano) // daily if daily else None,
        )

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
                fund=fund,
                amount=Money(amount, account.posted.currency),
                told=msgspec.json.decode(told),
            )
            for kind, at_us, reference, told, fund, amount in rows
        )


def open_account(db: Connection, name: str, *, currency: str, at: datetime) -> str:
    """Open an account within a transaction, and return its id.

    Raises:
        BadRequestError: The name is taken, or is none.
    """
    name, account_id = usable_name(name), f"acct_{secrets.token_hex(8)}"
    row = (account_id, name, "customer", Money.zero(currency).currency, micros(at))
    if not db.run(statements.OPEN_ACCOUNT, row):
        raise BadRequestError(f"there is an account {name!r} already; take another name")
    return account_id
