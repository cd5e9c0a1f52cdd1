"""This file knows what a caller of the gateway sees on the wire, byte by byte, without an SDK."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from door import SECRET

DONE: Final = b"[DONE]"


class Told(msgspec.Struct, kw_only=True):
    """What came back.

    Attributes:
        status: Of the head; 0 where none came.
        headers: Names in lower case.
        body: Without the chunks' framing.
        whole: Whether HTTP said that this was all of it.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def events(self) -> list[bytes]:
        """The data of each event."""
        data = []
        for event in self.body.split(b"\n\n"):
            lines = [line[6:] for line in event.split(b"\n") if line.startswith(b"data: ")]
            if lines:
                data.append(b"\n".join(lines))
        return data

    @property
    def done(self) -> bool:
        """Whether an event says that the stream is complete."""
        return DONE in self.events

    @property
    def error(self) -> dict[str, Any] | None:
        """The error, whether it is the answer or the last event of a stream."""
        if self.status != 200:
            return dict(json.loads(self.body)["error"])
        if not self.headers["content-type"].startswith("text/event-stream"):
            return None
        last = self.events[-1] if self.events else b"{}"
        told = {} if last == DONE else json.loads(last)
        return dict(told["error"]) if "error" in told else None

    @property
    def text(self) -> str:
        """The text of the answer, as far as it came."""
        if not self.headers["content-type"].startswith("text/event-stream"):
            return str(json.loads(self.body)["choices"][0]["message"]["content"])
        choices = [
            choice
            for data in self.events
            if data != DONE
            for choice in json.loads(data).get("choices", ())
        ]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


async def call(url: str, fields: dict[str, Any]) -> Told:
    """Ask for a chat on a connection of its own, and read until it ends."""
    async with _asking(url, fields) as reader:
        return _read(await reader.read(-1))


async def hang_up(url: str, fields: dict[str, Any], *, after: int) -> None:
    """Ask for a chat, and go away after so many bytes of the answer, or at its end."""
    async with _asking(url, fields) as reader:
        while after > 0 and (data := await reader.read(after)):
            after -= len(data)


@asynccontextmanager
async def _asking(url: str, fields: dict[str, Any]) -> AsyncIterator[asyncio.StreamReader]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**22)
    body = json.dumps(fields).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (SECRET.encode(), len(body), body)
    )
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


def _read(data: bytes) -> Told:
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        rest, whole = _unchunked(rest)
    else:
        whole = len(rest) == int(headers.get("content-length", "-1"))
    return Told(status=int(first.split(" ")[1]), headers=headers, body=rest, whole=whole)


def _unchunked(data: bytes) -> tuple[bytes, bool]:
    pieces: list[bytes] = []
    while True:
        size, end, data = data.partition(b"\r\n")
        length = int(size, 16) if end else None
        if length is None or len(data) < length + 2:
            return b"".join(pieces), False
        if not length:
            return b"".join(pieces), data == b"\r\n"
        pieces.append(data[:length])
        data = data[length + 2 :]
