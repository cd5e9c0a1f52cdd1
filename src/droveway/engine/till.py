"""This file knows how a request is paid: from the prepaid account of its key, exactly once.

The hold is committed before anything is sent. What a request came to, its journal row and the end
of its hold are one transaction, and the last frame of the answer waits for it.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from droveway.clock import Clock
from droveway.engine.journal_store import add_rows
from droveway.engine.records import Row
from droveway.engine.settling import Bill, Bound, Enough, Hold, affordable
from droveway.errors import BalanceTooLowError
from droveway.ledger import Epoch
from droveway.ledger.holds import Charged, capture, extend, find_account, release, take
from droveway.money import PICO_PER_NANO, Money
from droveway.storage import Connection, Store

LOG: Final = logging.getLogger("droveway")
# What an uncapped stream is held for at first, and by which its hold grows.
STREAM_TOKENS: Final = 4_096
# Less than this is not worth a commit: where so little is left, the stream ends.
STREAM_TOKENS_MIN: Final = 64


class Tills:
    """Makes the till of an account, for one process.

    Args:
        store: Where accounts and the journal are; settlements join them in one transaction.
        epoch: The time in which this process may hold money.
        clock: Where the moments come from.
    """

    def __init__(self, store: Store, epoch: Epoch, *, clock: Clock) -> None:
        self.store = store
        self.epoch_id = epoch.id
        self.clock = clock

    def of(self, account_id: str | None) -> "Till":
        """Return the till at which a key's requests are paid.

        Raises:
            BalanceTooLowError: The key belongs to no account.
        """
        if account_id is None:
            raise BalanceTooLowError(
                "this key belongs to no account, so nobody pays for it; make one with "
                "droveway keys add NAME --account ACCOUNT"
            )
        return Till(self, account_id)


class Till:
    """Pays requests from one account; the corridor's ledger where billing is on.

    Args:
        tills: Whose it is.
        account_id: Who pays.
    """

    money_decides = True
    keeps_rows = True

    def __init__(self, tills: Tills, account_id: str) -> None:
        self._tills = tills
        self._account_id = account_id

    async def hold(
        self,
        bound: Bound | None,
        *,
        request_id: str,
        enough: Enough | None = None,  # noqa: ARG002 - it says no at once, it never waits
    ) -> Hold:
        """Set the most that a request can cost aside, and commit that.

        Raises:
            BalanceTooLowError: It does not fit; nothing was set aside.
            FrozenAccountError: Nothing is served for this account.
            StoreUnavailableError: The ledger cannot be written; nothing is sent.
        """
        assert bound is not None, "where money decides there is a bound"
        work = partial(
            _take,
            bound=bound,
            request_id=request_id,
            account_id=self._account_id,
            epoch_id=self._tills.epoch_id,
            at=self._tills.clock.now(),
        )
        hold = await self._tills.store.write(work)
        if hold.covers is None:
            return hold
        return msgspec.structs.replace(hold, extend=self._extension(hold.covers, bound, request_id))

    def _extension(
        self, covers: int, bound: Bound, request_id: str
    ) -> Callable[[], Awaitable[int]]:
        """Make what extends a stream's hold."""
        covered = covers

        async def extend() -> int:
            nonlocal covered
            work = partial(_extend, bound=bound, request_id=request_id, account_id=self._account_id)
            covered += await self._tills.store.write(work)
            return covered

        return extend

    async def settle(self, hold: Hold, bill: Bill, *, row: Row) -> None:
        """Charge what a request came to; its row and the end of its hold are the same commit.

        Raises:
            StoreUnavailableError: Nothing was charged; the hold stays until this process ends.
        """
        assert hold.amount is not None, "a till holds an amount"
        cost = bill.cost if bill.cost is not None else Money.zero(hold.amount.currency)
        at = self._tills.clock.now()
        charged = await self._tills.store.write(partial(_settle, row=row, cost=cost, at=at))
        if charged is None:
            LOG.error("request %s was settled twice; the second time changed nothing", row.id)
        elif charged.lost.nano:
            LOG.error("request %s cost %s more than its account had; the loss is ours",
                      row.id, charged.lost)  # fmt: skip

    async def release(self, hold: Hold, *, row: Row, sent: bool = False) -> None:  # noqa: ARG002 - the store knows them
        """Give a hold back; the request's row is the same commit.

        Raises:
            StoreUnavailableError: The hold stays until this process ends.
        """
        at = self._tills.clock.now()
        await self._tills.store.write(partial(_release, row=row, at=at))


def _take(
    db: Connection,
    *,
    bound: Bound,
    request_id: str,
    account_id: str,
    epoch_id: str,
    at: datetime,
) -> Hold:
    cap, covers = bound.output_cap, None
    if cap is None:
        available = find_account(db, account_id).available
        cap = affordable(bound, available)
        first = min(STREAM_TOKENS, bound.output_max)
        if bound.stream and bound.output_pico and bound.cost(first) <= available:
            cap, covers = first, first
    amount = bound.cost(cap)
    take(db, request_id, amount, account_id=account_id, epoch_id=epoch_id, at=at)
    ours = bound.output_cap is None and covers is None
    return Hold(amount=amount, output_cap=cap if ours else None, covers=covers)


def _extend(db: Connection, *, bound: Bound, request_id: str, account_id: str) -> int:
    """Extend a hold by as much as it began with, or by what is left; return the tokens of that."""
    nano_left = find_account(db, account_id).available.nano
    affordable_tokens = nano_left * PICO_PER_NANO // bound.output_pico
    tokens = max(STREAM_TOKENS_MIN, min(STREAM_TOKENS, affordable_tokens))
    more = Money.from_pico(bound.output_pico * tokens, bound.input_cost.currency)
    if not extend(db, request_id, more, account_id=account_id):
        LOG.error("request %s had ended before its hold was extended", request_id)
    return tokens


def _settle(db: Connection, *, row: Row, cost: Money, at: datetime) -> Charged | None:
    charged = capture(db, row.id, cost, at=at)
    add_rows(db, [row])
    return charged


def _release(db: Connection, *, row: Row, at: datetime) -> bool:
    released = release(db, row.id, at=at)
    add_rows(db, [row])
    return released
