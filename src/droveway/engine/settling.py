"""This file knows the two money steps of the corridor: a hold before, a settlement after.

A `Ledger` agrees to the largest cost a call can have before it is sent and learns the true cost
afterwards. `NoLedger` agrees to everything; `Allowance` bounds what an agent or a run may spend.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from droveway.chat import Usage
from droveway.engine.records import Row
from droveway.errors import DeadlineExceededError, LimitExceededError
from droveway.money import Money


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a call can cost.

    Attributes:
        input_tokens: Upper bound of the input.
        input_cost: Its cost at the dearest candidate's dearest input class.
        estimated_cost: What the input costs by estimate, with a margin; never more than its bound.
        output_pico: Price of one output token there, in pico-units.
        output_cap: The caller's own cap of output tokens; None where the caller set none.
        output_max: What the models can write at most.
        stream: Whether the answer comes piece by piece, so that the hold may grow with it.
    """

    input_tokens: int
    input_cost: Money
    estimated_cost: Money
    output_pico: int
    output_cap: int | None
    output_max: int
    stream: bool = False

    def cost(self, output_tokens: int) -> Money:
        """Return the cost with so many output tokens."""
        return self.input_cost + self.written(output_tokens)

    def written(self, output_tokens: int) -> Money:
        """Return the cost of so many output tokens alone."""
        return Money.from_pico(self.output_pico * output_tokens, self.input_cost.currency)


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """What was set aside for one call.

    Attributes:
        amount: The amount; None where no money decides.
        output_cap: The cap of output tokens that this hold is good for; None for no cap of ours.
        covers: Output tokens that it covers, where it can be extended; None where it cannot.
        extend: Extends it and returns what it covers then, or raises.
    """

    amount: Money | None = None
    output_cap: int | None = None
    covers: int | None = None
    extend: Callable[[], Awaitable[int]] | None = None


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What a call came to.

    Attributes:
        cost: Its true cost; None when unpriced.
        usage: Its tokens; None when nothing was produced.
        own_cost: What vendors may ask for all its attempts, given up ones by estimate; None when
            unpriced or when there is nothing to ask for.
        answer: The bytes of a whole answer that was completed.
    """

    cost: Money | None = None
    usage: Usage | None = None
    own_cost: Money | None = None
    answer: bytes | None = None


# Done when nobody wants to wait for money any more: the caller is gone, or the call's time is over.
Enough = asyncio.Future[None]


class Ledger(Protocol):
    """Whoever must agree before money is spent."""

    @property
    def money_decides(self) -> bool:
        """Whether an unpriced model is refused here."""

    @property
    def keeps_rows(self) -> bool:
        """Whether it writes the journal's row itself, in one transaction with the settlement."""

    async def hold(
        self, bound: Bound | None, *, request_id: str, enough: Enough | None = None
    ) -> Hold:
        """Set the largest cost aside; there is a bound wherever money decides.

        Args:
            bound: The most the call can cost.
            request_id: Whose hold it is.
            enough: Ends a wait for money that others hold.

        Raises:
            CallerError: There is no room for it; nothing was set aside.
        """

    async def settle(self, hold: Hold, bill: Bill, *, row: Row) -> Row:
        """Replace a hold by the true cost; once for each hold.

        Returns:
            The row, as it was written where the ledger keeps rows: its cost is what was paid.
        """

    async def release(self, hold: Hold, *, row: Row, sent: bool = False) -> None:
        """Give a hold back: nothing was produced, or nothing was even sent."""

    def settle_later(self, hold: Hold, bill: Bill | None, *, row: Row) -> None:
        """End a hold as soon as that can be written; without a bill it is given back.

        Asked for only where `settle` or `release` of a ledger that keeps rows has failed.
        """


class NoLedger:
    """Agrees to everything; the vendor's account is the caller's own."""

    money_decides = False
    keeps_rows = False

    async def hold(
        self,
        bound: Bound | None,  # noqa: ARG002 - agrees at once, to all
        *,
        request_id: str,  # noqa: ARG002
        enough: Enough | None = None,  # noqa: ARG002
    ) -> Hold:
        """Set nothing aside."""
        return Hold()

    async def settle(self, hold: Hold, bill: Bill, *, row: Row) -> Row:  # noqa: ARG002 - as above
        """Note nothing."""
        return row

    async def release(self, hold: Hold, *, row: Row, sent: bool = False) -> None:
        """Give nothing back."""

    def settle_later(self, hold: Hold, bill: Bill | None, *, row: Row) -> None:
        """Note nothing: it never fails."""


