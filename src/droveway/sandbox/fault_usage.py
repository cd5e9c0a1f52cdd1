"""This file knows the faults of usage: missing, doubled, misplaced, or a number nobody can bill."""

from collections.abc import Callable
from typing import Any, Final

from droveway.sandbox.fault import Case, Fault
from droveway.sandbox.fault_events import edit_kind, insert, without
from droveway.sandbox.reply import Reply, edit_event

_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


def _wrong(change: Callable[[int], object]) -> Callable[[Reply, Case], Reply]:
    """Change the counts of the usage, in a stream and in a whole answer."""

    def edit(body: dict[str, Any]) -> None:
        usage = body["usage"]
        usage.update({name: change(usage[name]) for name in _COUNTS if name in usage})

    return lambda reply, _: edit_kind(reply, ["usage", "body"], edit)


def _missing(reply: Reply, _: Case) -> Reply:
    return without(edit_kind(reply, ["body"], lambda body: body.pop("usage")), "usage")


def _null(reply: Reply, _: Case) -> Reply:
    return edit_kind(reply, ["usage", "body"], lambda body: body.update(usage=None))


def _twice(reply: Reply, _: Case) -> Reply:
    """The first count is a smaller one, as from a vendor that counts along."""
    at = _place(reply)
    if at is None:
        return reply

    def smaller(body: dict[str, Any]) -> None:
        usage = body["usage"]
        usage["completion_tokens"] //= 2
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]

    return insert(reply, at, edit_event(reply.pieces[at], smaller))


def _on_choices(reply: Reply, _: Case) -> Reply:
    """Some hosts put the usage on a chunk with an empty delta (2026-11)."""
    delta = {"index": 0, "delta": {}}
    return edit_kind(reply, ["usage"], lambda body: body.update(choices=[delta]))


def _on_finish(reply: Reply, _: Case) -> Reply:
    at = _place(reply)
    if at is None:
        return reply
    usage: dict[str, Any] = {}
    edit_event(reply.pieces[at], lambda body: usage.update(body["usage"]))
    moved = edit_kind(reply, ["finish"], lambda body: body.update(usage=usage))
    return without(moved, "usage")


def _place(reply: Reply) -> int | None:
    """The index of the usage chunk."""
    return next((i for i, p in enumerate(reply.pieces) if p.kind == "usage"), None)


USAGE_FAULTS: Final = (
    Fault("usage-missing", "No usage is told.", _missing),
    Fault("usage-null", "The usage is null.", _null),
    Fault(
        "usage-twice",
        "Two usage chunks come, the first with fewer tokens.",
        _twice,
        only_chats=True,
    ),
    Fault(
        "usage-on-choices",
        "The usage chunk has a choice with an empty delta.",
        _on_choices,
        only_chats=True,
    ),
    Fault("usage-on-finish", "The usage stands on the finish chunk.", _on_finish, only_chats=True),
    Fault("usage-negative", "The token counts are negative.", _wrong(lambda n: -n - 1)),
    Fault("usage-huge", "The token counts are 10^18.", _wrong(lambda _: 10**18)),
    Fault("usage-float", "The token counts have a fraction.", _wrong(lambda n: n + 0.5)),
    Fault("usage-string", "The token counts are strings.", _wrong(str)),
)
