"""This file knows how tests get a line on a still clock, and see to it that nobody is lost."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from droveway.clock import StillClock, settle_loop
from droveway.engine.line import Line
from droveway.resilience.fair_queue import Ticket
from droveway.resilience.pacing import Pacer
from droveway.routing.plan import Candidate
from lab import run


class Street:
    """A line on a still clock, and what became of those who entered it."""

    def __init__(self, *, concurrency: int = 1, **bounds: int) -> None:
        self.clock = StillClock()
        self.pacer = Pacer(concurrency=concurrency, **bounds)
        self.line = Line(self.pacer, self.clock, Candidate("vendor", "model"))
        self.flying: list[Ticket] = []
        self.number = 0

    def ticket(self, key: str = "") -> Ticket:
        self.number += 1
        return Ticket(self.number, 100, 0.5, key=key)

    def held(self) -> Ticket:
        """Take a place at once."""
        ticket = self.ticket()
        assert self.line.enter_now(ticket)
        return ticket

    async def enter(self, *, until: float = 1_000.0, key: str = "") -> asyncio.Task[Ticket]:
        task = asyncio.ensure_future(self._enter(self.ticket(key), until))
        await settle_loop(3)
        return task

    async def _enter(self, ticket: Ticket, until: float) -> Ticket:
        await self.line.enter(ticket, until=until)
        self.flying.append(ticket)
        return ticket

    async def nothing_is_left(self) -> None:
        """Bring all back who fly; then nobody waits and nobody flies."""
        for _ in range(1_000):
            await settle_loop(3)
            while self.flying:
                self.line.returned(self.flying.pop())
            await settle_loop(3)
            if not self.pacer.waiting and not self.flying:
                break
            await self.clock.advance(0.1)
        assert (self.pacer.waiting, self.pacer.in_flight) == (0, 0)
        assert self.line._turns == {}


def on_a_street(
    check: Callable[[Street], Coroutine[Any, Any, None]], *, concurrency: int = 1, **bounds: int
) -> None:
    async def work() -> None:
        street = Street(concurrency=concurrency, **bounds)
        await check(street)
        await street.nothing_is_left()

    run(work())