OUTPUT_TOKENS_MIN: Final = 1_024
# An uncapped call may take a quarter of what is left, so that several at once are all served.
SHARE_OF_REST: Final = 4


class Allowance:
    """Bounds the money and the requests of an agent, a call or a whole run.

    A call is let in only if the most it can cost fits in what is left. What a vendor then reports
    is what is spent: one that reports more tokens than it was allowed to write is believed.

    Args:
        max_cost: What may be spent at most; None for no bound.
        max_requests: Calls that may be made at most; None for no bound.

    Attributes:
        spent: What was spent so far; None until something was.
        requests: Calls that were made or are on their way.
    """

    def __init__(self, *, max_cost: Money | None = None, max_requests: int | None = None) -> None:
        self.keeps_rows = False
        self.max_cost = max_cost
        self.max_requests = max_requests
        self.requests = 0
        self.spent = Money.zero(max_cost.currency) if max_cost is not None else None
        self._held = self.spent
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def money_decides(self) -> bool:
        """Whether a cost is bounded, so that an unpriced model is refused."""
        return self.max_cost is not None

    async def hold(
        self,
        bound: Bound | None,
        *,
        request_id: str,  # noqa: ARG002 - it keeps sums only
        enough: Enough | None = None,
    ) -> Hold:
        """Set a call's largest cost aside, as soon as it fits.

        Raises:
            LimitExceededError: The call does not fit in what is left.
        """
        if self.max_requests is not None and self.requests >= self.max_requests:
            raise LimitExceededError(
                f"all {self.max_requests} requests of max_requests are used; allow more"
            )
        self.requests += 1
        try:
            while (hold := self._hold_money(bound)) is None:
                await self._wait_for_others(enough)
        except BaseException:
            self.requests -= 1
            raise
        return hold

    async def settle(self, hold: Hold, bill: Bill, *, row: Row) -> Row:
        """Replace a hold by the true cost."""
        if self.spent is not None and bill.own_cost is not None:
            self.spent += bill.own_cost
        self._unhold(hold)
        return row

    async def release(self, hold: Hold, *, row: Row, sent: bool = False) -> None:  # noqa: ARG002 - as above
        """Give a hold back; a request that was sent counts as one, answered or not."""
        self._unhold(hold)
        if not sent:
            self.requests -= 1

    def settle_later(self, hold: Hold, bill: Bill | None, *, row: Row) -> None:
        """Never asked for: sums in memory do not fail."""
        raise NotImplementedError

    async def _wait_for_others(self, enough: Enough | None) -> None:
        """Wait until somebody gives money back: others hold what a call needs.

        Raises:
            DeadlineExceededError: Nobody wants to wait any more.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        futures = [waiter] if enough is None else [waiter, enough]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        if enough is not None and enough.done():
            raise DeadlineExceededError(
                f"the deadline passed while others held what is left of {self.max_cost}; "
                "allow more time or more money"
            )

    def _hold_money(self, bound: Bound | None) -> Hold | None:
        """Set money aside; None when it would fit if others gave back what they hold."""
        if self.max_cost is None or self.spent is None or self._held is None:
            return Hold()
        assert bound is not None, "where money decides there is a bound"
        left = self.max_cost - self.spent - self._held
        cap = bound.output_cap if bound.output_cap is not None else affordable(bound, left)
        amount = bound.cost(cap)
        if left < amount <= self.max_cost - self.spent:
            return None
        if left < amount:
            raise LimitExceededError(
                f"max_cost {self.max_cost} leaves {left}, and this call may cost {amount} with "
                f"{bound.input_tokens} tokens in and {cap} out; raise max_cost or set max_tokens"
            )
        self._held += amount
        return Hold(amount=amount, output_cap=None if bound.output_cap is not None else cap)

    def _unhold(self, hold: Hold) -> None:
        if hold.amount is not None and self._held is not None:
            self._held -= hold.amount
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


def affordable(bound: Bound, left: Money) -> int:
    """Return the cap of an uncapped call: a quarter of what is left, 1,024 tokens at least."""
    if not bound.output_pico:
        return bound.output_max
    rest = max(0, left.nano // SHARE_OF_REST - bound.input_cost.nano)
    return min(bound.output_max, max(OUTPUT_TOKENS_MIN, rest * 1_000 // bound.output_pico))
