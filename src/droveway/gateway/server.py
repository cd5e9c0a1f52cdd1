"""This file knows how the gateway listens, says that it does, and goes down without a cut."""

import asyncio
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

import uvicorn

from droveway.errors import SettingsError
from droveway.gateway.app import Gateway

BACKLOG: Final = 2048
KEEP_ALIVE_S: Final = 75
STARTED_LOOK_S: Final = 0.01
# A balancer that asks each second hears of it in time.
NOTICE_S: Final = 3.0
# What a cut request has to tell its caller and to settle.
CUT_GRACE_S: Final = 5


class _Quiet(uvicorn.Server):
    """uvicorn's server, which leaves signals to us: we have something to do first."""

    def install_signal_handlers(self) -> None:
        """Install none."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket.

    Raises:
        SettingsError: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another host or port"
        ) from error
    listener.listen(BACKLOG)
    return listener


class Served:
    """A gateway that listens: `async with` it; leaving lets what was accepted end.

    Args:
        gateway: The application.
        listener: From `listen`.
        drain_s: How long accepted requests may still take.
        notice_s: How long `/readyz` says that we are going before nothing new is taken.

    Attributes:
        url: Where it listens.
    """

    def __init__(
        self,
        gateway: Gateway,
        listener: socket.socket,
        *,
        drain_s: float,
        notice_s: float = 0.0,
    ) -> None:
        self._gateway = gateway
        self._drain_s = drain_s
        self._notice_s = notice_s
        self._listener = listener
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._server = _Quiet(
            uvicorn.Config(
                gateway,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # nothing here depends on who a proxy says is calling
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=math.ceil(drain_s) + CUT_GRACE_S,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started and not self._serving.done():
            await asyncio.wait([self._serving], timeout=STARTED_LOOK_S)
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
        loop = asyncio.get_running_loop()
        if self._gateway.draining:
            self._server.should_exit = True
            self._gateway.cut_all()
            return
        self._gateway.draining = True
        loop.call_later(self._notice_s, self._take_nothing_new)

    def _take_nothing_new(self) -> None:
        self._server.should_exit = True
        # A little earlier than the server itself would cut: a caller shall hear of it.
        cut_in_s = max(0.0, self._drain_s - self._notice_s)
        asyncio.get_running_loop().call_later(cut_in_s, self._gateway.cut_all)

    async def gone(self) -> None:
        """Wait until all has ended."""
        assert self._serving is not None, "entered before it is left"
        await self._serving
        self._listener.close()


async def serve(
    gateway: Gateway, listener: socket.socket, *, drain_s: float, ready: Callable[[str], None]
) -> signal.Signals:
    """Serve until SIGTERM or SIGINT, then let what was accepted end.

    Args:
        gateway: The application.
        listener: From `listen`.
        drain_s: How long accepted requests may still take.
        ready: Told the URL when requests are served.

    Returns:
        The signal that ended it.
    """
    loop = asyncio.get_running_loop()
    asked: list[signal.Signals] = []
    served = Served(gateway, listener, drain_s=drain_s, notice_s=min(NOTICE_S, drain_s))
    async with served as server:

        def go_down(by: signal.Signals) -> None:
            asked.append(by)
            server.go_down()

        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, go_down, each)
        ready(server.url)
        await server.gone()
    return asked[0] if asked else signal.SIGTERM
