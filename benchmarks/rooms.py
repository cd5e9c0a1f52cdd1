"""This file knows where a request's time goes in the gateway: its share and its calls, by room.

A request goes through the whole gateway, with keys, limits and prices, but its sockets are not
there: what the kernel does is left out. The profiler makes every call dearer than it is, so the
shares are near the truth, and the number of calls is exact.
"""

import asyncio
import cProfile
import pstats
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast
from unittest import mock

import uvloop

from droveway.accounts import KeyRing
from droveway.clock import Clock
from droveway.engine.engine import Engine
from droveway.gateway.app import Gateway
from droveway.gateway.caller import Allotments
from droveway.gateway.connection import Connection
from droveway.settings import ProviderSettings, Settings
from droveway.storage import Store
from upstream import ANSWER
from wrk import chat_body

REQUESTS: Final = 5_000
AT_ONCE: Final = 64


class Wire:
    """A transport without a socket: what is written goes to a function."""

    def __init__(
        self, on_write: Callable[[bytes], object], on_close: Callable[[], object] = lambda: None
    ) -> None:
        self.write = on_write
        self._on_close = on_close
        self._is_closing = False

    def is_closing(self) -> bool:
        """Whether somebody closed it."""
        return self._is_closing

    def close(self) -> None:
        """Close it."""
        if not self._is_closing:
            self._is_closing = True
            self._on_close()

    abort = close

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Do nothing of what only a socket can do."""
        return lambda *_, **__: None


class Doorway:
    """Who holds the connections: nobody does."""

    leaving = False

    def __init__(self, clock: Clock) -> None:
        self.now = clock.monotonic

    def came(self, connection: Connection) -> None:
        """Take no note."""

    def went(self, connection: Connection) -> None:
        """Take no note."""


async def dialled(connection: Any, **_: object) -> None:  # noqa: ANN401 - the pool's own connection
    """Stand in for a vendor that answers at once."""
    loop = asyncio.get_running_loop()
    connection.connection_made(
        Wire(
            lambda _: loop.call_soon(connection.data_received, ANSWER),
            lambda: loop.call_soon(connection.connection_lost, None),
        )
    )


async def serve(gateway: Gateway, request: bytes, count: int) -> None:
    """Have so many requests answered, some at once."""
    loop = asyncio.get_running_loop()
    left, open_ = count - AT_ONCE, AT_ONCE
    done = loop.create_future()

    def caller() -> None:
        connection = Connection(gateway, Doorway(gateway.engine.clock))

        def on_write(data: bytes) -> None:
            nonlocal left, open_
            assert data.startswith(b"HTTP/1.1 200"), data
            if left > 0:
                left -= 1
                loop.call_soon(connection.data_received, request)
                return
            open_ -= 1
            if not open_:
                done.set_result(None)

        connection.connection_made(cast("asyncio.Transport", Wire(on_write)))
        loop.call_soon(connection.data_received, request)

    for _ in range(AT_ONCE):
        caller()
    await done


async def main(folder: Path) -> None:
    """Profile and print the table."""
    vendor = ProviderSettings(base_url="http://127.0.0.1:9/v1", prices="deepseek", concurrency=1000)
    settings = Settings(providers={"vendor": vendor})
    profile = cProfile.Profile()
    with Store(folder / "rooms.db") as store:
        ring = KeyRing(store)
        _, key = await ring.add("benchmark", rpm=10**8, tpm=10**12, concurrency=10**5)
        body = chat_body(1_000)
        head = f"Host: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}"
        request = f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n".encode() + body
        async with Engine(settings, environ={}) as engine:
            allotments = Allotments(engine.clock, store=store.path)
            gateway = Gateway(engine, find_key=ring.find, allotments=allotments)
            await serve(gateway, request, AT_ONCE * 10)
            profile.enable()
            await serve(gateway, request, REQUESTS)
            profile.disable()
            allotments.close()
    show(profile)


def show(profile: cProfile.Profile) -> None:
    """Print share and calls by room."""
    shares: dict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()
    rows: dict[tuple[str, int, str], Any] = vars(pstats.Stats(profile))["stats"]
    for (file, _, _), (_, number, own_s, _, _) in rows.items():
        room = file.partition("/droveway/")[2].partition("/")[0].removesuffix(".py")
        if not room or file == __file__:
            room = "built in" if file == "~" else "other"
        shares[room] += own_s
        calls[room] += number
    whole = sum(shares.values())
    for room, own_s in sorted(shares.items(), key=lambda each: -each[1]):
        print(f"{room:12} {100 * own_s / whole:5.1f} %  {calls[room] / REQUESTS:6.1f} calls")
    print(f"{'in all':12} {'':7}  {sum(calls.values()) / REQUESTS:6.1f} calls a request")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made, mock.patch("droveway.transport.pool.dial", dialled):
        uvloop.run(main(Path(made)))
