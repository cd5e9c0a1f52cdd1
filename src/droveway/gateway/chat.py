"""This file knows the hot route: a chat in, the same bytes out, and exactly one end."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from droveway.clock import Alarm
from droveway.engine.exchange import Exchange
from droveway.engine.inquiry import Passed
from droveway.engine.outbox import KeepAlive, RawEvent, StreamEvent
from droveway.engine.records import Row
from droveway.engine.terms import Terms
from droveway.errors import CancelledCallError, DrovewayError
from droveway.gateway.caller import NoLimits, Permit
from droveway.gateway.claiming import claim_of_visit, told_again
from droveway.gateway.particulars import Headers, headers_of, last_words
from droveway.gateway.refusal import error_event, refuse
from droveway.gateway.visit import Visit
from droveway.gateway.wishes import Wishes, wishes_of
from droveway.resilience.retry import RetryPolicy
from droveway.settings import Timeout

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway

KEEP_ALIVE: Final = b": keep-alive\n\n"
DONE: Final = b"data: [DONE]\n\n"
RETRY: Final = RetryPolicy()
# nginx would collect the events otherwise.
STREAM_HEADERS: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


def chat(gateway: "Gateway", visit: Visit) -> None:
    """Serve `POST /v1/chat/completions`."""
    inquiry = Passed(visit.body)
    answer = begin(gateway, visit, inquiry)
    if answer is None:
        return
    if inquiry.stream:
        streaming = Streaming(gateway, visit, answer, wants_usage=inquiry.wants_usage)
        visit.on_room = answer.listen(streaming.look)
    else:
        answer.listen(lambda: whole(answer))


class Answer:
    """A request on its way and the visit that waits for it, joined until one of them ends.

    Args:
        gateway: Where it came in.
        visit: Who waits.
        exchange: What is on its way.
        come_back: Gives back what the key's limits lent.
    """

    __slots__ = ("_come_back", "_gateway", "exchange", "visit")

    def __init__(
        self,
        gateway: "Gateway",
        visit: Visit,
        exchange: Exchange,
        *,
        come_back: Permit | NoLimits,
    ) -> None:
        self._gateway = gateway
        self.visit = visit
        self.exchange = exchange
        self._come_back = come_back
        visit.on_gone = exchange.give_up

    def headers(self, row: Row | None) -> Headers:
        """Return what the head tells of the request, and of its key's limits."""
        return headers_of(self.exchange, row) + self._come_back.headers()

    def listen(self, look: Callable[[], None]) -> Callable[[], None]:
        """Call `look` whenever there is something new; it runs behind the gateway's door.

        Returns:
            What looks once more: for a visit that has room again.
        """

        def looked(_: Visit) -> None:
            look()

        def look_again() -> None:
            self._gateway.guarded(self.visit, looked)
            outbox = self.exchange.outbox
            if outbox.closed and not outbox.holds_events:
                self._let_go()

        def on_news() -> None:
            look_again()
            if self.exchange.outbox.closed:
                self._settle()

        self.exchange.outbox.on_news = on_news
        return look_again

    def _let_go(self) -> None:
        """Undo what holds in a circle, so that nothing waits for the collector to find it."""
        self.exchange.outbox.on_news = None
        self.visit.let_go()

    def _settle(self) -> None:
        usage = None if self.exchange.row is None else self.exchange.row.usage
        self._come_back(None if usage is None else usage.input_total + usage.output)


def begin(gateway: "Gateway", visit: Visit, inquiry: Passed) -> Answer | None:
    """Send a request into the corridor, within the limits of its key.

    Returns:
        What will come of it; None where it was served before, and has its answer again.

    Raises:
        DrovewayError: Nothing will: the key's limits are reached, or the server is going down.
    """
    key, claim = visit.key, None
    assert key is not None, "the route needs a key"
    gateway.admit()
    wishes = wishes_of(visit.headers)
    if gateway.tills is not None:
        claim = claim_of_visit(visit, key.id)
        if claim is not None and told_again(gateway.tills, visit, claim):
            return None
    tokens = inquiry.input_estimate() + (inquiry.max_tokens or 0)
    come_back = gateway.allotments.take(key, model=inquiry.model, tokens=tokens)
    try:
        tags = key.tags
        if wishes.role is not None and "role" not in tags:
            tags = {**tags, "role": wishes.role}
        terms = Terms(
            timeout=_timeout(gateway, wishes),
            retry=_retry(wishes),
            ledgers=()
            if gateway.tills is None
            else (gateway.tills.of(key.account, key_id=key.id, tags=tags, claim=claim),),
            tags=tags,
            key_id=key.id,
            conversation=wishes.conversation,
            weight=key.weight,
            priority=wishes.priority,
            drain=gateway.engine.drain,
        )
        exchange = gateway.engine.start(inquiry, terms)
    except BaseException:
        come_back(0)
        raise
    return Answer(gateway, visit, exchange, come_back=come_back)


