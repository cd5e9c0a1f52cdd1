"""This file knows the faults of a stream's events: missing, malformed, odd or in the way."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from droveway.sandbox.fault import Case, Fault
from droveway.sandbox.reply import Piece, Reply, edit_event, error_reply

_HUGE: Final = 1_000_000
_BROKEN: Final = (
    b'data: {"id": "broken", "choices": [{"delta": {"content": "bro\n\n',
    b"data: this is not JSON\n\n",
    b"data: {'single': 'quotes'}\n\n",
)
_IN_BAND: Final = {"message": "The server had an error.", "type": "server_error", "code": None}
_AFTER_DONE: Final = b'data: {"choices":[{"index":0,"delta":{"content":" LATE"}}]}\n\n'

_Edit = Callable[[dict[str, Any]], None]


def edit_kind(reply: Reply, kinds: Sequence[str], edit: _Edit) -> Reply:
    """Change the JSON of every piece of these kinds."""
    changed = (edit_event(p, edit) if p.kind in kinds else p for p in reply.pieces)
    return replace(reply, pieces=tuple(changed))


def without(reply: Reply, *kinds: str) -> Reply:
    """Leave out every piece of these kinds."""
    return replace(reply, pieces=tuple(p for p in reply.pieces if p.kind not in kinds))


def insert(reply: Reply, at: int, *pieces: Piece) -> Reply:
    """Put pieces before the piece at an index."""
    return replace(reply, pieces=reply.pieces[:at] + pieces + reply.pieces[at:])


def _no_finish(body: dict[str, Any]) -> None:
    for choice in body["choices"]:
        choice["finish_reason"] = None


def _end_without_finish(reply: Reply, _: Case) -> Reply:
    return without(edit_kind(reply, ["body"], _no_finish), "finish", "usage", "done")


def _end_without_done(reply: Reply, _: Case) -> Reply:
    return without(reply, "done")


def _done_without_finish(reply: Reply, _: Case) -> Reply:
    return without(edit_kind(reply, ["body"], _no_finish), "finish")


def _malformed(reply: Reply, case: Case) -> Reply:
    if not case.stream:
        return _malformed_body(reply, case)
    lines = (Piece(_BROKEN[i % len(_BROKEN)], "noise") for i in range(case.count))
    return insert(reply, 2, *lines)


def _malformed_body(reply: Reply, _: Case) -> Reply:
    """A stream becomes one long line that is not an event; a document loses its end."""
    body = replace(reply.pieces[0], data=reply.body[: -len(reply.body) // 3], kind="body")
    if reply.framing == "chunked":
        body = replace(body, data=body.data.replace(b"data: ", b"{").replace(b"\n", b" "))
    return replace(reply, pieces=(body,))


def _error_event(reply: Reply, case: Case) -> Reply:
    if not case.stream:
        return replace(error_reply(500, _IN_BAND["message"] or "", kind="server_error"), status=200)
    event = Piece(b"data: " + msgspec.json.encode({"error": _IN_BAND}) + b"\n\n", "noise")
    return replace(reply, pieces=(*reply.pieces[: case.count], event))


def _huge_event(reply: Reply, _: Case) -> Reply:
    def enlarge(body: dict[str, Any]) -> None:
        choice = body["choices"][0]
        choice["message" if "message" in choice else "delta"]["content"] = "x" * _HUGE

    at = min(1, len(reply.pieces) - 1)
    return insert(without(reply, "body"), at, edit_event(reply.pieces[0], enlarge))


def _tool_index_reuse(reply: Reply, _: Case) -> Reply:
    def first_index(body: dict[str, Any]) -> None:
        for call in body["choices"][0]["delta"]["tool_calls"]:
            call["index"] = 0

    return edit_kind(reply, ["tool"], first_index)


def _no_role(reply: Reply, _: Case) -> Reply:
    def nameless(body: dict[str, Any]) -> None:
        for choice in body["choices"]:
            choice.get("message", {}).pop("role", None)

    return edit_kind(without(reply, "role"), ["body"], nameless)


def _empty_choices_first(reply: Reply, case: Case) -> Reply:
    """Azure's content filter does so (2026)."""
    if not case.stream:
        return reply
    first = edit_event(reply.pieces[0], lambda body: body.update(choices=[]))
    return insert(reply, 0, replace(first, kind="role"))


def _data_after_done(reply: Reply, case: Case) -> Reply:
    late = Piece(_AFTER_DONE, "noise")
    return insert(reply, len(reply.pieces), late) if case.stream else reply


def _finish_twice(reply: Reply, _: Case) -> Reply:
    at = next((i for i, p in enumerate(reply.pieces) if p.kind == "finish"), None)
    return reply if at is None else insert(reply, at, reply.pieces[at])


def _odd_finish(reply: Reply, _: Case) -> Reply:
    def rename(body: dict[str, Any]) -> None:
        body["choices"][0]["finish_reason"] = "tired"

    return edit_kind(reply, ["finish", "body"], rename)


EVENT_FAULTS: Final = (
    Fault(
        "end-without-finish",
        "The stream ends cleanly without finish_reason and [DONE]; in a"
        " whole answer finish_reason is null.",
        _end_without_finish,
        only_chats=True,
    ),
    Fault(
        "end-without-done",
        "The stream ends cleanly after its finish chunk, without [DONE].",
        _end_without_done,
        only_chats=True,
    ),
    Fault(
        "done-without-finish",
        "The stream ends with [DONE] and has no finish_reason; in a whole answer it is null.",
        _done_without_finish,
        only_chats=True,
    ),
    Fault("finish-twice", "The finish chunk comes twice.", _finish_twice, only_chats=True),
    Fault(
        "finish-unknown",
        "The finish_reason is a word that nobody knows.",
        _odd_finish,
        only_chats=True,
    ),
    Fault(
        "malformed",
        "N data lines that are not JSON stand amid the stream; a whole answer is broken off.",
        _malformed,
        1,
    ),
    Fault("malformed-body", "The whole body is neither JSON nor events.", _malformed_body),
    Fault(
        "error-event",
        "After N events an error event ends the stream; a whole answer is an"
        " error with status 200.",
        _error_event,
        3,
    ),
    Fault(
        "huge-event", "One event (or the answer) holds 1 MB of text.", _huge_event, only_chats=True
    ),
    Fault(
        "tool-index-reuse",
        "All tool calls of a stream carry index 0.",
        _tool_index_reuse,
        only_chats=True,
    ),
    Fault("no-role", "No chunk, and no message, says a role.", _no_role, only_chats=True),
    Fault(
        "empty-choices-first",
        "The first chunk has no choices.",
        _empty_choices_first,
        only_chats=True,
    ),
    Fault(
        "data-after-done", "A further chunk comes after [DONE].", _data_after_done, only_chats=True
    ),
)
