"""This file knows a vendor that goes as far as it is told, and sees who hangs up on it, and when."""

import asyncio
import json
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from droveway.clock import SystemClock

CLOCK: Final = SystemClock()
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
# What it says at once of a stream that stops midway, in tokens of its own count.
WORDS: Final = 20
PIECE: Final = "abc " * 4_000
_LENGTH: Final = re.compile(rb"(?i)content-length: *(\d+)")
_USAGE: Final = {"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50}


class Steered:
    """A vendor; what it does goes by the name of the model.

    `early` says nothing, `midway` some words, `long` a great many, `whole` is no stream; each ends
    well when it may. `refusing` is told to come later, `failing` that the vendor failed.

    Attributes:
        url: Its base URL.
        may_end: Lets go whom it holds.
        held: How many wait for that, by model.
        came: How many requests came.
        gone_at: When each connection ended that was hung up on, on the clock's monotonic time.
        pieces: How many pieces each `long` stream has.
        sent_bytes: What the kernel took of `long` streams.
        closed: How many connections are closed.
    """

    def __init__(self, *, pieces: int, send_buffer: int | None) -> None:
        self.url = ""
        self.may_end = asyncio.Event()
        self.pieces = pieces
        self.held: Counter[str] = Counter()
        self.came = self.closed = self.sent_bytes = 0
        self.gone_at: list[float] = []
        self._send_buffer = send_buffer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        if self._send_buffer is not None:
            made = writer.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                head = await reader.readuntil(b"\r\n\r\n")
                found = _LENGTH.search(head)
                assert found is not None
                asked = json.loads(await reader.readexactly(int(found[1])))
                self.came += 1
                await self._unless_left(reader, self._answer(asked["model"], writer))
        finally:
            self.closed += 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _unless_left(
        self, reader: asyncio.StreamReader, answering: "asyncio._CoroutineLike[None]"
    ) -> None:
        answer = asyncio.create_task(answering)
        leaving = asyncio.create_task(reader.read())
        try:
            await asyncio.wait([answer, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                self.gone_at.append(CLOCK.monotonic())
        finally:
            for each in (answer, leaving):
                each.cancel()
            await asyncio.wait([answer, leaving])

    async def _answer(self, model: str, writer: asyncio.StreamWriter) -> None:
        if model == "refusing":
            writer.write(_whole(b"429 Later\r\nretry-after: 30", {"error": {"message": "later"}}))
        elif model == "failing":
            writer.write(_whole(b"500 Failed", {"error": {"message": "failed"}}))
        elif model == "whole":
            await self._hold(model)
            message = {"role": "assistant", "content": "Yes."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            writer.write(_whole(b"200 OK", {"id": "a", "choices": [choice], "usage": _USAGE}))
        else:
            await self._stream(model, writer)
        await writer.drain()

    async def _stream(self, model: str, writer: asyncio.StreamWriter) -> None:
        if model == "long":
            await self._pour(writer)
        elif model == "midway":
            writer.write(HEAD + WORDS * event({"content": "word "}))
        await self._hold(model)
        if model == "early":
            writer.write(HEAD + event({"content": "At last."}))
        writer.write(event({}, finish="stop") + event(None) + b"data: [DONE]\n\n")

    async def _pour(self, writer: asyncio.StreamWriter) -> None:
        """Send as fast as it is taken."""
        loop, made = asyncio.get_running_loop(), writer.get_extra_info("socket")
        with socket.socket(fileno=socket.dup(made.fileno())) as own:
            own.setblocking(False)
            rest = HEAD + b"".join(event({"content": PIECE, "n": n}) for n in range(self.pieces))
            view = memoryview(rest)
            while view:
                try:
                    taken = own.send(view[:65_536])
                except BlockingIOError:
                    ready = asyncio.Event()
                    loop.add_writer(own, ready.set)
                    try:
                        await ready.wait()
                    finally:
                        loop.remove_writer(own)
                    continue
                self.sent_bytes += taken
                view = view[taken:]

    async def _hold(self, model: str) -> None:
        self.held[model] += 1
        try:
            await self.may_end.wait()
        finally:
            self.held[model] -= 1


def event(delta: dict[str, object] | None, *, finish: str | None = None) -> bytes:
    """An event of a stream; without a delta the one that tells the usage."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    told = {"id": "a", "model": "m", "choices": choices}
    return b"data: %b\n\n" % json.dumps(told if choices else {**told, "usage": _USAGE}).encode()


def _whole(status: bytes, told: object) -> bytes:
    body = json.dumps(told).encode()
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return head % status + b"content-length: %d\r\n\r\n" % len(body) + body


@asynccontextmanager
async def steered(*, pieces: int = 100, send_buffer: int | None = None) -> AsyncIterator[Steered]:
    """A vendor that listens.

    Args:
        pieces: How many pieces of 16 KB a `long` stream has.
        send_buffer: What its kernel may hold of each answer; None for as much as it likes.
    """
    vendor = Steered(pieces=pieces, send_buffer=send_buffer)
    tasks: set[asyncio.Task[None]] = set()

    def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(vendor.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(came, "127.0.0.1", 0, backlog=512)
    vendor.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield vendor
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