def _timeout(gateway: "Gateway", wishes: Wishes) -> Timeout:
    """Return the four clocks; a caller may have less time than we would give, but not more."""
    told = gateway.engine.settings.streams
    if wishes.deadline_s is None or wishes.deadline_s >= told.total_s:
        return told
    return msgspec.structs.replace(told, total_s=wishes.deadline_s)


def _retry(wishes: Wishes) -> RetryPolicy:
    """Return how often vendors are asked; a caller who also tries again says how often we may."""
    if wishes.attempts_max is None or wishes.attempts_max >= RETRY.max_attempts:
        return RETRY
    return dataclasses.replace(RETRY, max_attempts=wishes.attempts_max)


def whole(answer: Answer) -> None:
    """Send a whole answer, or why there is none."""
    exchange, row = answer.exchange, answer.exchange.row
    if isinstance(exchange.error, CancelledCallError):
        answer.visit.cut()  # nobody is there to be told
        return
    if exchange.error is not None:
        refuse(answer.visit, exchange.error, headers=answer.headers(row))
        return
    assert exchange.raw is not None, "a whole answer on the through lane has its bytes"
    answer.visit.respond(200, exchange.raw, headers=answer.headers(row))


class Streaming:
    """Sends one stream: its head at the first data event, or when a keep-alive is due.

    Args:
        gateway: Whose clock and keep-alive hold.
        visit: Where the events go.
        answer: Whose events they are.
        wants_usage: Whether the caller asked for the usage chunk.
    """

    __slots__ = (
        "_alarm",
        "_answer",
        "_exchange",
        "_gateway",
        "_over",
        "_sent_at",
        "_visit",
        "_wants_usage",
    )

    def __init__(
        self, gateway: "Gateway", visit: Visit, answer: Answer, *, wants_usage: bool
    ) -> None:
        self._gateway = gateway
        self._visit = visit
        self._answer = answer
        self._exchange = answer.exchange
        self._wants_usage = wants_usage
        self._over = False
        self._sent_at = gateway.engine.clock.monotonic()
        self._alarm: Alarm | None = None
        self._set_alarm()

    def look(self) -> None:
        """Send what is there, as far as the caller reads; at the end, say how it ended."""
        outbox, visit = self._exchange.outbox, self._visit
        while outbox.holds_events and not visit.blocked:
            data = self._bytes_of(outbox.take_now())
            if data:
                self._sent_at = self._gateway.engine.clock.monotonic()
                self._head()
                visit.write(data)
        if outbox.closed and not outbox.holds_events and not self._over:
            self._over = True
            if self._alarm is not None:
                self._alarm.cancel()
            self._end(outbox.error)

    def _end(self, error: DrovewayError | None) -> None:
        exchange, visit = self._exchange, self._visit
        if isinstance(error, CancelledCallError):
            visit.cut()  # nobody is there to be told
        elif error is None:
            self._head()
            visit.end(last_words(exchange) + DONE)
        elif visit.head_sent:
            visit.end(error_event(error, request_id=exchange.id) + last_words(exchange))
        else:
            refuse(visit, error, headers=self._answer.headers(exchange.row))

    def _bytes_of(self, event: StreamEvent | None) -> bytes:
        if isinstance(event, RawEvent):
            if event.usage_only and not self._wants_usage:
                return b""
            data = event.data
            if b"\n" in data:
                data = data.replace(b"\n", b"\ndata: ")
            return b"data: %b\n\n" % data
        return KEEP_ALIVE if isinstance(event, KeepAlive) else b""

    def _head(self) -> None:
        if not self._visit.head_sent:
            self._visit.start(headers=[*STREAM_HEADERS, *self._answer.headers(None)])

    def _set_alarm(self) -> None:
        clock = self._gateway.engine.clock
        self._alarm = clock.call_at(self._sent_at + self._gateway.keepalive_s, self._ring)

    def _ring(self) -> None:
        if self._exchange.outbox.closed:
            return
        now = self._gateway.engine.clock.monotonic()
        if now >= self._sent_at + self._gateway.keepalive_s:
            self._sent_at = now
            self._exchange.outbox.put(KeepAlive())
        self._set_alarm()
