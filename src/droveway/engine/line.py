"""This file knows how dispatch waits its turn: a pacer's decisions, on a clock."""

import asyncio
from collections.abc import Sequence

from droveway.clock import Alarm, Clock
from droveway.errors import DeadlineExceededError
from droveway.resilience.pacing import Pacer, Ticket
from droveway.resilience.told_limits import TELLING, told_limits


class Line:
    """The line before one vendor account and model; it alone asks its pacer."""

    def __init__(self, pacer: Pacer, clock: Clock, *, name: str) -> None:
        self.pacer = pacer
        self._clock = clock
        self._name = name
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self._alarm: Alarm | None = None

    def enter_now(self, ticket: Ticket) -> bool:
        """Take a turn without waiting; False when there is none, and one must `enter`."""
        return self.pacer.admit_now(ticket, self._clock.monotonic())

    async def enter(self, ticket: Ticket, *, until: float) -> None:
        """Wait for the ticket's turn; afterwards it is in flight and must come back.

        Args:
            ticket: The place in line.
            until: The moment at which waiting is over in any case.

        Raises:
            DeadlineExceededError: The moment came first; the ticket has left the line.
        """
        self.pacer.join(ticket)
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

    def answered(self, ticket: Ticket, headers: Sequence[tuple[str, str]]) -> None:
        """Note that the vendor began a good answer, with headers whose names are in lower case."""
        if self.pacer.listens:
            for name, _ in headers:
                if TELLING in name:
                    self.pacer.told(told_limits(dict(headers), now=self._clock.now()))
                    break
        self.pacer.answered(ticket, self._clock.monotonic())
        if self.pacer.waiting:
            self._pump()

    def refused(self, ticket: Ticket, *, retry_after_s: float | None) -> float:
        """Note that the vendor said "later"; return the moment until which nobody goes."""
        until = self.pacer.refused(ticket, self._clock.monotonic(), retry_after_s=retry_after_s)
        self._pump()
        return until

    def overloaded(self, ticket: Ticket) -> None:
        """Note that a ticket is back because the vendor has too much to do."""
        self.pacer.overloaded(ticket, self._clock.monotonic())
        self.returned(ticket)

    def returned(self, ticket: Ticket, *, tokens: int | None = None) -> None:
        """Note that a ticket is back, with the tokens it used where they are known."""
        self.pacer.returned(ticket, tokens=tokens)
        if self.pacer.waiting:
            self._pump()

    def _expire(self, ticket: Ticket) -> None:
        turn = self._turns.get(ticket)
        if turn is not None and not turn.done():
            turn.set_exception(
                DeadlineExceededError(
                    f"the deadline passed while {self.pacer.waiting} requests waited for "
                    f"{self._name}; allow more time or more concurrency"
                )
            )

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
