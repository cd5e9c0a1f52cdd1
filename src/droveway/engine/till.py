"""This file knows how a request is paid: from the prepaid account of its key, exactly once.

The hold is committed before anything is sent. What a request came to, its journal row and the end
of its hold are one transaction, and the last frame of the answer waits for it. Where the store
refuses that transaction it is tried for some seconds more; after that the caller is told, and it
is tried until this process ends: what was delivered is charged, what was not is given back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from droveway.clock import Clock
from droveway.engine import till_work
from droveway.engine.billing import Billing
from droveway.engine.records import Row
from droveway.engine.settling import Bill, Bound, Enough, Hold
from droveway.engine.till_work import Paying
from droveway.errors import BalanceTooLowError, StoreUnavailableError
from droveway.ledger import Epoch
from droveway.ledger.claims import Claim
from droveway.storage import Connection, Store

LOG: Final = logging.getLogger("droveway")
# For so long an answer waits for a store that refuses its settlement, trying this often.
PATIENCE_S: Final = 10.0
TRY_AGAIN_S: Final = 0.5
# What streams have come to is written down this often; only a crash asks for it.
PROGRESS_EVERY_S: Final = 2.0
_T = TypeVar("_T")
Work = Callable[[Connection], _T]


class Payer(NamedTuple):
    """Who pays for a request.

    Attributes:
        account_id: Whose money.
        key_id: With which key it came.
        tags: That key's tags; budgets may be on them.
        claim: The caller's own name for the request, where there is one.
    """

    account_id: str
    key_id: str | None
    tags: Mapping[str, str]
    claim: Claim | None = None


class Running(Protocol):
    """A request on its way, as far as its progress is asked for."""

    def row_so_far(self) -> Row | None:
        """Return the row it would have if its process died now; None where nothing was produced."""


class Tills:
    """Makes the till of an account, for one process.

    Args:
        store: Where accounts and the journal are; settlements join them in one transaction.
        epoch: The time in which this process may hold money.
        billing: The operator's terms; a reload may put others in their place.
        clock: Where the moments come from.
    """

    def __init__(self, store: Store, epoch: Epoch, *, billing: Billing, clock: Clock) -> None:
        self.store = store
        self.epoch_id = epoch.id
        self.billing = billing
        self.clock = clock
        self._unsettled: dict[asyncio.Task[None], str] = {}
        self._closing = False

    def of(
        self,
        account_id: str | None,
        *,
        key_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        claim: Claim | None = None,
    ) -> "Till":
        """Return the till at which a key's request is paid.

        Raises:
            BalanceTooLowError: The key belongs to no account.
        """
        if account_id is None:
            raise BalanceTooLowError(
                "this key belongs to no account, so nobody pays for it; make one with "
                "droveway keys add NAME --account ACCOUNT"
            )
        return Till(self, Payer(account_id, key_id, tags or {}, claim))

    async def write(self, work: Work[_T]) -> _T:
        """Commit what a request came to, however often the store refuses it for some seconds.

        Raises:
            StoreUnavailableError: It refused for too long.
        """
        until = self.clock.monotonic() + PATIENCE_S
        while True:
            try:
                return await self.store.write(work)
            except StoreUnavailableError:
                if self._closing or self.clock.monotonic() + TRY_AGAIN_S > until:
                    raise
            await self.clock.sleep(TRY_AGAIN_S)

    def write_later(self, work: Work[object], *, request_id: str) -> None:
        """Try a settlement that the store refused until it takes it, or this process ends."""
        task = asyncio.get_running_loop().create_task(self._until_written(work, request_id))
        self._unsettled[task] = request_id
        task.add_done_callback(self._unsettled.pop)

    async def keep_progress(self, running: Callable[[], list[Running]]) -> None:
        """Write down what streams on their way have come to, until cancelled.

        Args:
            running: Returns what is on its way.
        """
        while True:
            await self.clock.sleep(PROGRESS_EVERY_S)
            try:
                await self.note_progress(running())
            except StoreUnavailableError as error:
                LOG.warning("what streams came to so far is not written down: %s", error)

    async def note_progress(self, running: list[Running]) -> None:
        """Write down what requests on their way have come to, all in one commit.

        Raises:
            StoreUnavailableError: Nothing of it was written.
        """
        rows = [row for each in running if (row := each.row_so_far()) is not None]
        if rows:
            await self.store.write(lambda db: till_work.note_all(db, rows))

    async def aclose(self) -> None:
        """Try once more what the store has refused, then leave it to whoever starts next."""
        self._closing = True
        if not self._unsettled:
            return
        left = dict(self._unsettled)
        _, pending = await asyncio.wait(left, timeout=PATIENCE_S)
        for task in pending:
            task.cancel()
            LOG.error("request %s is not settled; the next start resolves it", left[task])

    async def _until_written(self, work: Work[object], request_id: str) -> None:
        LOG.error("request %s could not be settled yet; it is tried again", request_id)
        while True:
            try:
                await self.store.write(work)
            except StoreUnavailableError:
                await self.clock.sleep(TRY_AGAIN_S)
            else:
                LOG.warning("request %s is settled at last", request_id)
                return


class Till:
    """Pays one request; the corridor's ledger where billing is on.

    Args:
        tills: Whose it is.
        payer: Who pays.
    """

    money_decides = True
    keeps_rows = True

    def __init__(self, tills: Tills, payer: Payer) -> None:
        self._tills = tills
        self._payer = payer

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
            LimitExceededError: It does not fit in a budget; likewise.
            FrozenAccountError: Nothing is served for this account.
            RequestInFlightError: The request's own name is that of one on its way.
            AlreadyServedError: Or of one that was served.
            IdempotencyMismatchError: Or of another one.
            StoreUnavailableError: The ledger cannot be written; nothing is sent.
        """
        assert bound is not None, "where money decides there is a bound"
        paying = self._paying(request_id)
        hold = await self._tills.store.write(partial(till_work.take, bound=bound, paying=paying))
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
            work = partial(till_work.extend, bound=bound, paying=self._paying(request_id))
            covered += await self._tills.store.write(work)
            return covered

        return extend

    async def settle(self, hold: Hold, bill: Bill, *, row: Row) -> Row:
        """Charge what a request came to; its row and the end of its hold are the same commit.

        Where nothing was produced, what vendors ask for all the same is ours, and the hold is
        given back.

        Returns:
            The row as it was written: it says what was paid, which is less than the cost where
            the account had less.

        Raises:
            StoreUnavailableError: Nothing was charged, and it is not tried again by itself.
        """
        if bill.cost is None:
            await self.release(hold, row=row, sent=True)
            return row
        settled = await self._tills.write(self._settlement(bill, row=row))
        if settled.charged is None:
            LOG.error("request %s was settled twice; the second time changed nothing", row.id)
        elif settled.charged.lost.nano:
            LOG.error("request %s cost %s more than its account had; the loss is ours",
                      row.id, settled.charged.lost)  # fmt: skip
        return settled.row

    async def release(self, hold: Hold, *, row: Row, sent: bool = False) -> None:  # noqa: ARG002 - the store knows them
        """Give a hold back; the request's row is the same commit.

        Raises:
            StoreUnavailableError: It is still held, and not tried again by itself.
        """
        await self._tills.write(self._giving_back(row))

    def settle_later(self, hold: Hold, bill: Bill | None, *, row: Row) -> None:  # noqa: ARG002 - as above
        """Settle, or give back where there is no bill, as soon as the store takes it."""
        work: Work[object] = (
            self._giving_back(row)
            if bill is None or bill.cost is None
            else self._settlement(bill, row=row)
        )
        self._tills.write_later(work, request_id=row.id)

    def _paying(self, request_id: str) -> Paying:
        tills = self._tills
        return Paying(
            request_id=request_id,
            account_id=self._payer.account_id,
            key_id=self._payer.key_id,
            tags=self._payer.tags,
            claim=self._payer.claim,
            epoch_id=tills.epoch_id,
            floor_nano=tills.billing.floor_nano,
            at=tills.clock.now(),
        )

    def _settlement(self, bill: Bill, *, row: Row) -> Work[till_work.Settled]:
        assert bill.cost is not None, "without a cost a hold is given back"
        return partial(
            till_work.settle,
            row=row,
            cost=bill.cost,
            answer=None if self._payer.claim is None else bill.answer,
            low=self._tills.billing.low,
            at=self._tills.clock.now(),
        )

    def _giving_back(self, row: Row) -> Work[bool]:
        return partial(till_work.release, row=row, at=self._tills.clock.now())
