"""This file knows how the gateway listens, says that it does, and goes down without a cut."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from droveway.errors import SettingsError
from droveway.gateway.app import Gateway

BACKLOG: Final = 2048
KEEP_ALIVE_S: Final = 75


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


async def serve(
    gateway: Gateway, listener: socket.socket, *, drain_s: float, ready: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT, then let what was accepted end.

    Args:
        gateway: The application.
        listener: From `listen`.
        drain_s: How long accepted requests may still take.
        ready: Told the URL when requests are served.
    """
    config = uvicorn.Config(
        gateway,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    server = _Quiet(config)
    loop = asyncio.get_running_loop()

    def go_down() -> None:
        gateway.draining = True
        server.should_exit = True

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, go_down)
    host, port = listener.getsockname()[:2]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.wait([serving], timeout=0.01)
    ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    await serving
