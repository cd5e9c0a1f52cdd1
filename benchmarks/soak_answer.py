"""This file knows how an answer of the gateway ended, as its caller sees it on the wire."""

import re
from collections.abc import Callable
from typing import Final, Literal

import msgspec

End = Literal["finished", "error event", "HTTP error", "hung up", "cut", "two ends", "never ended"]
ENDS: Final[tuple[End, ...]] = (
    "finished", "error event", "HTTP error", "hung up", "cut", "two ends", "never ended"
)  # fmt: skip
# Every stream must have one of these; the others are defects.
VISIBLE: Final[frozenset[End]] = frozenset(ENDS[:4])
_EVENT_END: Final = re.compile(rb"\r\n\r\n|\n\n")


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Error(msgspec.Struct):
    message: str
    type: str
    code: str


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    error: _Error | None = None


_DECODE: Final = msgspec.json.Decoder(_Event).decode


class Answer:
    """One answer while it comes; called by the HTTP parser.

    Args:
        on_event: Called at each data event of a stream.

    Attributes:
        request_id: What the gateway calls the request; empty before the head.
        whole: Whether HTTP said that this was all.
    """

    def __init__(self, on_event: Callable[[], None]) -> None:
        self.request_id = ""
        self.whole = False
        self.status = 0
        self.events = 0
        self._on_event = on_event
        self._is_stream = False
        self._rest = b""
        self._finished = False
        self._done = 0
        self._errors = 0
        self._late = 0
        self._nonsense = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note what matters."""
        name = name.lower()
        if name == b"x-request-id":
            self.request_id = value.decode()
        elif name == b"content-type":
            self._is_stream = value.startswith(b"text/event-stream")

    def on_body(self, data: bytes) -> None:
        """Take bytes of the body."""
        self._rest += data
        if not self._is_stream:
            return
        *whole, self._rest = _EVENT_END.split(self._rest)
        for event in whole:
            self._take(event)

    def on_message_complete(self) -> None:
        """The body is whole, says HTTP."""
        self.whole = True

    def _take(self, event: bytes) -> None:
        lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
        if not lines:
            return  # a comment
        data = b"\n".join(lines)
        self._late += bool(self._done or self._errors)
        if data == b"[DONE]":
            self._done += 1
        else:
            try:
                told = _DECODE(data)
            except msgspec.MsgspecError:
                self._nonsense = True
                return
            self._errors += told.error is not None
            self._finished |= any(choice.finish_reason for choice in told.choices)
        self.events += 1
        self._on_event()

    @property
    def end(self) -> End:
        """How it ended, where its caller read on to the end."""
        if self.status != 200:
            return "HTTP error" if self.whole and self._is_error() else "cut"
        if self._done + self._errors > 1 or self._late:
            return "two ends"
        if not self.whole or self._nonsense or not self._is_stream:
            return "cut"
        if self._errors:
            return "error event"
        return "finished" if self._done and self._finished else "cut"

    def _is_error(self) -> bool:
        """Whether the body is an error of the API, with a type and a code."""
        try:
            return _DECODE(self._rest).error is not None
        except msgspec.MsgspecError:
            return False
