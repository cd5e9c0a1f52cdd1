"""This file knows the desk: where accounts, keys and money are joined, each in one transaction.

Gateway and command line ask the desk and nobody behind it. What brings or moves money is on the
disk when it returns.
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from droveway.accounts import Key, KeyRing
from droveway.clock import Clock, SystemClock
from droveway.errors import BadRequestError, StoreUnavailableError
from droveway.ledger import Account, Book, Budget, Credit, Rate, Refund, TopUp, Voucher
from droveway.ledger import budgets as ledger_budgets
from droveway.ledger import vouchers as ledger_vouchers
from droveway.ledger.account import find_account, usable_reference
from droveway.ledger.book import open_account
from droveway.ledger.budgets import Period
from droveway.ledger.claims import forget
from droveway.ledger.credits import grant, sweep
from droveway.ledger.topups import Payment, refund, top_up
from droveway.money import Money
from droveway.settings import BillingSettings
from droveway.storage import Connection, Store

LOG: Final = logging.getLogger("droveway")
TIDY_EVERY_S: Final = 60.0
_T = TypeVar("_T")
_Work = Callable[[Connection, datetime], _T]


class Desk:
    """Opens accounts, takes money in and gives it back, gives credit, issues keys.

    Args:
        store: Where all of it is kept.
        billing: The operator's terms: sign-up credit, declared rates, currency.
        clock: Where the moments come from.

    Attributes:
        book: The accounts, to look at.
        keys: The keys.
    """

    def __init__(
        self, store: Store, billing: BillingSettings, *, clock: Clock | None = None
    ) -> None:
        self._store = store
        self._billing = billing
        self._clock: Clock = clock or SystemClock()
        self.book = Book(store, clock=self._clock)
        self.keys = KeyRing(store, clock=self._clock)

    async def open_account(self, name: str, *, currency: str | None = None) -> Account:
        """Open an account, with the sign-up credit in it.

        Args:
            name: People's name for it.
            currency: What it is kept in; that of the settings by default. Sign-up credit is given
                in that of the settings only.

        Raises:
            BadRequestError: The name is taken, or is none.
        """
        at, terms = self._clock.now(), self._billing
        kept_in = currency or terms.currency
        gift = Money.parse(terms.signup_credit, terms.currency)

        def work(db: Connection) -> str:
            account_id = open_account(db, name, currency=kept_in, at=at)
            if gift.nano and kept_in == gift.currency:
                expires_at = at + timedelta(days=terms.signup_credit_days)
                credit = _credit(
                    account_id,
                    gift,
                    reference=f"signup-{account_id}",
                    expires_at=expires_at,
                )
                grant(db, credit, at=at)
            return account_id

        return self.book.show(await self._store.write(work, durable=bool(gift.nano)))

    async def top_up(self, account: str, paid: Money, *, reference: str) -> TopUp:
        """Book money that came in, converted by the declared rate where it is foreign.

        Raises:
            BadRequestError: As `ledger.topups.top_up`.
        """
        declared = self._billing.rates.get(paid.currency)
        # A rate leads into the currency of the settings; an account in another one has none.
        if self.book.show(account).posted.currency != self._billing.currency:
            declared = None
        rate = None if declared is None else Rate(declared.per_unit, declared.on)
        payment = Payment(paid, reference, rate)
        return await self._write(lambda db, at: top_up(db, account, payment, at=at))

    async def refund(self, topup: str, paid: Money | None, *, reference: str) -> Refund:
        """Give back what is unspent of a top-up, or a part of it.

        Args:
            topup: The reference of the top-up.
            paid: How much, in the currency in which it came; None for all that is unspent.
            reference: Why; once for each.

        Raises:
            BadRequestError: As `ledger.topups.refund`.
        """
        return await self._write(lambda db, at: refund(db, topup, paid, reference=reference, at=at))

    async def grant(
        self, account: str, amount: Money, *, reference: str, expires_at: datetime
    ) -> Credit:
        """Give promotional credit, once for each reference.

        Raises:
            BadRequestError: As `ledger.credits.grant`, or there is no such account, or it is in
                another currency.
        """

        def work(db: Connection, at: datetime) -> Credit:
            found = find_account(db, account, at=at)
            if found.posted.currency != amount.currency:
                raise BadRequestError(
                    f"the account {found.name!r} is in {found.posted.currency}, not in "
                    f"{amount.currency}"
                )
            credit = _credit(
                found.id,
                amount,
                reference=usable_reference(reference),
                expires_at=expires_at,
            )
            return grant(db, credit, at=at)

        return await self._write(work)

    async def issue_vouchers(
        self, terms: ledger_vouchers.Terms, *, count: int = 1
    ) -> Sequence[tuple[Voucher, str]]:
        """Make vouchers; returns each with its code, which nobody can show again.

        Raises:
            BadRequestError: As `ledger.vouchers.issue`.
        """
        return await self._write(
            lambda db, at: ledger_vouchers.issue(db, terms, count=count, at=at)
        )

    async def redeem(self, account: str, code: str) -> TopUp | Credit:
        """Book what a voucher is worth, once.

        Raises:
            BadRequestError: As `ledger.vouchers.redeem`.
        """
        return await self._write(lambda db, at: ledger_vouchers.redeem(db, account, code, at=at))

    def vouchers(self) -> tuple[Voucher, ...]:
        """Return all vouchers, the oldest first."""
        return ledger_vouchers.vouchers(self._store)

    async def issue_key(
        self,
        name: str,
        *,
        account: str | None = None,
        **terms: Any,  # noqa: ANN401 - read by the ring
    ) -> tuple[Key, str]:
        """Make a key that an account pays for; returns it with its secret.

        Raises:
            BadRequestError: There is no such account, or as `KeyRing.add`.
        """
        account_id = None if account is None else self.book.show(account).id
        return await self.keys.add(name, account=account_id, **terms)

    async def set_budget(self, subject: str, amount: Money, *, period: Period) -> Budget:
        """Set what a key, an account or a tag may spend in each spell.

        Args:
            subject: `key:NAME`, `account:NAME` (or their ids) or `tag:NAME=VALUE`.
            amount: What may be spent.
            period: In each day, week or month of UTC, or in total.

        Raises:
            BadRequestError: There is no such key or account, or the amount is negative.
        """
        known = self._subject(subject)
        self._check_currency(known, amount)
        return await self._write(
            lambda db, at: ledger_budgets.set_budget(db, known, amount, period=period, at=at)
        )

    async def end_budget(self, subject: str, *, period: Period) -> None:
        """Let a subject spend without this bound again.

        Raises:
            BadRequestError: There is no such budget.
        """
        known = self._subject(subject)
        await self._write(lambda db, at: ledger_budgets.end_budget(db, known, period=period, at=at))

    def budgets(self) -> tuple[Budget, ...]:
        """Return every budget in force, and what is left of its present spell."""
        return ledger_budgets.budgets(self._store, at=self._clock.now())

    async def maintain(self) -> None:
        """Keep the ledger up, until cancelled."""
        while True:
            try:
                await self.tidy()
            except StoreUnavailableError as error:
                LOG.warning("the ledger's upkeep waits: %s", error)
            await self._clock.sleep(TIDY_EVERY_S)

    async def tidy(self) -> None:
        """Let go of credit that has expired, and of claims and answers that are too old."""
        at = self._clock.now()
        await self._store.write(lambda db: sweep(db, at=at))
        while await self._store.write(lambda db: forget(db, at=at)):
            pass

    def _check_currency(self, subject: str, amount: Money) -> None:
        """Refuse a budget in a currency in which its subject spends nothing.

        Raises:
            BadRequestError: It is in such a one.
        """
        kind, _, name = subject.partition(":")
        if kind == "tag":
            return  # accounts of any currency may share it
        payer = self.keys.show(name).account if kind == "key" else name
        spends = self._billing.currency
        if payer is not None:
            spends = self.book.show(payer).posted.currency
        if amount.currency != spends:
            raise BadRequestError(
                f"{subject!r} spends {spends}; a budget in {amount.currency} would bound nothing"
            )

    def _subject(self, subject: str) -> str:
        """Put the id of a key or an account where its name stands: names may be given anew."""
        kind, _, name = ledger_budgets.usable_subject(subject).partition(":")
        if kind == "key":
            return f"key:{self.keys.show(name).id}"
        return f"account:{self.book.show(name).id}" if kind == "account" else subject

    async def _write(self, work: _Work[_T]) -> _T:
        at = self._clock.now()
        return await self._store.write(lambda db: work(db, at), durable=True)


def _credit(account_id: str, amount: Money, *, reference: str, expires_at: datetime) -> Credit:
    return Credit(
        id=f"crd_{secrets.token_hex(8)}",
        account=account_id,
        amount=amount,
        left=amount,
        expires_at=expires_at,
        reference=reference,
    )
