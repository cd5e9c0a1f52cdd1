"""This file knows the faults of the connection: silence, cuts, and bodies that end wrongly."""

import math
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from droveway.sandbox.fault import Case, Fault
from droveway.sandbox.reply import Ending, Piece, Reply

# Often enough to prove that comments do not feed an idle timeout, seldom enough to cost nothing.
MURMUR_S: Final = 0.05
_COMMENT: Final = b": keep-alive\n\n"
_BLANK: Final = b"\n"


def _refuse(reply: Reply, _: Case) -> Reply:
    return replace(reply, pieces=(), headless=True, ending="reset")


def _hang_up(reply: Reply, _: Case) -> Reply:
    return replace(reply, pieces=(), headless=True, ending="close")


def _cut_head(reply: Reply, _: Case) -> Reply:
    head = reply.head(keep_alive=True)
    return replace(reply, pieces=(), raw_head=head[: len(head) // 2], ending="close")


def _slow_headers(reply: Reply, case: Case) -> Reply:
    if math.isinf(case.number):
        return replace(reply, pieces=(), headless=True, ending="silence")
    return replace(reply, head_wait_s=case.number)


def _slow_tokens(reply: Reply, case: Case) -> Reply:
    pieces = tuple(replace(piece, wait_s=case.number) for piece in reply.pieces)
    return replace(reply, pieces=pieces)


def _first_events(reply: Reply, count: int) -> tuple[Piece, ...]:
    """The first events with the noise before them; of a whole answer, half the body."""
    if reply.framing != "chunked":
        body = reply.pieces[0]
        return (replace(body, data=body.data[: len(body.data) // 2]),)
    kept: list[Piece] = []
    for piece in reply.pieces:
        if piece.is_event:
            if count < 1:
                break
            count -= 1
        kept.append(piece)
    return tuple(kept)


def _first_bytes(reply: Reply, count: int) -> tuple[Piece, ...]:
    """The first bytes of the body."""
    kept = []
    for piece in reply.pieces:
        if count <= 0:
            break
        kept.append(replace(piece, data=piece.data[:count]))
        count -= len(piece.data)
    return tuple(kept)


def _cut(
    keep: Callable[[Reply, int], tuple[Piece, ...]], ending: Ending
) -> Callable[[Reply, Case], Reply]:
    """Keep the beginning of the body and end the connection there; nothing else is told."""

    def play(reply: Reply, case: Case) -> Reply:
        pieces = keep(reply, case.count)
        return replace(reply, pieces=pieces, declared_length=len(reply.body), ending=ending)

    return play


def _stall_keepalive(reply: Reply, case: Case) -> Reply:
    pieces = _first_events(reply, case.count) if case.stream else ()
    tail = Piece(_COMMENT if case.stream else _BLANK, "noise", wait_s=MURMUR_S)
    return replace(reply, pieces=pieces, framing="chunked", ending="murmur", tail=tail)


def _keepalive_first(reply: Reply, case: Case) -> Reply:
    """DeepSeek while a request is queued: comments in a stream, blank lines before a document."""
    noise = Piece(_COMMENT + b"\n" if case.stream else _BLANK, "noise", wait_s=MURMUR_S)
    pieces = (noise,) * case.count + reply.pieces
    return replace(reply, pieces=pieces, framing="chunked")


def _short_length(reply: Reply, _: Case) -> Reply:
    length = len(reply.body) + 100
    return replace(reply, framing="length", declared_length=length, ending="close")


def _close_delimited(reply: Reply, _: Case) -> Reply:
    return replace(reply, framing="close", ending="close")


def _close_delimited_cut(reply: Reply, case: Case) -> Reply:
    pieces = _first_events(reply, case.count)
    return replace(reply, pieces=pieces, framing="close", ending="close")


_EVENT = "after N events of a stream, or half a whole answer"
ENDING_FAULTS: Final = (
    Fault("refuse", "The connection is reset (RST) before a byte is sent.", _refuse),
    Fault("hang-up", "The connection is closed (FIN) before a byte is sent.", _hang_up),
    Fault("cut-head", "The connection is closed (FIN) inside the head.", _cut_head),
    Fault(
        "slow-headers", "The head comes after N seconds; never, without N.", _slow_headers, math.inf
    ),
    Fault("slow-tokens", "N seconds pass before each event.", _slow_tokens, 1),
    Fault(
        "cut-event", f"The connection is closed (FIN) {_EVENT}.", _cut(_first_events, "close"), 3
    ),
    Fault(
        "cut-event-rst", f"The connection is reset (RST) {_EVENT}.", _cut(_first_events, "reset"), 3
    ),
    Fault(
        "cut-byte",
        "The connection is closed (FIN) after N bytes of the body.",
        _cut(_first_bytes, "close"),
        200,
    ),
    Fault(
        "cut-byte-rst",
        "The connection is reset (RST) after N bytes of the body.",
        _cut(_first_bytes, "reset"),
        200,
    ),
    Fault(
        "stall",
        f"Nothing more comes {_EVENT}; the socket stays open.",
        _cut(_first_events, "silence"),
        3,
    ),
    Fault(
        "stall-keepalive",
        "After N events only comments come, every 50 ms and without end;"
        " instead of a whole answer, blank lines.",
        _stall_keepalive,
        3,
    ),
    Fault(
        "keepalive-first",
        "N comments (before a whole answer: blank lines), 50 ms apart, come before a good answer.",
        _keepalive_first,
        3,
    ),
    Fault(
        "short-length",
        "The content-length is 100 bytes more than the body that comes (FIN).",
        _short_length,
    ),
    Fault(
        "close-delimited",
        "The good body has no length and ends with the connection (FIN).",
        _close_delimited,
    ),
    Fault(
        "close-delimited-cut",
        f"A body without a length ends (FIN) {_EVENT}.",
        _close_delimited_cut,
        3,
    ),
)
