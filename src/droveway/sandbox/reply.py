"""This file knows what a reply of the sandbox is before it is bytes: pieces, framing, ending."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

PieceKind = Literal["body", "role", "reasoning", "text", "tool", "finish", "usage", "done", "noise"]
Framing = Literal["chunked", "length", "close"]
# done: as HTTP says; close: FIN; reset: RST; silence: nothing more, the socket stays open;
# murmur: the tail again and again until the client goes.
Ending = Literal["done", "close", "reset", "silence", "murmur"]


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Bytes of a body that are written together.

    Attributes:
        data: Bytes before HTTP framing.
        kind: What they say; faults look for it.
        wait_s: Seconds after the piece before it.
        tokens: Completion tokens in it.
        alone: Whether it must not share a write with its neighbours.
    """

    data: bytes
    kind: PieceKind
    wait_s: float = 0.0
    tokens: int = 0
    alone: bool = False

    @property
    def is_event(self) -> bool:
        """Whether it counts as an event of a stream (comments and noise do not)."""
        return self.kind not in {"body", "noise"}


class Reply(msgspec.Struct, frozen=True):
    """One answer on its way to the wire; a fault turns one reply into another.

    Attributes:
        pieces: The body.
        status: HTTP status.
        headers: Headers without those of the framing.
        framing: How the end of the body is told.
        ending: What happens after the last piece.
        declared_length: A `content-length` that is not the body's own.
        tail: What is murmured at the end, for `ending="murmur"`.
        head_wait_s: Seconds before the head; None is for ever.
        headless: Not a byte is sent, only the ending happens.
        raw_head: Bytes instead of the head.
    """

    pieces: tuple[Piece, ...]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    framing: Framing = "length"
    ending: Ending = "done"
    declared_length: int | None = None
    tail: Piece | None = None
    head_wait_s: float | None = 0.0
    headless: bool = False
    raw_head: bytes | None = None

    @property
    def body(self) -> bytes:
        """The whole body, before framing."""
        return b"".join(piece.data for piece in self.pieces)

    def with_headers(self, *headers: tuple[str, str]) -> "Reply":
        """The same with further headers; one of the same name gives way."""
        names = {name for name, _ in headers}
        kept = tuple(pair for pair in self.headers if pair[0] not in names)
        return replace(self, headers=kept + headers)

    def head(self, *, keep_alive: bool) -> bytes:
        """The status line and headers."""
        if self.raw_head is not None:
            return self.raw_head
        lines = [f"HTTP/1.1 {self.status} {_reason(self.status)}"]
        lines.extend(f"{name}: {value}" for name, value in self.headers)
        if self.framing == "chunked":
            lines.append("transfer-encoding: chunked")
        elif self.framing == "length":
            length = self.declared_length
            lines.append(f"content-length: {len(self.body) if length is None else length}")
        if not keep_alive or self.framing == "close":
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def frame(self, data: bytes) -> bytes:
        """Bytes of the body as they go onto the wire."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self.framing == "chunked" else data


def json_reply(value: Any, *, status: int = 200, wait_s: float = 0.0) -> Reply:  # noqa: ANN401 JSON
    """Make a whole JSON answer."""
    piece = Piece(msgspec.json.encode(value), "body", wait_s=wait_s)
    return Reply((piece,), status=status, headers=(("content-type", "application/json"),))


def error_reply(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
) -> Reply:
    """Make an error in the envelope of OpenAI's API."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json_reply({"error": error}, status=status)


def edit_event(piece: Piece, edit: Callable[[dict[str, Any]], None]) -> Piece:
    """Change the JSON in an event, or in a whole body."""
    prefix, end = (b"", b"") if piece.kind == "body" else (b"data: ", b"\n\n")
    value = msgspec.json.decode(piece.data[len(prefix) :])
    edit(value)
    return replace(piece, data=prefix + msgspec.json.encode(value) + end)


def _reason(status: int) -> str:
    """The reason phrase; 529 is in no registry."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded"
