"""Callers who stop reading amid a fast stream: the vendor is held back, and nothing is lost."""

import asyncio
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import msgspec
import pytest

from door import SECRET, FakeKey
from droveway.engine.engine import Engine
from droveway.engine.outbox import BYTES_MAX
from droveway.gateway.app import Gateway
from droveway.gateway.connection import WRITE_BYTES_HIGH, Connection
from droveway.gateway.server import Served, listen
from lab import run
from processes import until
from steered import PIECE, Steered, event, steered

# What one read of an event loop brings at most; asyncio's and uvloop's.
READ_MAX: Final = 256 * 1024
PIECES: Final = 400
MANY_PIECES: Final = 1_250
FEW_PIECES: Final = 100
READERS: Final = 50
STILL_FOR: Final = 10
# What the kernel holds of one stream on our side of the vendor: `net.ipv4.tcp_rmem` at most.
KERNEL_MAX: Final = 8 * 2**20


@dataclass(slots=True)
class Stand:
    """A gateway before a steered vendor."""

    vendor: Steered
    engine: Engine
    served: Served

    @property
    def outboxes(self) -> list[int]:
        return [exchange.outbox.size for exchange in self.engine.on_their_way()]

    @property
    def unsent(self) -> list[int]:
        return [_unsent(each) for each in self.served._connections]

    @asynccontextmanager
    async def calling(self, model: str = "long") -> AsyncIterator[asyncio.StreamReader]:
        """Somebody who has asked, and whose kernel and reader hold little."""
        host, port = self.served.url.removeprefix("http://").split(":")
        with socket.socket() as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, (host, int(port)))
            reader, writer = await asyncio.open_connection(sock=made, limit=4096)
            said = [{"role": "user", "content": "hi"}]
            body = json.dumps({"model": model, "stream": True, "messages": said}).encode()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
                % (SECRET.encode(), len(body), body)
            )
            try:
                yield reader
            finally:
                writer.close()

    async def held_back(self, readers: int = 1) -> int:
        """Wait until nothing moves any more; return what the vendor could send by then."""
        await until(lambda: len(self.outboxes) == readers, "all have come")
        await until(lambda: all(size > BYTES_MAX for size in self.outboxes), "all are full")
        before, still = -1, 0
        while still < STILL_FOR:
            still = still + 1 if self.vendor.sent_bytes == before else 0
            before = self.vendor.sent_bytes
            await asyncio.sleep(0.01)
            assert max(self.outboxes, default=0) <= BYTES_MAX + READ_MAX
            assert max(self.unsent, default=0) <= WRITE_BYTES_HIGH + 2 * len(PIECE)
        return before


def _unsent(connection: Connection) -> int:
    transport = connection._transport
    return 0 if transport is None else transport.get_write_buffer_size()


@asynccontextmanager
async def stand(*, pieces: int = PIECES, **clocks: float) -> AsyncIterator[Stand]:
    async with (
        steered(pieces=pieces, send_buffer=16_384) as vendor,
        Engine.at(vendor.url) as engine,
    ):
        streams = msgspec.structs.replace(engine.settings.streams, **clocks)
        engine.settings = msgspec.structs.replace(engine.settings, streams=streams)
        gateway = Gateway(engine, find_key=lambda _: FakeKey())
        listener = listen("127.0.0.1", 0)
        # What is accepted there inherits it: the kernel holds little of what is not read.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        async with Served(gateway, listener, drain_s=5) as served:
            yield Stand(vendor, engine, served)


def events_in(answer: bytes) -> list[bytes]:
    """The events of a chunked answer, as they came."""
    body, rest = b"", answer.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return [each for each in body.split(b"\n\n") if each.startswith(b"data: ")]


@pytest.mark.parametrize("pieces", [PIECES, pytest.param(MANY_PIECES, marks=pytest.mark.long)])
def test_a_slow_reader_holds_the_vendor_back_and_gets_every_byte_later(pieces: int) -> None:
    async def check() -> None:
        async with stand(pieces=pieces, idle_s=0.3) as it, it.calling() as reader:
            sent = await it.held_back()
            if pieces == MANY_PIECES:  # more than all the kernel's buffers take
                assert sent <= BYTES_MAX + READ_MAX + WRITE_BYTES_HIGH + KERNEL_MAX
                assert sent < pieces * len(PIECE) / 2
            async with it.calling("midway") as other:
                await other.readuntil(b'"word "')
                it.vendor.may_end.set()
                assert b"[DONE]" in await other.read()
            await asyncio.sleep(0.4)
            assert len(it.engine.journal.rows) == 1, "who is late is not the vendor"
            events = events_in(await reader.read())
            expected = [event({"content": PIECE, "n": n})[:-2] for n in range(pieces)]
            assert events[:pieces] == expected
            assert events[-1] == b"data: [DONE]"
            assert it.engine.journal.rows[-1].outcome == "completed"

    run(check(), within_s=90)


def test_fifty_slow_readers_take_little_memory() -> None:
    async def check() -> None:
        async with stand(pieces=FEW_PIECES) as it, AsyncExitStack() as stack:
            tracemalloc.start()
            try:
                before, _ = tracemalloc.get_traced_memory()
                for _ in range(READERS):
                    await stack.enter_async_context(it.calling())
                await it.held_back(READERS)
                each = (tracemalloc.get_traced_memory()[0] - before) / READERS
            finally:
                tracemalloc.stop()
            # The vendor of this process holds its own bytes once for each stream.
            vendors = FEW_PIECES * len(event({"content": PIECE, "n": 0}))
            assert each - vendors < 2 * (BYTES_MAX + READ_MAX + WRITE_BYTES_HIGH)

    run(check())


def test_a_slow_reader_who_hangs_up_ends_the_vendors_stream() -> None:
    async def check() -> None:
        async with stand() as it:
            async with it.calling():
                await it.held_back()
            await until(lambda: it.vendor.closed == 1, "the vendor is hung up on")
            await until(lambda: it.engine.journal.rows, "it is written down")
            (row,) = it.engine.journal.rows
            assert (row.outcome, row.client_gone) == ("cancelled", True)

    run(check())


@pytest.mark.parametrize("reads", [True, False], ids=["who reads on", "who is gone"])
def test_a_slow_reader_beyond_the_total_is_told_so(*, reads: bool) -> None:
    async def check() -> None:
        async with stand(total_s=1.0) as it, it.calling() as reader:
            await it.held_back()
            await until(lambda: it.engine.journal.rows, "its time is over")
            await until(lambda: it.vendor.closed == 1, "the vendor is hung up on")
            assert it.engine.open_exchanges == 0
            if reads:
                *_, last = events_in(await reader.read())
                error = json.loads(last.removeprefix(b"data: "))["error"]
                assert (error["code"], error["phase"]) == ("upstream_timeout", "total")

    run(check())
