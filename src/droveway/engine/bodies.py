"""This file knows how the body of an answer is read: as a stream, as a whole, as an error."""

from collections.abc import Mapping
from typing import Final

import msgspec

from droveway.chat import Answer, TextDelta
from droveway.dialects.ending import MALFORMED_LINES_MAX, Signal, end_of
from droveway.dialects.openai_chat import ChunkReader, InBandError
from droveway.engine.attempt import Attempt, Body
from droveway.engine.metering import tokens_of
from droveway.engine.outbox import RawEvent
from droveway.errors import (
    APIConnectionError,
    DrovewayError,
    ProtocolError,
    StreamTruncatedError,
    UpstreamError,
)
from droveway.sse import EventParser
from droveway.transport import ResponseHead

ERROR_BODY_BYTES_MAX: Final = 64 * 1024
_DONE: Final = b"[DONE]"
_WHOLE_TYPES: Final = ("application/json", "text/html")


def open_body(attempt: Attempt, head: ResponseHead) -> Body:
    """Choose who reads the body that follows a head."""
    if not 200 <= head.status < 300:
        return ErrorBody(attempt, head)
    kind = (head.get("content-type") or "").partition(";")[0].strip().lower()
    if attempt.streaming and kind not in _WHOLE_TYPES:
        return StreamBody(attempt)
    return WholeBody(attempt)


class StreamBody:
    """Reads a stream of events and knows when its answer is whole."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._events = EventParser()
        self._chunks = ChunkReader()
        self._malformed = 0

    def feed(self, data: bytes) -> None:
        """Take bytes: whole events go on to the meter and the caller."""
        try:
            events = self._events.feed(data)
        except ProtocolError as error:
            self._attempt.fail(error)
            return
        for event in events:
            if event.data == _DONE:
                self.end("done", None)
            elif event.event == b"error":
                self._error_event(event.data)
            elif event.data:
                self._chunk(event.data)
            if self._attempt.ended.done():
                return
        self._attempt.pause_if_full()

    def end(self, signal: Signal, cause: DrovewayError | None) -> None:
        """End the stream by its table."""
        ending = end_of(signal, finished=self._chunks.finished)
        attempt = self._attempt
        partial = attempt.meter.answer(model=self._chunks.model, id=self._chunks.id)
        if ending == "completed":
            attempt.succeed(partial)
        elif ending == "truncated":
            attempt.fail(self._truncated(signal, cause, partial))
        elif cause is not None:
            if isinstance(cause, UpstreamError):
                cause.partial = partial
            attempt.fail(cause)

    def _chunk(self, data: bytes) -> None:
        attempt = self._attempt
        attempt.token()
        try:
            events = self._chunks.read(data)
        except ProtocolError as error:
            self.end("malformed", error)
            return
        except msgspec.DecodeError:
            self._malformed += 1
            if self._malformed > MALFORMED_LINES_MAX:
                self.end(
                    "malformed",
                    ProtocolError(
                        f"{attempt.provider.name} sent {self._malformed} lines that are no JSON"
                    ),
                )
            return
        except InBandError as error:
            self.end("error_event", self._in_band(error))
            return
        attempt.delivered = True
        outbox, size = attempt.outbox, len(data)
        if attempt.wrote is not None:
            attempt.wrote(sum(tokens_of(event) for event in events))
        for event in events:
            attempt.meter.take(event)
            if outbox is not None and not attempt.through:
                outbox.put(event, size)
                size = 0
        if outbox is not None and attempt.through:
            outbox.put(RawEvent(data, self._chunks.without_choice), size)
        if self._chunks.broken_off is not None:
            self.end("broken", None)

    def _error_event(self, data: bytes) -> None:
        self._attempt.token()
        try:
            said = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = data.decode("utf-8", "replace")
        inner = said.get("error", said) if isinstance(said, Mapping) else {"message": said}
        self.end("error_event", self._in_band(InBandError(inner)))

    def _in_band(self, error: InBandError) -> DrovewayError:
        inner = error.body if isinstance(error.body, Mapping) else {}
        code = inner.get("code")
        status = code if type(code) is int and 400 <= code <= 599 else 500
        attempt = self._attempt
        return attempt.provider.status_error(
            status,
            {},
            {"error": error.body},
            now=attempt.clock.now(),
            retry_after_max_s=attempt.retry_after_max_s,
        )

    def _truncated(
        self, signal: Signal, cause: DrovewayError | None, partial: Answer
    ) -> StreamTruncatedError:
        if self._chunks.broken_off is not None:
            how = f"the vendor broke it off ({self._chunks.broken_off})"
        elif signal == "done":
            how = "the stream said that it was done, without a finish marker"
        elif isinstance(cause, APIConnectionError):
            how = "the connection broke"
        elif cause is not None:
            how = str(cause)
        else:
            how = "the body ended without a finish marker"
        return StreamTruncatedError(
            f"the stream of {self._attempt.provider.name} was cut after "
            f"{len(partial.text)} characters: {how}; ask again for the whole of it",
            partial=partial,
            provider=self._attempt.provider.name,
        )


class WholeBody:
    """Reads an answer that comes in one piece."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Take bytes; blank ones are a vendor's keep-alive (DeepSeek, 2026-11)."""
        self._body += data
        if not data.isspace():
            self._attempt.token()

    def end(self, signal: Signal, cause: DrovewayError | None) -> None:
        """Read the whole."""
        attempt = self._attempt
        if signal != "body_end":
            attempt.fail(cause or ProtocolError("the answer broke off"))
            return
        body = bytes(self._body)
        try:
            answer = attempt.read_whole(body)
        except ProtocolError as error:
            attempt.fail(self._error_in(body) or error)
            return
        attempt.delivered = True
        attempt.raw = body if attempt.through else None
        if attempt.outbox is not None and answer.text and not attempt.through:
            attempt.outbox.put(TextDelta(answer.text), len(body))
        attempt.succeed(answer)

    def _error_in(self, body: bytes) -> DrovewayError | None:
        """An error object with status 200 is an error all the same."""
        try:
            said = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not isinstance(said, Mapping) or not said.get("error"):
            return None
        attempt = self._attempt
        return attempt.provider.status_error(
            500, {}, said, now=attempt.clock.now(), retry_after_max_s=attempt.retry_after_max_s
        )


class ErrorBody:
    """Reads the body of an error status, as far as it is worth reading."""

    def __init__(self, attempt: Attempt, head: ResponseHead) -> None:
        self._attempt = attempt
        self._head = head
        self._body = bytearray()
        attempt.watch.enter("idle", attempt.timeout.idle_s)

    def feed(self, data: bytes) -> None:
        """Take bytes, up to a bound."""
        self._body += data
        if len(self._body) > ERROR_BODY_BYTES_MAX:
            self.end("body_end", None)

    def end(self, signal: Signal, cause: DrovewayError | None) -> None:  # noqa: ARG002 - any end ends it
        """Make the typed error; a broken body says less, but the status says enough."""
        attempt = self._attempt
        attempt.fail(
            attempt.provider.status_error(
                self._head.status,
                dict(self._head.headers),
                bytes(self._body[:ERROR_BODY_BYTES_MAX]),
                now=attempt.clock.now(),
                retry_after_max_s=attempt.retry_after_max_s,
            )
        )
