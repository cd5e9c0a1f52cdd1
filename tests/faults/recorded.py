"""This file knows a vendor that sends a recorded stream as far as the question says, no further."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from droveway.sandbox import Profile, stream_bytes
from faults.matrix import Accent
from faults.stand import MODELS

SHORT: Final = Profile(
    instant=True, answer_tokens=8, answer_sigma=0.0, reasoning_tokens=5, tokens_per_chunk=3
)
TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "day": {"type": "string"}},
                "required": ["city", "day"],
            },
        },
    }
]
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"
_CUT: Final = re.compile(rb"cut at (\d+)")
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Recording(NamedTuple):
    """A stream, and where it is whole.

    Attributes:
        body: Its bytes.
        accent: Who speaks so.
        fields: What was asked for besides the model and the words.
    """

    body: bytes
    accent: Accent
    fields: dict[str, Any]

    @property
    def whole_from(self) -> int:
        """After so many bytes the finish marker has come."""
        finish = re.search(rb'"finish_reason":"', self.body)
        assert finish is not None
        return self.body.index(b"\n\n", finish.start()) + 2

    def asks(self, cut: int) -> dict[str, Any]:
        """The request whose answer is cut after so many bytes."""
        words = [{"role": "user", "content": f"cut at {cut}"}]
        return {"model": MODELS[self.accent], "messages": words, "stream": True, **self.fields}


def record(accent: Accent, **fields: Any) -> Recording:
    """Record what the sandbox streams."""
    asked = {
        "model": MODELS[accent],
        "messages": [{"role": "user", "content": "Grüße, 请用中文回答。"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }
    return Recording(stream_bytes(asked, profile=SHORT), accent, fields)


RECORDINGS: Final = {
    "plain": record("plain"),
    "reasoning": record("deepseek"),
    "tool calls": record("plain", tools=TOOLS, tool_choice="required"),
}


@asynccontextmanager
async def cutting(recording: Recording, *, chunked: bool) -> AsyncIterator[str]:
    """A vendor at a URL; it ends its body by closing, or breaks off amid chunks."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length, cut = _LENGTH.search(head), None
        if length is not None:
            cut = _CUT.search(await reader.readexactly(int(length[1])))
        assert cut is not None, "every question of this test says where to cut"
        data = recording.body[: int(cut[1])]
        writer.write(HEAD + (_as_chunk(data) if chunked else b"\r\n" + data))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def _as_chunk(data: bytes) -> bytes:
    """One chunk without the last one behind it: HTTP itself says that this is not all."""
    head = b"transfer-encoding: chunked\r\n\r\n"
    return head + (b"%x\r\n%b\r\n" % (len(data), data) if data else b"")
