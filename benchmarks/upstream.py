"""This file knows a static vendor: it answers every chat at once, or streams it at a fixed pace."""

import asyncio
import json
import socket
import sys
from typing import cast

import uvloop

WHOLE = json.dumps(
    {
        "id": "chatcmpl-static",
        "object": "chat.completion",
        "model": "deepseek-flash",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * 150},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 250, "completion_tokens": 150, "prompt_cache_hit_tokens": 128},
    }
).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(WHOLE)
) + WHOLE
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def _chunk(delta: dict[str, str], **more: object) -> bytes:
    finish = more.pop("finish_reason", None)
    body = {
        "id": "chatcmpl-static",
        "object": "chat.completion.chunk",
        "created": 1795392000,
        "model": "deepseek-flash",
        "system_fingerprint": "fp_static",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        **more,
    }
    return _framed(b"data: " + json.dumps(body).encode() + b"\n\n")


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


TOKEN = _chunk({"content": " word"})
ENDING = (
    _chunk({}, finish_reason="stop")
    + _framed(
        b'data: {"id":"chatcmpl-static","choices":[],"usage":'
        b'{"prompt_tokens":250,"completion_tokens":150}}\n\n'
    )
    + _framed(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


class Vendor(asyncio.Protocol):
    """Answers each request; one that asks for a stream gets it token by token."""

    def __init__(self, tokens: int, pace_s: float) -> None:
        self._tokens = tokens
        self._pace_s = pace_s
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop's is no subclass of asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.index(b"content-length:") + 15
            length = int(head[at:].partition(b"\r\n")[0])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        if b'"stream":true' not in body:
            self._transport.write(ANSWER)
            return
        self._transport.write(STREAM_HEAD)
        self._send(self._tokens)

    def _send(self, left: int) -> None:
        if self._transport.is_closing():
            return
        if left == 0:
            self._transport.write(ENDING)
            return
        self._transport.write(TOKEN)
        asyncio.get_running_loop().call_later(self._pace_s, self._send, left - 1)


async def serve(tokens: int, pace_s: float) -> None:
    """Listen on a free port, say which, and serve until killed."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    server = await asyncio.get_running_loop().create_server(
        lambda: Vendor(tokens, pace_s), sock=listener
    )
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))
