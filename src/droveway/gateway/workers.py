"""This file knows how several processes serve one port: they are started, watched and ended.

Theory of operation
-------------------
The parent serves nothing. For each worker it has a task, the keeper, which starts the process,
hears its reports, waits for its end and starts the next one, until the parent goes down:

    started → ready → ended      the next one after a pause that grows with every end
    started → ended              likewise; too often in a short time, and the server ends
    started → refused → ended    before all were ready once: the server refuses to start

To go down, each worker gets SIGTERM and does what one process does. Told a second time, each is
told to cut. One that does not end within its time is killed.
"""

import asyncio
import logging
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import msgspec

from droveway.clock import Alarm, Clock, SystemClock
from droveway.errors import DrovewayError, SettingsError
from droveway.gateway.lifeline import Cut, Draining, Ready, Refused, Source, Start
from droveway.gateway.restarts import EARLY_ENDS_MAX, Restarts
from droveway.gateway.server import CUT_GRACE_S, SPREADS, url_of
from droveway.settings import Settings

LOG: Final = logging.getLogger("droveway.gateway")
# What a store that has seen no reload yet says.
FIRST_GENERATION: Final = 1
# What a worker needs after the drain: to cut, to be cut by its server, to write its rows down.
KILL_GRACE_S: Final = 2.0 * CUT_GRACE_S + 5.0


@dataclass(slots=True, eq=False)
class _Worker:
    """One process, until it has ended.

    Attributes:
        index: Which of the workers it is.
        process: The process.
        ready_at: Since when it serves.
        draining: How many requests were on their way when it began to go down.
        refused: Why it cannot use the settings.
    """

    index: int
    process: Process
    ready_at: float | None = None
    draining: int | None = None
    refused: str | None = None

    def __str__(self) -> str:
        return f"worker {self.index} (process {self.process.pid})"

    def ended_how(self) -> str:
        """Say how it ended, for people."""
        code = self.process.returncode
        assert code is not None, "asked of one that has ended"
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return f"{self} ended {how}" + (f": {self.refused}" if self.refused else "")


