"""This file knows one measured request: when it was due, sent and answered, and how it failed.

A stream is whole once a choice had its `finish_reason`: `[DONE]` alone says that no more comes,
not that the answer was finished.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from droveway.chat import Usage
from droveway.clock import Clock
from droveway.dialects.usage import read_usage
from droveway.errors import ProtocolError, UpstreamError
from droveway.sse import EventParser
from droveway.transport import ResponseHead

# How a request can fail, besides `http_STATUS`.
TIMEOUT: Final = "timeout"
CONNECT: Final = "connect"
DISCONNECTED: Final = "disconnected"
TRUNCATED: Final = "truncated"
ERROR_EVENT: Final = "error_event"
MALFORMED: Final = "malformed"

_DONE: Final = b"[DONE]"
_NOTHING: Final = (b"", b"null", b"[]")
# A gateway of ours tells a stream's cost in its last comment, a few hundred bytes before the end.
_COMMENT: Final = b"\n: droveway "
_TAIL_BYTES: Final = 4096


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    tool_calls: msgspec.Raw = msgspec.Raw(b"")


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Told(msgspec.Struct, gc=False):
    """A chunk of a stream, or a whole answer: both say these."""

    choices: list[_Choice] = []
    usage: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


_DECODER: Final = msgspec.json.Decoder(_Told)


class Reading:
    """The sink of one measured request; times are seconds of the clock's `monotonic`.

    Args:
        clock: Tells the time.
        scheduled_at: When the request was due; latency counts from here.
        streaming: Whether events were asked for.

    Attributes:
        sent_at: When it was handed to the transport.
        first_at: When the first content came: text or a tool call, no role and no reasoning.
        ended_at: When `[DONE]` came, else when the body ended or failed.
        gaps_s: Times between pieces of content; pieces that came in one read are 0 apart.
        error: How it failed; None when the answer is whole.
        answered_by: Model that a Droveway gateway says it asked.
        gateway_cost: Decimal string that it charges, in its billing currency.
        over: Done when nothing more will come.
    """

    __slots__ = (
        "_body", "_clock", "_events", "_finished", "_from_droveway", "_last_at", "_status",
        "_streaming", "_tail", "_usage", "answered_by", "ended_at", "error", "first_at",
        "gaps_s", "gateway_cost", "over", "scheduled_at", "sent_at",
    )  # fmt: skip

    def __init__(self, clock: Clock, *, scheduled_at: float, streaming: bool) -> None:
        self._clock = clock
        self._streaming = streaming
        self._status = 0
        self._from_droveway = False
        self._events: EventParser | None = None
        self._body = bytearray()
        self._tail = b""
        self._finished = False
        self._last_at = 0.0
        self._usage = b""
        self.scheduled_at = scheduled_at
        self.sent_at = clock.monotonic()
        self.first_at: float | None = None
        self.ended_at: float | None = None
        self.gaps_s: list[float] = []
        self.error: str | None = None
        self.answered_by: str | None = None
        self.gateway_cost: str | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # The four calls of the transport, then the alarm's.

    def on_head(self, head: ResponseHead) -> None:
        """Note the status, and whether events follow."""
        self._status = head.status
        self.answered_by = head.get("x-droveway-model")
        self.gateway_cost = head.get("x-droveway-cost")
        self._from_droveway = head.get("x-droveway-request-id") is not None
        kind = (head.get("content-type") or "").lower()
        if self._streaming and self._good and kind.startswith("text/event-stream"):
            self._events = EventParser()

    def on_chunk(self, data: bytes) -> None:
        """Read events, or keep the body; that of a refusal is of no interest."""
        if self._events is not None:
            self._read(data, self._events)
        elif self._good:
            self._body += data

    def on_done(self) -> None:
        """Judge the answer."""
        if not self._good:
            self._end(f"http_{self._status}")
        elif self._finished:
            self._end(None)
        elif self._events is not None:
            self._end(TRUNCATED if self._events.events or self._events.comments else MALFORMED)
        else:
            self._end(self._judge_body())

    def on_error(self, error: UpstreamError) -> None:
        """Judge what had come when the connection failed."""
        if self._finished:
            self._end(None)
        elif isinstance(error, ProtocolError):
            self._end(MALFORMED)
        else:
            self._end(TRUNCATED if self._good else DISCONNECTED)

    def expire(self) -> None:
        """Take the end of the time it had; an answer that is whole stays so."""
        whole = self._finished and self.ended_at is not None
        self._end(None if whole else TIMEOUT)

    def not_connected(self) -> None:
        """Note that there was no connection to send on."""
        self._end(CONNECT)

    # What it told, once it is over.

    def usage(self) -> Usage | None:
        """Tokens as the server counted them; None when it told none that can be counts."""
        return read_usage(_lenient(self._usage))

    def cost_told(self) -> str | None:
        """Return what a Droveway gateway says it charges: in the head, or the last comment."""
        _, found, rest = self._tail.rpartition(_COMMENT)
        told = _lenient(rest.partition(b"\n")[0]) if found else None
        if isinstance(told, dict) and isinstance(told.get("cost"), str):
            return str(told["cost"])
        return self.gateway_cost

    # Leaves.

    @property
    def _good(self) -> bool:
        return 200 <= self._status < 300

    def _read(self, data: bytes, parser: EventParser) -> None:
        now = self._clock.monotonic()
        if self._from_droveway:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
        try:
            events = parser.feed(data)
        except ProtocolError:
            self._fault(MALFORMED)
            return
        for event in events:
            if event.data == _DONE:
                self.ended_at = now
                continue
            try:
                told = _DECODER.decode(event.data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._fault(MALFORMED)
                continue
            self._take(told, now)

    def _take(self, told: _Told, now: float) -> None:
        if bytes(told.error) not in _NOTHING:
            self._fault(ERROR_EVENT)
        if bytes(told.usage) not in _NOTHING:
            self._usage = bytes(told.usage)
        for choice in told.choices:
            delta = choice.delta
            if delta is not None and (delta.content or bytes(delta.tool_calls) not in _NOTHING):
                if self.first_at is None:
                    self.first_at = now
                else:
                    self.gaps_s.append(now - self._last_at)
                self._last_at = now
            if choice.finish_reason is not None:
                self._finished = True

    def _judge_body(self) -> str | None:
        try:
            told = _DECODER.decode(self._body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return MALFORMED
        if bytes(told.error) not in _NOTHING:
            return ERROR_EVENT
        if not told.choices or self._streaming:
            return MALFORMED
        self._usage = bytes(told.usage)
        return None if told.choices[0].finish_reason is not None else TRUNCATED

    def _fault(self, error: str) -> None:
        self.error = self.error or error

    def _end(self, error: str | None) -> None:
        if self.over.done():
            return
        if error is not None:
            self._fault(error)
        if self.ended_at is None or self.error is not None:
            self.ended_at = self._clock.monotonic()
        self.over.set_result(None)


def nearest_rank(ordered: Sequence[float], per_mille: int) -> float:
    """Return the smallest value that at least so many in a thousand do not exceed.

    Args:
        ordered: One value or more, in ascending order.
        per_mille: From 1 to 1000; 999 is the 99.9th percentile.
    """
    return ordered[-(-per_mille * len(ordered) // 1000) - 1]


def _lenient(raw: bytes) -> Any:  # noqa: ANN401 - whatever a server wrote
    """Read JSON that nobody promised; None where it is none."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
