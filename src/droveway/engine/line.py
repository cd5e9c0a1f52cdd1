"""This file knows how dispatch waits its turn: a pacer's decisions, on a clock."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from droveway.clock import Alarm, Clock
from droveway.errors import (
    AuthenticationError,
    DeadlineExceededError,
    DrovewayError,
    InsufficientBalanceError,
    ProviderDownError,
    QueueFullError,
    UpstreamError,
)
from droveway.resilience.fair_queue import Ticket
from droveway.resilience.gate import Cause
from droveway.resilience.pacing import Pacer
from droveway.resilience.told_limits import TELLING, told_limits
from droveway.routing.plan import Candidate

LOG: Final = logging.getLogger("droveway")


class Line:
    """The line before one vendor account and model; it alone asks its pacer.

    Args:
        pacer: Who decides.
        clock: Where time comes from.
        candidate: Before whom it is.
    """

    def __init__(self, pacer: Pacer, clock: Clock, candidate: Candidate) -> None:
        self.pacer = pacer
        self._clock = clock
        self._provider = candidate.provider
        self._name = candidate.name
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self._alarm: Alarm | None = None
        self._trouble: UpstreamError | None = None

    @property
    def sends_away(self) -> bool:
        """Whether who comes now is told to go elsewhere."""
        return self.pacer.gate.sends_away(self._clock.monotonic())

    def enter_now(self, ticket: Ticket) -> bool:
        """Take a turn without waiting; False when there is none, and one must `enter`."""
        return self.pacer.admit_now(ticket, self._clock.monotonic())

    async def enter(self, ticket: Ticket, *, until: float) -> None:
        """Wait for the ticket's turn; afterwards it is in flight and must come back.

        Args:
            ticket: The place in line.
            until: The moment at which waiting is over in any case.

        Raises:
            DeadlineExceededError: The moment came first, or is sure to; the ticket is not in line.
            QueueFullError: Too many wait.
            UpstreamError: The provider is not asked at present, and waiting is no use.
        """
        now = self._clock.monotonic()
        if self.pacer.gate.sends_away(now):
            raise self._sent_away(now)
        if self.pacer.ready_at(now) >= until:
            down = self.pacer.gate.cause == "failing"
            raise self._sent_away(now) if down else self._late(ticket, now)
        surplus = self.pacer.join(ticket, now)
        if surplus is ticket:
            raise self._too_many(ticket, now)
        if surplus is not None:
            self._reject([surplus], lambda: self._too_many(surplus, now))
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns[ticket] = turn
        self._pump()
        if turn.done():
            return
        deadline = self._clock.call_at(until, lambda: self._expire(ticket))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.returned(ticket)  # its turn had come, but nobody is there to take it
            raise
        finally:
            deadline.cancel()
            if self._turns.pop(ticket, None) is not None:
                self.pacer.leave(ticket)
                self._pump()
        if self._clock.monotonic() >= until:
            self.returned(ticket)  # it came in the last moment, and was noticed behind it
            raise self._late(ticket, self._clock.monotonic())

    def answered(self, ticket: Ticket, headers: Sequence[tuple[str, str]]) -> None:
        """Note that the vendor began a good answer, with headers whose names are in lower case."""
        if self.pacer.listens:
            for name, _ in headers:
                if TELLING in name:
                    self.pacer.told(told_limits(dict(headers), now=self._clock.now()))
                    break
        before = self.pacer.gate.cause
        self.pacer.answered(ticket, self._clock.monotonic())
        if before is not None:
            self._tell_of_change(before)
        if self.pacer.waiting:
            self._pump()

    def refused(self, ticket: Ticket, *, retry_after_s: float | None) -> float:
        """Note that the vendor said "later"; return the moment until which nobody goes."""
        until = self.pacer.refused(ticket, self._clock.monotonic(), retry_after_s=retry_after_s)
        self._pump()
        return until

    def overloaded(self, ticket: Ticket) -> None:
        """Note that the vendor has too much to do; the ticket is in flight still."""
        self.pacer.overloaded(ticket, self._clock.monotonic())

    def failed(self, ticket: Ticket, error: UpstreamError, *, tokens: int | None = None) -> None:
        """Note that a ticket is back because the vendor, or the way there, has failed."""
        now, before = self._clock.monotonic(), self.pacer.gate.cause
        self._trouble = error
        away = self.pacer.failed(ticket, now)
        self._tell_of_change(before)
        self._reject(away, lambda: self._sent_away(now))
        self.returned(ticket, tokens=tokens)

    def shut_out(self, ticket: Ticket, error: UpstreamError) -> None:
        """Note that a ticket is back because the vendor takes neither our key nor our account."""
        now, before = self._clock.monotonic(), self.pacer.gate.cause
        self._trouble = error
        away = self.pacer.shut_out(now)
        self._tell_of_change(before)
        self._reject(away, lambda: self._sent_away(now))
        self.returned(ticket)

    def succeeded(self, ticket: Ticket, *, tokens: int | None) -> None:
        """Note that a ticket is back with its whole answer."""
        self.pacer.succeeded()
        self.returned(ticket, tokens=tokens)

    def returned(self, ticket: Ticket, *, tokens: int | None = None) -> None:
        """Note that a ticket is back, with the tokens it used where they are known."""
        self.pacer.returned(ticket, tokens=tokens)
        if self.pacer.waiting:
            self._pump()

    def _expire(self, ticket: Ticket) -> None:
        self._reject([ticket], lambda: self._late(ticket, self._clock.monotonic()))

    def _reject(self, tickets: Iterable[Ticket], error: Callable[[], DrovewayError]) -> None:
        # An error of one's own for each: dispatch writes the attempts into it.
        for ticket in tickets:
            turn = self._turns.get(ticket)
            if turn is not None and not turn.done():
                turn.set_exception(error())

    def _late(self, ticket: Ticket, now: float) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"the deadline passes while {self.pacer.waiting} requests wait for {self._name}; allow "
            "more time or more concurrency",
            retry_after_s=self.pacer.wait_s(ticket, now),
        )

    def _too_many(self, ticket: Ticket, now: float) -> QueueFullError:
        return QueueFullError(
            f"{self.pacer.waiting} requests wait for {self._name} already, most of them of the "
            f"same key; send less at once, or raise providers.{self._provider}.waiting_max",
            retry_after_s=self.pacer.wait_s(ticket, now),
        )

    def _sent_away(self, now: float) -> UpstreamError:
        """Return what those are told who need not wait."""
        left_s = max(0.0, self.pacer.gate.until - now)
        trouble = self._trouble
        assert trouble is not None, "a gate has its reason"
        if isinstance(trouble, AuthenticationError | InsufficientBalanceError):
            error = type(trouble)(
                f"{trouble.message} (not asked again for {left_s:.0f} s)",
                status_code=trouble.status_code,
                provider=self._provider,
            )
            error.retry_after_s = left_s
            return error
        return ProviderDownError(
            f"{self._name} failed again and again and is asked again in {left_s:.0f} s; the last "
            f"time: {trouble.message}",
            retry_after_s=left_s,
            provider=self._provider,
        )

    def _tell_of_change(self, before: Cause | None) -> None:
        cause = self.pacer.gate.cause
        if cause == before:
            return
        if cause == "shut_out":
            LOG.error("%s does not let us in: %s", self._name, self._trouble)
        elif cause == "failing":
            LOG.warning("%s is down: %s", self._name, self._trouble)
        elif before in {"failing", "shut_out"}:
            LOG.warning("%s answers again", self._name)

    def _pump(self) -> None:
        now = self._clock.monotonic()
        for ticket in self.pacer.admit(now):
            turn = self._turns.pop(ticket)
            if not turn.done():
                turn.set_result(None)
            else:
                self.pacer.returned(ticket)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        wake_at = self.pacer.wake_at(now)
        if wake_at is not None:
            self._alarm = self._clock.call_at(wake_at, self._pump)
