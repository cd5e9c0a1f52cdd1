"""This file knows what a worker and its parent say to each other, and that neither lives alone.

Theory of operation
-------------------
A worker's standard input comes from its parent: one line of JSON that says what to serve, then
orders. Nobody else holds the other end, so it ends when the parent does, however the parent
died. Its standard output goes to the parent: reports, a line each. What is printed goes to stderr.

    parent  → worker   Start, once; Cut
    worker  → parent   Ready, once; or Refused, once; Draining, once

To go down is no order: SIGTERM says it, to a worker in any state. Told twice, it is told once:
whoever stops a service signals all of its processes, and the parent says it as well.

A thread reads the orders, not the event loop: a loop that is stuck must not outlive the parent.
"""

import asyncio
import io
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Final

import msgspec

from droveway.errors import SettingsError
from droveway.gateway.app import Gateway
from droveway.gateway.server import CUT_GRACE_S, NOTICE_S, Served, listen
from droveway.settings import Settings, load_settings

# Without a parent nobody watches over a worker: requests on their way get this long to end.
ORPHAN_DRAIN_S: Final = 5.0
_STDIN: Final = 0
_STDOUT: Final = 1
_STDERR: Final = 2
_ORPHANED: Final = 1


class Source(msgspec.Struct, frozen=True):
    """Where the settings come from.

    Attributes:
        file: The file; None where there is none.
        typed: What the command line says of `[server]` instead.
    """

    file: str | None
    typed: dict[str, str | int]

    def read(self) -> Settings:
        """Read the settings anew.

        Raises:
            SettingsError: There is no file, or it cannot be used.
        """
        if self.file is None:
            raise SettingsError("there is no settings file to read; start with --config FILE")
        return self.with_typed(load_settings(Path(self.file)))

    def with_typed(self, settings: Settings) -> Settings:
        """Return settings with what was typed laid over them."""
        server = msgspec.structs.replace(settings.server, **self.typed)
        return msgspec.structs.replace(settings, server=server)


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told first.

    Attributes:
        index: Which of the workers it is, from 0.
        settings: What was set, command line included; secrets are named in it, not written.
        source: Where that came from.
        generation: Of the settings; a reload may have come since.
        host: The address that was taken.
        port: The port that was taken.
        listener: The descriptor of a listening socket that it inherits; None where it opens one.
        metrics_directory: Where workers put what they have counted; gone when the server is.
    """

    index: int
    settings: Settings
    source: Source
    generation: int
    host: str
    port: int
    listener: int | None
    metrics_directory: str


class Cut(msgspec.Struct, frozen=True, tag=True):
    """An order: wait for nothing any more."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """A report: requests are served."""


class Draining(msgspec.Struct, frozen=True, tag=True):
    """A report: it goes down.

    Attributes:
        requests: How many are still on their way.
    """

    requests: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A report: the settings cannot be used.

    Attributes:
        why: One line that says what to do.
    """

    why: str


class Lifeline:
    """A worker's end of the line; made before anything is printed."""

    def __init__(self) -> None:
        self._orders = io.FileIO(_STDIN, closefd=False)
        self._reports = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
        self._served: tuple[asyncio.AbstractEventLoop, Served] | None = None

    def start(self) -> Start:
        """Read what is to be served; from now on this process ends when its parent has."""
        told = msgspec.json.decode(self._orders.readline(), type=Start)
        threading.Thread(target=self._obey, name="droveway-lifeline", daemon=True).start()
        return told

    def report(self, report: Ready | Draining | Refused) -> None:
        """Tell the parent something."""
        try:
            os.write(self._reports, msgspec.json.encode(report) + b"\n")
        except BrokenPipeError:
            # The thread hears that the parent is gone, and does what is to be done.
            return

    async def serve(self, gateway: Gateway, told: Start) -> None:
        """Serve until the parent says that it is enough, or is no more.

        Raises:
            SettingsError: The port cannot be shared.
        """
        drain_s = told.settings.server.drain_s
        if told.listener is None:
            listener = listen(told.host, told.port, shared=True)
        else:
            listener = socket.socket(fileno=told.listener)
        served = Served(
            gateway,
            listener,
            drain_s=drain_s,
            notice_s=min(NOTICE_S, drain_s),
            draining=lambda requests: self.report(Draining(requests)),
        )
        async with served:

            def go_down_once() -> None:
                if not gateway.draining:
                    served.go_down()

            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, go_down_once)
            self._served = (loop, served)
            self.report(Ready())
            await served.gone()

    def _obey(self) -> None:
        while line := self._orders.readline():
            msgspec.json.decode(line, type=Cut)
            self._hurry(0.0)
        self._hurry(ORPHAN_DRAIN_S)
        threading.Event().wait(ORPHAN_DRAIN_S + CUT_GRACE_S)
        # What could not end by itself: a loop that is stuck, a reader who does not read.
        os._exit(_ORPHANED)

    def _hurry(self, within_s: float) -> None:
        if self._served is None:
            os._exit(_ORPHANED)  # nothing was accepted yet
        loop, served = self._served
        try:
            loop.call_soon_threadsafe(served.hurry, within_s)
        except RuntimeError:
            # The loop has ended, and with it every request.
            return


def leave_signals_to_the_parent() -> None:
    """Ignore what a terminal sends to everybody: the parent hears it too, and says what to do."""
    for each in (signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
