"""This file knows the hot route: a chat in, the same bytes out, and exactly one end."""

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from droveway.clock import Alarm
from droveway.engine.exchange import Exchange
from droveway.engine.inquiry import Passed
from droveway.engine.outbox import KeepAlive, RawEvent, StreamEvent
from droveway.engine.records import Row
from droveway.engine.terms import Terms
from droveway.errors import CancelledCallError, DrovewayError
from droveway.gateway.asgi import EVENTS, Receive, Send, Visit, respond
from droveway.gateway.caller import key_of
from droveway.gateway.reading import read_body
from droveway.gateway.refusal import error_event, refuse

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway

KEEP_ALIVE: Final = b": keep-alive\n\n"
DONE: Final = b"data: [DONE]\n\n"


async def chat(gateway: "Gateway", visit: Visit) -> None:
    """Serve `POST /v1/chat/completions`."""
    key = gateway.find_key(key_of(visit.scope))
    inquiry = Passed(await read_body(visit, bytes_max=gateway.body_bytes_max))
    tokens = inquiry.input_estimate() + (inquiry.max_tokens or 0)
    come_back = gateway.allotments.take(key, model=inquiry.model, tokens=tokens)
    exchange: Exchange | None = None
    watch: asyncio.Task[None] | None = None
    try:
        terms = Terms(timeout=gateway.engine.settings.streams, tags=key.tags, key_id=key.id)
        exchange = await gateway.engine.begin(inquiry, terms)
        watch = asyncio.create_task(_give_up_when_gone(exchange, visit.receive))
        if inquiry.stream:
            await Streaming(gateway, exchange, visit.send, wants_usage=inquiry.wants_usage).run()
        else:
            await _whole(exchange, visit.send)
    finally:
        if exchange is not None:
            exchange.give_up()
        if watch is not None:
            watch.cancel()
        come_back(_tokens_of(exchange))


async def _whole(exchange: Exchange, send: Send) -> None:
    await asyncio.wait([exchange.task])
    row = exchange.row
    assert row is not None, "a settled exchange has its row"
    if exchange.error is not None:
        if not isinstance(exchange.error, CancelledCallError):
            await refuse(send, exchange.error, headers=headers_of(exchange, row))
        return
    assert exchange.raw is not None, "a whole answer on the through lane has its bytes"
    await respond(send, 200, exchange.raw, headers=headers_of(exchange, row))


async def _give_up_when_gone(exchange: Exchange, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.give_up()


class Streaming:
    """Sends one stream: its head at the first data event, or when a keep-alive is due.

    Args:
        gateway: Whose clock and keep-alive hold.
        exchange: Whose events they are.
        send: Where they go.
        wants_usage: Whether the caller asked for the usage chunk.
    """

    def __init__(
        self, gateway: "Gateway", exchange: Exchange, send: Send, *, wants_usage: bool
    ) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._send = send
        self._wants_usage = wants_usage
        self._head_sent = False
        self._sent_at = gateway.engine.clock.monotonic()
        self._alarm: Alarm | None = None

    async def run(self) -> None:
        """Send all of it; an error after the head goes into the stream, without `[DONE]`."""
        self._set_alarm()
        try:
            await self._events()
        except CancelledCallError:
            return  # nobody is there to be told
        except DrovewayError as error:
            if not self._head_sent:
                await refuse(self._send, error, headers=headers_of(self._exchange, None))
                return
            await self._body(
                error_event(error, request_id=self._exchange.id) + self._comment(), last=True
            )
        else:
            await self._head()
            await self._body(self._comment() + DONE, last=True)
        finally:
            if self._alarm is not None:
                self._alarm.cancel()

    async def _events(self) -> None:
        outbox = self._exchange.outbox
        while (event := await outbox.take()) is not None:
            pieces = []
            more: StreamEvent | None = event
            while more is not None:
                pieces.append(self._bytes_of(more))
                more = outbox.take_now()
            data = b"".join(pieces)
            if data:
                await self._head()
                await self._body(data)

    def _bytes_of(self, event: StreamEvent) -> bytes:
        if isinstance(event, RawEvent):
            if event.usage_only and not self._wants_usage:
                return b""
            return b"data: " + event.data.replace(b"\n", b"\ndata: ") + b"\n\n"
        return KEEP_ALIVE if isinstance(event, KeepAlive) else b""

    async def _head(self) -> None:
        if not self._head_sent:
            self._head_sent = True
            headers = [*EVENTS, *headers_of(self._exchange, None)]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _body(self, data: bytes, *, last: bool = False) -> None:
        self._sent_at = self._gateway.engine.clock.monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    def _set_alarm(self) -> None:
        clock = self._gateway.engine.clock
        self._alarm = clock.call_at(self._sent_at + self._gateway.keepalive_s, self._look)

    def _look(self) -> None:
        if self._exchange.outbox.closed:
            return
        now = self._gateway.engine.clock.monotonic()
        if now >= self._sent_at + self._gateway.keepalive_s:
            self._sent_at = now
            self._exchange.outbox.put(KeepAlive())
        self._set_alarm()

    def _comment(self) -> bytes:
        row = self._exchange.row
        assert row is not None, "the outbox is closed when the row is written"
        told = {
            "request_id": row.id,
            "model": row.served,
            "provider": row.attempts[-1].provider if row.attempts else None,
            "attempts": len(row.attempts),
            "cost": None if row.cost is None else row.cost.decimal(),
            "usage": row.usage,
        }
        return b": droveway " + msgspec.json.encode(told) + b"\n\n"


def headers_of(exchange: Exchange, row: Row | None) -> list[tuple[bytes, bytes]]:
    """Return what the head tells of a request: what is known by then, and nothing guessed."""
    headers = [(b"x-droveway-request-id", exchange.id.encode())]
    if row is not None:
        attempts = [(each.provider, each.model) for each in row.attempts]
    else:
        attempts = [(candidate.provider, candidate.model) for candidate, _ in exchange.attempts]
    if attempts:
        provider, model = attempts[-1]
        headers.append((b"x-droveway-model", _plain(model)))
        headers.append((b"x-droveway-provider", _plain(provider)))
    headers.append((b"x-droveway-attempts", b"%d" % len(attempts)))
    if row is not None and row.outcome == "completed":
        ours = row.total_ms - sum(each.total_ms for each in row.attempts)
        headers.append((b"x-droveway-overhead-ms", f"{max(0.0, ours):.2f}".encode()))
        if row.cost is not None:
            headers.append((b"x-droveway-cost", row.cost.decimal().encode()))
    return headers


def _plain(name: str) -> bytes:
    """Return a name as a header can carry it; a model's name is the caller's to choose."""
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in name).encode()


def _tokens_of(exchange: Exchange | None) -> int | None:
    if exchange is None or exchange.row is None or exchange.row.usage is None:
        return None
    return exchange.row.usage.input_total + exchange.row.usage.output
