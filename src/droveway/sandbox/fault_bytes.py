"""This file knows the faults of bytes: how lines end, where writes split, how a body is packed."""

import gzip
import zlib
from collections.abc import Iterator
from typing import Any, Final

from msgspec.structs import replace

from droveway.sandbox.fault import Case, Fault
from droveway.sandbox.reply import Piece, Reply, edit_event, error_reply

_PAGE: Final = b"<!doctype html><title>Welcome</title><p>Please sign in to the network.</p>\n"
_BRIDGE: Final = "桥"
_GAP_S: Final = 0.002  # long enough for the other side to read the first half by itself


def _line_ends(end: bytes) -> Any:  # noqa: ANN401 the type of Fault.play
    def play(reply: Reply, case: Case) -> Reply:
        if not case.stream:
            return reply
        pieces = (replace(p, data=p.data.replace(b"\n", end)) for p in reply.pieces)
        return replace(reply, pieces=tuple(pieces))

    return play


def _split_lines(reply: Reply, _: Case) -> Reply:
    """Only the last byte of a piece completes it, so only that one counts as the event."""

    def shreds(piece: Piece) -> Iterator[Piece]:
        last = len(piece.data) - 1
        for i in range(last + 1):
            byte = piece.data[i : i + 1]
            whole = i == last
            yield Piece(
                byte,
                piece.kind if whole else "noise",
                wait_s=piece.wait_s if i == 0 else 0.0,
                tokens=piece.tokens if whole else 0,
                alone=True,
            )

    return replace(reply, pieces=tuple(shred for p in reply.pieces for shred in shreds(p)))


def _split_utf8(reply: Reply, _: Case) -> Reply:
    """Every piece is split inside its first character of several bytes; one is added if need be."""

    def add_bridge(body: dict[str, Any]) -> None:
        choice = body["choices"][0]
        said = choice["message" if "message" in choice else "delta"]
        said["content"] = _BRIDGE + (said.get("content") or "")

    pieces: list[Piece] = []
    bare = reply.body.isascii()
    for piece in reply.pieces:
        if bare and piece.kind in {"role", "body"}:
            piece = edit_event(piece, add_bridge)  # noqa: PLW2901 the same piece, with a character
        at = next((i for i, byte in enumerate(piece.data) if byte > 0x7F), None)
        if at is None:
            pieces.append(piece)
            continue
        pieces.append(Piece(piece.data[: at + 1], "noise", wait_s=piece.wait_s, alone=True))
        pieces.append(replace(piece, data=piece.data[at + 1 :], wait_s=_GAP_S, alone=True))
    return replace(reply, pieces=tuple(pieces))


def _multi_line_data(reply: Reply, case: Case) -> Reply:
    """An event's data may stand in several lines; joined by line feeds they are the JSON."""
    if not case.stream:
        return reply
    pieces = (
        replace(p, data=p.data.replace(b"data: {", b"data: {\ndata: ", 1)) for p in reply.pieces
    )
    return replace(reply, pieces=tuple(pieces))


def _no_space(reply: Reply, case: Case) -> Reply:
    if not case.stream:
        return reply
    pieces = (replace(p, data=p.data.replace(b"data: ", b"data:", 1)) for p in reply.pieces)
    return replace(reply, pieces=tuple(pieces))


def _extra_fields(reply: Reply, case: Case) -> Reply:
    if not case.stream:
        return reply
    prefix = b"event: message\nid: %d\nretry: 3000\n"
    pieces = (replace(p, data=prefix % i + p.data) for i, p in enumerate(reply.pieces))
    return replace(reply, pieces=tuple(pieces))


def _byte_order_mark(reply: Reply, _: Case) -> Reply:
    first = replace(reply.pieces[0], data=b"\xef\xbb\xbf" + reply.pieces[0].data)
    return replace(reply, pieces=(first, *reply.pieces[1:]))


def _gzip(reply: Reply, case: Case) -> Reply:
    packed = reply.with_headers(("content-encoding", "gzip"))
    if not case.stream:
        whole = replace(reply.pieces[0], data=gzip.compress(reply.body, mtime=0))
        return replace(packed, pieces=(whole,))
    packer = zlib.compressobj(wbits=31)
    pieces = [
        replace(p, data=packer.compress(p.data) + packer.flush(zlib.Z_SYNC_FLUSH))
        for p in reply.pieces
    ]
    return replace(packed, pieces=(*pieces, Piece(packer.flush(), "noise")))


def _html_200(_: Reply, __: Case) -> Reply:
    return Reply((Piece(_PAGE, "body"),), headers=(("content-type", "text/html"),))


def _error_200(_: Reply, __: Case) -> Reply:
    return replace(error_reply(500, "The server had an error.", kind="server_error"), status=200)


BYTE_FAULTS: Final = (
    Fault("crlf", "The lines of the stream end with CR LF.", _line_ends(b"\r\n"), only_chats=True),
    Fault("cr", "The lines of the stream end with CR.", _line_ends(b"\r"), only_chats=True),
    Fault("split-lines", "Every byte of the body is its own write.", _split_lines),
    Fault(
        "split-utf8",
        "Characters of several bytes are split over two writes.",
        _split_utf8,
        only_chats=True,
    ),
    Fault(
        "multi-line-data",
        "The data of an event stands in two lines.",
        _multi_line_data,
        only_chats=True,
    ),
    Fault("no-space", "No space follows `data:`.", _no_space, only_chats=True),
    Fault(
        "extra-fields",
        "Each event has the fields event, id and retry.",
        _extra_fields,
        only_chats=True,
    ),
    Fault("byte-order-mark", "The body begins with a byte order mark.", _byte_order_mark),
    Fault("gzip", "The body is compressed, asked for or not.", _gzip),
    Fault("html-200", "An HTML page comes with status 200.", _html_200),
    Fault("error-200", "A JSON error object comes with status 200.", _error_200),
)
