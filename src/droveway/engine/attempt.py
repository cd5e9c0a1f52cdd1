"""This file knows one attempt: it sits at the end of a vendor's socket until its outcome is clear.

It is the transport's sink. Bytes become events, events go to the meter and the caller's outbox,
and the stream's table (`dialects/ending.py`) says how it ended. It never waits.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

from droveway.chat import Answer
from droveway.clock import Alarm, Clock
from droveway.dialects.ending import Signal
from droveway.dialects.openai_chat import read_answer
from droveway.engine.metering import Meter
from droveway.engine.outbox import Outbox
from droveway.engine.provider import Provider
from droveway.engine.watch import Watch
from droveway.errors import (
    APITimeoutError,
    CancelledCallError,
    DrovewayError,
    Phase,
    UpstreamError,
)
from droveway.settings import Timeout
from droveway.transport import Call, ResponseHead

# After [DONE] a vendor has this long to end the body, so that its connection can be kept.
LINGER_S: Final = 1.0


class Body(Protocol):
    """What reads the body of an answer; a stream and a whole one are the two."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""

    def end(self, signal: Signal, cause: DrovewayError | None) -> None:
        """Take the end of the bytes."""


OpenBody = Callable[["Attempt", ResponseHead], Body]


class Attempt:
    """One request to one provider.

    Args:
        provider: Who is asked.
        open_body: Chooses who reads the body, once the head is there.
        streaming: Whether events are wanted as they come.
        through: Whether the vendor's bytes go to the caller as they come.
        read_whole: Reads an answer that came in one piece.
        outbox: Where they go; None for a whole answer.
        clock: Where time comes from.
        loop: The engine's event loop.
        timeout: The four clocks.
        total_at: When the whole call is over.
        retry_after_max_s: What a longer Retry-After is cut to.

    Attributes:
        ended: Done when the outcome is clear; `answer` or `error` is set then.
        raw: The bytes of a whole answer, on the through lane.
        delivered: Whether any data event came; nothing may be repeated after that.
        began_good: Called once, with the head, when the vendor begins a good answer.
        wrote: Told of output tokens as they come, where somebody's money is watched.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        open_body: "OpenBody",
        streaming: bool,
        through: bool = False,
        read_whole: Callable[[bytes], Answer] = read_answer,
        outbox: Outbox | None,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        timeout: Timeout,
        total_at: float,
        retry_after_max_s: float,
    ) -> None:
        self.provider = provider
        self._open_body = open_body
        self.streaming = streaming
        self.through = through
        self.read_whole = read_whole
        self.raw: bytes | None = None
        self.outbox = outbox
        self.clock = clock
        self.timeout = timeout
        self.retry_after_max_s = retry_after_max_s
        self.meter = Meter()
        self.started_at: datetime = clock.now()
        self.started = clock.monotonic()
        self.first_token_at: float | None = None
        self.ended_at: float | None = None
        self.delivered = False
        self.answer: Answer | None = None
        self.error: DrovewayError | None = None
        self.status: int | None = None
        self.ended: asyncio.Future[None] = loop.create_future()
        self.began_good: Callable[[ResponseHead], None] = _nothing
        self.wrote: Callable[[int], None] | None = None
        self.sending: asyncio.Task[object] | None = None
        self.call: Call | None = None
        self._body: Body | None = None
        self._wire_open = True
        self._linger: Alarm | None = None
        self.watch = Watch(clock, total_at=total_at, expired=self._expired)
        self.watch.enter("connect", timeout.connect_s)

    # The life of an attempt, in order.

    def sent(self, call: Call) -> None:
        """Note that the request is on its way."""
        self.call = call
        self.sending = None
        if self.ended.done():
            self._hang_up()
        elif self.first_token_at is None:
            self._await_first_token()

    def on_head(self, head: ResponseHead) -> None:
        """Take the status and headers, and decide who reads the body."""
        self.status = head.status
        if self.ended.done():
            return
        self._body = self._open_body(self, head)
        if 200 <= head.status < 300:
            self.began_good(head)

    def on_chunk(self, data: bytes) -> None:
        """Take bytes of the body."""
        if self._body is not None and not self.ended.done():
            self._body.feed(data)

    def on_done(self) -> None:
        """Take the end of the body, as HTTP promised it."""
        self._wire_closed()
        if self._body is not None and not self.ended.done():
            self._body.end("body_end", None)

    def on_error(self, error: UpstreamError) -> None:
        """Take the end of the connection, before or amid the body."""
        self._wire_closed()
        error.provider = self.provider.name
        if self.ended.done():
            return
        if self._body is None:
            self.fail(error)
        else:
            self._body.end("broken", error)

    def token(self) -> None:
        """Note that data came; comments and blank lines are no data."""
        if self.first_token_at is None:
            self.first_token_at = self.clock.monotonic()
            self.watch.enter("idle", self.timeout.idle_s)
        else:
            self.watch.touch()

    def succeed(self, answer: Answer) -> None:
        """End with an answer."""
        self.answer = answer
        self._finish()

    def fail(self, error: DrovewayError) -> None:
        """End with an error; what had come until then goes with it."""
        if isinstance(error, UpstreamError):
            error.provider = self.provider.name
            error.rewrite(self.provider.redact)
        error.forget_trace()
        self.error = error
        self._finish()

    def give_up(self) -> None:
        """End because the caller is gone: the connection is closed at once."""
        # A task that is cancelled cancels what it waits for: then `ended` is done, without an end.
        if not self.ended.done() or self.ended.cancelled():
            self.fail(CancelledCallError("the caller went away before the answer was whole"))
        self._hang_up()

    # Backpressure.

    def pause_if_full(self) -> None:
        """Stop reading when the caller is slow; the clocks of the vendor stop too."""
        if self.outbox is not None and self.outbox.full and self.call is not None:
            self.outbox.on_room = self._resume
            self.call.pause()
            self.watch.suspend()

    def _resume(self) -> None:
        if self.call is not None and not self.ended.done():
            self.watch.resume()
            self.call.resume()

    # Endings.

    def _finish(self) -> None:
        self.ended_at = self.clock.monotonic()
        self.watch.stop()
        # Each of these holds its attempt, some by way of the exchange: left in a circle, all would
        # stay until somebody collects it.
        self._body = self.wrote = None
        self.began_good = _nothing
        if self.outbox is not None:
            self.outbox.on_room = None
        if not self.ended.done():
            self.ended.set_result(None)
        if self._wire_open and self.call is not None:
            if self.error is not None:
                self._hang_up()
            else:
                until = self.clock.monotonic() + LINGER_S
                self._linger = self.clock.call_at(until, self._hang_up)

    def _wire_closed(self) -> None:
        self._wire_open = False
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _hang_up(self) -> None:
        if self._wire_open and self.call is not None:
            self._wire_open = False
            self.call.abort()

    def _await_first_token(self) -> None:
        # A whole answer has no first token to wait for: a vendor may think for minutes before
        # its head, and asking twice would be paid twice. It has the total time.
        self.watch.enter("first_token", self.timeout.first_token_s if self.streaming else math.inf)

    def _expired(self, phase: Phase) -> None:
        if self.ended.done():
            return
        if self._body is not None and phase == "idle":
            self._body.end("idle", self._timeout_error(phase))
            return
        self.fail(self._timeout_error(phase))
        if self.sending is not None:
            self.sending.cancel()

    def _timeout_error(self, phase: Phase) -> APITimeoutError:
        span = getattr(self.timeout, f"{phase}_s")
        what = f"{self.provider.name} was silent for {span:g} s ({_PHASES.get(phase)})"
        if phase == "total":
            what = f"the call took longer than {span:g} s in all (total), waiting included"
        return APITimeoutError(
            f"{what}; raise {phase}_s if it needs longer",
            phase=phase,
            provider=self.provider.name,
            sent=self.call is not None,
        )


_PHASES: Final[Mapping[Phase, str]] = {
    "connect": "connecting",
    "first_token": "before the first token",
    "idle": "between two data events",
}


def _nothing(_: ResponseHead) -> None:
    """Stand in where nobody wants to be told."""
