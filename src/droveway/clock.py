"""This file knows what time it is, how to wait, and where chance comes from.

It is the only importer of `time` and `random`: decisions take `now` and a jitter as arguments,
waiting is done on a `Clock`, and so every test of a wait can stand still.
"""

import asyncio
import heapq
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Alarm(Protocol):
    """A call that will be made later, unless it is cancelled."""

    def cancel(self) -> None:
        """Do not make the call; harmless when it was made already."""


class Clock(Protocol):
    """Time, waiting and chance. Two live here: the system's and one that stands still."""

    def now(self) -> datetime:
        """The wall clock, UTC; for prices and logs, never for durations."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def jitter(self) -> float:
        """A number in [0, 1) that spreads waiters."""

    def call_at(self, when: float, call: Callable[[], None]) -> Alarm:
        """Make a call at a moment of `monotonic`, on the running event loop."""

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellable."""


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """The wall clock, UTC."""
        return datetime.now(UTC)

    # The C function itself: it is asked for every chunk of every stream.
    monotonic = staticmethod(time.monotonic)

    def jitter(self) -> float:
        """A number in [0, 1) from the process's random generator."""
        return random.random()

    def call_at(self, when: float, call: Callable[[], None]) -> Alarm:
        """Make a call at a moment of `monotonic`, on the running event loop."""
        return asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), call)

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds."""
        await asyncio.sleep(max(0.0, seconds))


class _StillAlarm:
    """An entry in the heap of a `StillClock`; orders by moment, then by age."""

    __slots__ = ("call", "key")

    def __init__(self, key: tuple[float, int], call: Callable[[], None]) -> None:
        self.key = key
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: "_StillAlarm") -> bool:
        return self.key < other.key

    def cancel(self) -> None:
        self.call = None


class StillClock:
    """A clock for tests: time passes only when it is told to.

    Args:
        now: Where the wall clock starts, UTC.
        seed: Seed of the jitter.
    """

    def __init__(self, now: datetime | None = None, *, seed: int = 0) -> None:
        self._start = (now or datetime(2026, 11, 23, 12, 0, tzinfo=UTC)).astimezone(UTC)
        self._passed = 0.0
        self._alarms: list[_StillAlarm] = []
        self._order = 0
        self._chance = random.Random(seed)

    def now(self) -> datetime:
        """The wall clock: the start plus what has passed."""
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        """Seconds that have passed."""
        return self._passed

    def jitter(self) -> float:
        """The next number in [0, 1) of the seed."""
        return self._chance.random()

    def call_at(self, when: float, call: Callable[[], None]) -> Alarm:
        """Keep a call until time is advanced to it."""
        self._order += 1
        alarm = _StillAlarm((when, self._order), call)
        heapq.heappush(self._alarms, alarm)
        return alarm

    async def sleep(self, seconds: float) -> None:
        """Wait until time was advanced that far; no wait at all yields once."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        alarm = self.call_at(
            self._passed + seconds, lambda: None if woken.done() else woken.set_result(None)
        )
        try:
            await woken
        finally:
            alarm.cancel()

    @property
    def next_at(self) -> float | None:
        """The moment of the next alarm; None when nobody waits."""
        while self._alarms and self._alarms[0].call is None:
            heapq.heappop(self._alarms)
        return self._alarms[0].key[0] if self._alarms else None

    async def advance(self, seconds: float) -> None:
        """Let time pass; everything that falls due runs, in order, before this returns."""
        await self._advance_to(self._passed + seconds)

    async def jump(self) -> bool:
        """Advance to the next alarm; False when nobody waits."""
        await settle_loop()
        due = self.next_at
        if due is None:
            return False
        await self._advance_to(max(self._passed, due))
        return True

    async def _advance_to(self, until: float) -> None:
        await settle_loop()
        while (due := self.next_at) is not None and due <= until:
            self._passed = max(self._passed, due)
            call = heapq.heappop(self._alarms).call
            if call is not None:
                call()
            await settle_loop()
        self._passed = until


async def settle_loop(rounds: int = 20) -> None:
    """Let every task that is ready run on, without any time passing."""
    for _ in range(rounds):
        await asyncio.sleep(0)