class Workers:
    """Worker processes on one port: `async with` it, wait until `ready`, then until `gone`.

    SIGTERM and SIGINT make it go down, and a second one hurries it. Leaving the block makes it go
    down as well; no process is left behind.

    Args:
        command: What starts a worker, as a list of words; everybody can read them.
        settings: What each is told.
        source: Where they came from, so that each can read them anew.
        port: From `reserve`; closed when it goes down.
        metrics_directory: A folder that lives as long as the server, where workers put what they
            have counted.
        generation: Returns which generation of the settings `settings` is.
        clock: Where waiting comes from.
        on_ended: Told the process id of each worker that has ended.
        draining: Told how many requests are on their way when all go down; not where they are cut.

    Attributes:
        settings: What the next worker is told that is started.
        url: Where they listen.
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: Settings,
        source: Source,
        *,
        port: socket.socket,
        metrics_directory: str,
        generation: Callable[[], int] = lambda: FIRST_GENERATION,
        clock: Clock | None = None,
        on_ended: Callable[[int], None] | None = None,
        draining: Callable[[int], None] | None = None,
    ) -> None:
        self.settings = settings
        self.url = url_of(port)
        self._source = source
        self._command = command
        self._port = port
        self._address: tuple[str, int] = port.getsockname()[:2]
        self._metrics_directory = metrics_directory
        self._generation = generation
        self._clock: Clock = clock or SystemClock()
        self._on_ended = on_ended
        self._draining = draining
        self._count = settings.server.workers
        self._keepers: list[asyncio.Task[None]] = []
        self._running: dict[int, _Worker] = {}
        self._pauses: set[asyncio.Event] = set()
        self._all_ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked: list[signal.Signals] = []
        self._unclean: list[str] = []
        self._going_down = False
        self._killing: Alarm | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask, number)
        for index in range(self._count):
            keeper = loop.create_task(self._keep(index), name=f"worker {index}")
            keeper.add_done_callback(self._keeper_ended)
            self._keepers.append(keeper)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._going_down:
            self.go_down()
        if not self._were_ready():
            self.cut()
        try:
            await asyncio.wait(self._keepers)
        finally:
            self._kill()
            if self._killing is not None:
                self._killing.cancel()

    async def ready(self) -> bool:
        """Wait until every worker serves; False where it was told to go down before.

        Raises:
            SettingsError: A worker cannot use the settings.
            DrovewayError: A worker ends again and again before it serves.
        """
        return await self._all_ready

    async def gone(self) -> signal.Signals:
        """Wait until it was told to go down, and every worker has ended.

        Returns:
            The signal that told it first.

        Raises:
            DrovewayError: A worker that is started again ends again and again; or one did not
                go down as it should.
        """
        await asyncio.wait(self._keepers, return_when=asyncio.FIRST_EXCEPTION)
        for keeper in self._keepers:
            if keeper.done():
                keeper.result()
        if self._unclean:
            raise DrovewayError(
                f"{'; '.join(self._unclean)} while going down; requests may have been cut, and "
                "rows of the journal lost"
            )
        return self._asked[0] if self._asked else signal.SIGTERM

    def go_down(self) -> None:
        """Have every worker let its requests end; asked again, cut them."""
        if self._going_down:
            self.cut()
            return
        self._going_down = True
        self._port.close()
        for pause in self._pauses:
            pause.set()
        for worker in self._running.values():
            _signal(worker, signal.SIGTERM)
        self._kill_in(self.settings.server.drain_s + KILL_GRACE_S)
        if not self._all_ready.done():
            self._all_ready.set_result(False)
        self._tell_of_drain()

    def cut(self) -> None:
        """Tell every worker to wait for nothing any more."""
        self._draining = None
        self.tell(Cut())
        self._kill_in(KILL_GRACE_S)

    def tell(self, order: Cut) -> None:
        """Give an order to every worker."""
        for worker in self._running.values():
            _send(worker, order)

    def _ask(self, number: signal.Signals) -> None:
        self._asked.append(number)
        self.go_down()

    def _tell_of_drain(self) -> None:
        """Tell once how many requests are on their way, when each worker has said it."""
        counts = [worker.draining for worker in self._running.values()]
        if self._going_down and self._draining is not None and None not in counts:
            tell, self._draining = self._draining, None
            tell(sum(count or 0 for count in counts))

    def _were_ready(self) -> bool:
        ready = self._all_ready
        return ready.done() and ready.exception() is None and ready.result()

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None and not self._all_ready.done():
            self._all_ready.set_exception(error)

    async def _keep(self, index: int) -> None:
        """Have one worker run, again and again, until all go down."""
        restarts = Restarts()
        while not self._going_down:
            ended, ready_at = await self._run(index)
            if self._going_down:
                return
            pause_s = restarts.pause_s(self._clock.monotonic(), ready_at=ready_at)
            if pause_s is None:
                raise DrovewayError(
                    f"{ended}, as {EARLY_ENDS_MAX} did in a row before they served; see above "
                    "what they said"
                )
            LOG.warning("%s; it is started again in %.1f s", ended, pause_s)
            await self._pause(pause_s)

    async def _run(self, index: int) -> tuple[str, float | None]:
        """Run one process from its start to its end; say how it ended, and since when it served."""
        try:
            worker = await self._start(index)
        except OSError as error:
            return f"worker {index} cannot be started ({error.strerror})", None
        await self._attend(worker)
        if worker.refused is not None and not self._were_ready():
            raise SettingsError(worker.refused)
        if self._going_down and worker.ready_at is not None and worker.process.returncode:
            self._unclean.append(worker.ended_how())
        return worker.ended_how(), worker.ready_at

    async def _start(self, index: int) -> _Worker:
        descriptor = None if SPREADS else self._port.fileno()
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=() if descriptor is None else (descriptor,),
            # A session of its own: what a terminal sends to everybody is the parent's to judge.
            start_new_session=True,
        )
        worker = self._running[index] = _Worker(index, process)
        host, port = self._address
        told = Start(
            index=index,
            settings=self.settings,
            source=self._source,
            generation=self._generation(),
            host=host,
            port=port,
            listener=descriptor,
            metrics_directory=self._metrics_directory,
        )
        _send(worker, told)
        if self._going_down:  # while it was being started
            _signal(worker, signal.SIGTERM)
        return worker

    async def _attend(self, worker: _Worker) -> None:
        """Hear what a worker reports, until it has ended."""
        assert worker.process.stdout is not None, "it was asked for"
        async for line in worker.process.stdout:
            try:
                report = msgspec.json.decode(line, type=Ready | Draining | Refused)
            except msgspec.DecodeError:
                LOG.warning("%s printed %r before it was in order", worker, line)
                continue
            if isinstance(report, Refused):
                worker.refused = report.why
                continue
            if isinstance(report, Draining):
                worker.draining = report.requests
                self._tell_of_drain()
                continue
            worker.ready_at = self._clock.monotonic()
            serving = [each for each in self._running.values() if each.ready_at is not None]
            if len(serving) == self._count and not self._all_ready.done():
                self._all_ready.set_result(True)
        await worker.process.wait()
        del self._running[worker.index]
        self._tell_of_drain()
        if self._on_ended is not None:
            self._on_ended(worker.process.pid)

    async def _pause(self, seconds: float) -> None:
        over = asyncio.Event()
        alarm = self._clock.call_at(self._clock.monotonic() + seconds, over.set)
        self._pauses.add(over)
        try:
            await over.wait()
        finally:
            self._pauses.discard(over)
            alarm.cancel()

    def _kill_in(self, seconds: float) -> None:
        if self._killing is not None:
            self._killing.cancel()
        self._killing = self._clock.call_at(self._clock.monotonic() + seconds, self._kill)

    def _kill(self) -> None:
        for worker in self._running.values():
            LOG.error("%s does not end, and is killed", worker)
            _signal(worker, signal.SIGKILL)


def _send(worker: _Worker, told: Start | Cut) -> None:
    stdin = worker.process.stdin
    assert stdin is not None, "it was asked for"
    if not stdin.is_closing():  # one that has ended needs no orders
        stdin.write(msgspec.json.encode(told) + b"\n")


def _signal(worker: _Worker, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself, which is what was wanted
        worker.process.send_signal(number)
