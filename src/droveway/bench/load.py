"""This file knows when each request is sent, and that none is sent later because another is slow.

Theory of operation. Requests are numbered; number n goes to target n modulo their count, so that
two servers are asked by turns and meet the same minute, and both get the same question in a pair.

With a rate, request n is due at begin + n / rate, whatever became of those before it (an open
loop). When every connection is busy it waits, and its latency counts from when it was due: a
server that stalls for a second is charged with all requests of that second, not with one. What is
still waiting at the end counts as `not_sent`. Without a rate so many workers as there are
connections ask one after the other (a closed loop): the server is as busy as it can be, and each
request is due when it is sent.
"""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Final, Protocol

import msgspec

from droveway.bench.measure import CONNECT, TIMEOUT, Reading
from droveway.bench.questions import Question
from droveway.bench.tally import Tally
from droveway.clock import Clock
from droveway.dialects.openai_chat import PATH
from droveway.engine.provider import Provider
from droveway.errors import APIConnectionError
from droveway.transport import Request, Sink

NOT_SENT: Final = "not_sent"
# A worker whose server cannot be reached tries again, but does not hammer.
PAUSE_S: Final = 0.1
# Less than any timer can wait for; sums of floats leave such rests.
_NO_TIME_S: Final = 1e-6


class HangUp(Protocol):
    """What can be done about a request that is on its way."""

    def abort(self) -> None:
        """Close its connection; its sink hears nothing more."""


class Wire(Protocol):
    """What carries requests: the transport's pool, and what tests put in its place."""

    async def send(self, request: Request, sink: Sink) -> HangUp:
        """Write a request; its response goes to the sink."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How hard, and for how long.

    Attributes:
        connections: Requests in flight at most, over all targets.
        rate: Requests a second to each target; None sends as fast as answers come.
        warmup_s: At the beginning, sent and not counted.
        duration_s: From then on, counted.
        timeout_s: What an answer may take from its sending.
    """

    connections: int = 100
    rate: float | None = None
    warmup_s: float = 1.0
    duration_s: float = 10.0
    timeout_s: float = 60.0


class Target(msgspec.Struct, frozen=True):
    """A server that is measured.

    Attributes:
        provider: Where it is and what its key is.
        tally: What its answers come to.
    """

    provider: Provider
    tally: Tally


class Load:
    """Sends requests and measures their answers; to be run once.

    Args:
        targets: Whom, by turns.
        questions: What, by turns.
        streaming: Whether they ask for events.
        pace: How hard.
        wire: Carries the requests.
        clock: Tells when they are due.

    Attributes:
        asked: How many requests were sent, the warm-up's among them.
        counted_from: When the warm-up is over.
        until: When the last request may be due.
        interrupted: Whether it was stopped before.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        questions: Sequence[Question],
        *,
        streaming: bool,
        pace: Pace,
        wire: Wire,
        clock: Clock,
    ) -> None:
        self._targets = targets
        self._questions = questions
        self._streaming = streaming
        self._pace = pace
        self._wire = wire
        self._clock = clock
        self._begin = self.counted_from = self.until = clock.monotonic()
        self._work: asyncio.Task[None] | None = None
        self.asked = 0
        self.interrupted = False

    async def run(self) -> None:
        """Send and measure until the time is over and every answer is in, or until `stop`."""
        self._begin = self._clock.monotonic()
        self.counted_from = self._begin + self._pace.warmup_s
        self.until = self.counted_from + self._pace.duration_s
        work = self._by_answers() if self._pace.rate is None else self._by_rate(self._pace.rate)
        self._work = asyncio.create_task(work)
        try:
            await self._work
        except asyncio.CancelledError:
            if not self.interrupted:
                raise

    def stop(self) -> None:
        """End now; what is on its way is hung up on and not counted."""
        self.interrupted = True
        if self._work is not None:
            self._work.cancel()

    async def _by_answers(self) -> None:
        numbers = count()

        async def worker() -> None:
            while (now := self._clock.monotonic()) < self.until:
                reading = await self._ask(next(numbers), now)
                if reading.error == CONNECT:
                    await self._clock.sleep(PAUSE_S)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._pace.connections):
                group.create_task(worker())

    async def _by_rate(self, rate: float) -> None:
        free = asyncio.Semaphore(self._pace.connections)
        each_s = 1 / (rate * len(self._targets))

        async def send(number: int, due: float) -> None:
            try:
                await self._ask(number, due)
            finally:
                free.release()

        async with asyncio.TaskGroup() as group:
            for number in count():
                due = self._begin + number * each_s
                if due >= self.until:
                    return
                # A timer may fire early by what it cannot resolve.
                while (wait_s := due - self._clock.monotonic()) > _NO_TIME_S:
                    await self._clock.sleep(wait_s)
                if free.locked():
                    await free.acquire()
                    if self._clock.monotonic() >= self.until:
                        self._give_up(number, each_s)
                        return
                else:
                    await free.acquire()
                group.create_task(send(number, due))

    def _give_up(self, number: int, each_s: float) -> None:
        """Count what is due from this request on, and will not be sent."""
        while (due := self._begin + number * each_s) < self.until:
            if due >= self.counted_from:
                self._targets[number % len(self._targets)].tally.never_sent(NOT_SENT, 1)
            number += 1

    async def _ask(self, number: int, due: float) -> Reading:
        turn, which = divmod(number, len(self._targets))
        target = self._targets[which]
        question = self._questions[turn % len(self._questions)]
        request = target.provider.request(PATH, question.body(turn), streaming=self._streaming)
        self.asked += 1
        reading = Reading(self._clock, scheduled_at=due, streaming=self._streaming)
        await self._carry(request, reading)
        if due >= self.counted_from:
            target.tally.add(reading)
        return reading

    async def _carry(self, request: Request, reading: Reading) -> None:
        """Send a request and wait until its reading is over, within its time."""
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        call: HangUp | None = None

        def expire() -> None:
            reading.expire()
            if call is None:
                task.cancel()

        alarm = self._clock.call_at(reading.sent_at + self._pace.timeout_s, expire)
        try:
            call = await self._wire.send(request, reading)
            await reading.over
        except APIConnectionError:
            reading.not_connected()
        except asyncio.CancelledError:
            # Ours, because it took too long to connect; or somebody wants us to end.
            if reading.error != TIMEOUT or task.uncancel():
                raise
        finally:
            alarm.cancel()
            if call is not None:
                call.abort()
