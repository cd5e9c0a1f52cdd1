"""This file knows how the gateway listens, says that it does, and goes down without a cut."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from droveway.clock import Alarm
from droveway.errors import SettingsError
from droveway.gateway.app import Gateway
from droveway.gateway.connection import Connection

BACKLOG: Final = 2048
LOOK_EVERY_S: Final = 1.0
# A balancer that asks each second hears of it in time.
NOTICE_S: Final = 3.0
# What a cut request has to tell its caller and to settle.
CUT_GRACE_S: Final = 5
# Others have the option too, and give all connections to one of the sockets.
SPREADS: Final = sys.platform.startswith("linux") and hasattr(socket, "SO_REUSEPORT")


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Open a listening socket.

    Args:
        host: Address.
        port: Port; 0 takes a free one.
        shared: Whether other processes listen there too, each with a socket of its own.

    Raises:
        SettingsError: The address cannot be had.
    """
    return _opened(host, port, shared=shared, listening=True)


def reserve(host: str, port: int) -> socket.socket:
    """Take a port for workers: nobody else gets it, and none of them is listening yet.

    Where the kernel spreads connections over the sockets of one port (Linux), the socket is only
    bound, and each worker opens a shared one of its own. Elsewhere it listens, and is inherited.

    Raises:
        SettingsError: The address cannot be had.
    """
    # Alone at first: a socket that shares would silently join a server that is running already.
    alone = listen(host, port)
    if not SPREADS:
        return alone
    port = alone.getsockname()[1]
    alone.close()
    reserved = _opened(host, port, shared=True, listening=False)
    # From here on it keeps everybody away who does not share, although it does not listen.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return reserved


def _opened(host: str, port: int, *, shared: bool, listening: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, or asyncio would leave Nagle's algorithm on: 40 ms an answer.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        opened.bind((host, port))
        if listening:
            opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another host or port"
        ) from error
    return opened


def url_of(listener: socket.socket) -> str:
    """Return the URL of what listens there."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Served:
    """A gateway that listens: `async with` it; leaving lets what was accepted end.

    Args:
        gateway: Who answers.
        listener: From `listen`.
        drain_s: How long accepted requests may still take.
        notice_s: How long `/readyz` says that we are going before nothing new is taken.
        draining: Told how many requests are on their way when it is told to go down.

    Attributes:
        url: Where it listens.
        leaving: Whether nothing new is taken any more.
    """

    def __init__(
        self,
        gateway: Gateway,
        listener: socket.socket,
        *,
        drain_s: float,
        notice_s: float = 0.0,
        draining: Callable[[int], None] | None = None,
    ) -> None:
        self._gateway = gateway
        self._draining = draining
        self._clock = gateway.engine.clock
        self._drain_s = drain_s
        self._notice_s = notice_s
        self._listener = listener
        self.url = url_of(listener)
        self.leaving = False
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._alarms: set[Alarm] = set()
        self._looking: Alarm | None = None
        self._empty = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._gateway, self), sock=self._listener, backlog=BACKLOG
        )
        self._look()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.go_down()
        await self.gone()

    def go_down(self) -> None:
        """Say that we are going; a moment later take nothing new, and let what is on its way end.

        Asked again, it does not wait for anything any more.
        """
        if self._gateway.draining:
            self.hurry(0.0)
            return
        self._gateway.draining = True
        if self._draining is not None:
            self._draining(sum(each.requests for each in self._connections))
        rest_s = max(0.0, self._drain_s - self._notice_s)
        if self._notice_s > 0:
            self._in(self._notice_s, lambda: self.hurry(rest_s))
        else:
            self.hurry(rest_s)

    def hurry(self, within_s: float) -> None:
        """Take nothing new from now on, and cut what is on its way after so many seconds."""
        self._gateway.draining = True
        self._take_nothing_new()
        if within_s > 0:
            self._in(within_s, self._cut)
        else:
            self._cut()

    async def gone(self) -> None:
        """Wait until all has ended."""
        await self._empty.wait()
        for alarm in self._alarms:
            alarm.cancel()
        if self._looking is not None:
            self._looking.cancel()

    # Asked by the connections.

    def now(self) -> float:
        """Return the monotonic time in seconds."""
        return self._clock.monotonic()

    def came(self, connection: Connection) -> None:
        """Note a new connection."""
        self._connections.add(connection)

    def went(self, connection: Connection) -> None:
        """Note that a connection is gone."""
        self._connections.discard(connection)
        if self.leaving and not self._connections:
            self._empty.set()

    # The way down.

    def _take_nothing_new(self) -> None:
        if self.leaving:
            return
        self.leaving = True
        assert self._server is not None, "entered before it is left"
        self._server.close()
        for connection in list(self._connections):
            connection.go_if_idle()
        if not self._connections:
            self._empty.set()

    def _cut(self) -> None:
        self._gateway.cut_all()
        self._in(CUT_GRACE_S, self._abort_all)

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    def _look(self) -> None:
        """Look at every connection once a second, so that none of them needs a timer."""
        now = self._clock.monotonic()
        # First of all: whatever becomes of one connection, the others are looked at again.
        self._looking = self._clock.call_at(now + LOOK_EVERY_S, self._look)
        for connection in list(self._connections):
            connection.look(now)

    def _in(self, seconds: float, step: Callable[[], None]) -> None:
        self._alarms.add(self._clock.call_at(self._clock.monotonic() + seconds, step))


async def serve(
    gateway: Gateway,
    listener: socket.socket,
    *,
    drain_s: float,
    ready: Callable[[str], None],
    draining: Callable[[int], None],
) -> signal.Signals:
    """Serve until SIGTERM or SIGINT, then let what was accepted end.

    Args:
        gateway: The application.
        listener: From `listen`.
        drain_s: How long accepted requests may still take.
        ready: Told the URL when requests are served.
        draining: Told how many requests are on their way when it goes down.

    Returns:
        The signal that ended it.
    """
    loop = asyncio.get_running_loop()
    asked: list[signal.Signals] = []
    notice_s = min(NOTICE_S, drain_s)
    served = Served(gateway, listener, drain_s=drain_s, notice_s=notice_s, draining=draining)
    async with served as server:

        def go_down(by: signal.Signals) -> None:
            asked.append(by)
            server.go_down()

        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, go_down, each)
        ready(server.url)
        await server.gone()
    return asked[0] if asked else signal.SIGTERM
