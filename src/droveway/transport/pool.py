"""This file knows how a request finds its connection, and when connections end.

The order of events: `send` takes an idle connection or waits for a slot and opens one, writes, and
returns; the response travels from the event loop through `connection.py` and `reader.py` to the
sink; a complete response gives the connection back here. There is no task and no timer per request.
"""

import asyncio
import ssl
from typing import Final

from droveway.clock import Alarm, Clock
from droveway.errors import APIConnectionError
from droveway.transport.connection import Call, Connection
from droveway.transport.dialing import dial
from droveway.transport.lane import Lane
from droveway.transport.message import Request, Sink, request_bytes
from droveway.transport.origin import Origin
from droveway.transport.proxies import ProxyRules
from droveway.transport.reader import BODY_BYTES_MAX, HEAD_BYTES_MAX, ResponseReader

_SWEEP_EVERY_S: Final = 5.0
_RESTED_S: Final = 1.0
# A server that says "timeout=5" closes at 5; a request that leaves here at 4.9 arrives too late.
_KEEP_ALIVE_MARGIN_S: Final = 1.0
_CLOSED: Final = "the connection pool was closed"


class Pool:
    """Connections to any number of origins, for one event loop.

    Args:
        clock: Tells how long a connection has been idle.
        connections_per_origin_max: Sockets to one origin; further requests wait in line.
        idle_max: Idle sockets kept, over all origins, once they have rested for some seconds.
        idle_s: How long an idle socket is kept; a server's `Keep-Alive: timeout` may shorten it.
        head_bytes_max: Limit of a response's head.
        body_bytes_max: Limit of a response's body, unpacked; a call may set its own.
        tls: TLS settings; None verifies against the system's trust store.
        proxy: Which origins go through a proxy; None for none.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        connections_per_origin_max: int = 1000,
        idle_max: int = 200,
        idle_s: float = 60.0,
        head_bytes_max: int = HEAD_BYTES_MAX,
        body_bytes_max: int = BODY_BYTES_MAX,
        tls: ssl.SSLContext | None = None,
        proxy: ProxyRules | None = None,
    ) -> None:
        self._clock = clock
        self._connections_per_origin_max = connections_per_origin_max
        self._idle_max = idle_max
        self._idle_s = idle_s
        self._head_bytes_max = head_bytes_max
        self._body_bytes_max = body_bytes_max
        self._tls = tls
        self._proxy = proxy or ProxyRules()
        self._lanes: dict[Origin, Lane] = {}
        self._connections: dict[Connection, Lane] = {}
        self._dialing: set[asyncio.Timeout] = set()
        self._sweeper: Alarm | None = None
        self._closed = False
        self._emptied = asyncio.Event()

    async def send(
        self, request: Request, sink: Sink, *, body_bytes_max: int | None = None
    ) -> Call:
        """Write a request; its response goes to the sink.

        Waits for a connection only: once the request is with the kernel this returns. There is no
        time limit in here; cancel the caller, or abort the call.

        Args:
            request: What to ask.
            sink: Who takes the response.
            body_bytes_max: Limit of this response's body, unpacked; None for the pool's.

        Raises:
            ValueError: The request cannot be written as HTTP.
            APIConnectionError: There is no connection, and nothing was sent.
        """
        lane = self._lane(request.origin)
        data = self._written(request, lane)
        while True:
            if self._closed:
                raise APIConnectionError(_CLOSED, sent=False)
            connection = lane.take(self._clock.monotonic()) or await lane.slot()
            reused = connection is not None
            if connection is None:
                connection = await self._opened(lane)
            if connection.open:
                call = connection.start(
                    sink,
                    data,
                    reused=reused,
                    head_only=request.method == "HEAD",
                    body_bytes_max=body_bytes_max or self._body_bytes_max,
                )
                if call is not None:
                    return call
            if not reused:
                address = request.origin.address
                raise APIConnectionError(
                    f"{address} closed a new connection at once; is it what base_url should name?",
                    sent=False,
                )

    async def aclose(self) -> None:
        """Close every connection, those at work too; returns when the sockets are gone."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for lane in self._lanes.values():
            lane.turn_away(APIConnectionError(_CLOSED, sent=False))
            lane.idle.clear()
        for attempt in self._dialing:
            attempt.reschedule(0.0)
        for connection in tuple(self._connections):
            connection.fail(APIConnectionError(_CLOSED, sent=True))
        if self.sockets:
            await self._emptied.wait()

    @property
    def sockets(self) -> int:
        """How many sockets there are, opening ones and closing ones among them."""
        return sum(lane.slots for lane in self._lanes.values())

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return sum(len(lane.idle) for lane in self._lanes.values())

    # The way of a connection: opened, freed, expired, lost.

    async def _opened(self, lane: Lane) -> Connection:
        """Open a connection in a slot that is ours; the slot is freed if that fails."""
        connection = Connection(
            whence=lane.origin.address,
            reader=ResponseReader(whence=lane.origin.address, head_bytes_max=self._head_bytes_max),
            on_free=self._freed,
            on_lost=self._lost,
        )
        self._connections[connection] = lane
        opened = False
        # Without a limit of its own; it lets aclose end the attempt and nothing else.
        attempt = asyncio.timeout(None)
        try:
            async with attempt:
                self._dialing.add(attempt)
                if self._closed:
                    raise APIConnectionError(_CLOSED, sent=False)
                await dial(connection, origin=lane.origin, proxy=lane.proxy, tls=self._tls_context)
            opened = True
        except TimeoutError:
            raise APIConnectionError(_CLOSED, sent=False) from None
        finally:
            self._dialing.discard(attempt)
            if not opened:
                self._given_up(connection)
        return connection

    def _given_up(self, connection: Connection) -> None:
        if connection.open:
            connection.drop()
        # Cancelled amid connecting, uvloop closes the socket without a word to its protocol.
        self._lost(connection)

    def _freed(self, connection: Connection) -> None:
        lane = self._connections[connection]
        if self._closed:
            connection.drop()
            return
        now = self._clock.monotonic()
        told = connection.keep_alive_s
        rest_s = self._idle_s if told is None else min(self._idle_s, told - _KEEP_ALIVE_MARGIN_S)
        connection.idle_since = now
        connection.expires_at = now + rest_s
        if rest_s > 0 and lane.give_back(connection):
            return
        if rest_s <= 0:
            connection.drop()
            return
        lane.idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._clock.call_at(now + _SWEEP_EVERY_S, self._sweep)

    def _lost(self, connection: Connection) -> None:
        lane = self._connections.pop(connection, None)
        if lane is None:
            return
        if connection in lane.idle:
            lane.idle.remove(connection)
        lane.free_slot()
        if self._closed and not self.sockets:
            self._emptied.set()

    def _sweep(self) -> None:
        """Close what is idle for too long, and what is too much; one timer, none without any.

        Only a connection that has rested counts as too much: in a busy pool hundreds are idle for
        a moment, and to close those would mean to open them again.
        """
        now = self._clock.monotonic()
        self._sweeper = None
        idle = [connection for lane in self._lanes.values() for connection in lane.idle]
        idle.sort(key=lambda connection: connection.idle_since, reverse=True)
        for rank, connection in enumerate(idle):
            surplus = rank >= self._idle_max and now - connection.idle_since >= _RESTED_S
            if surplus or connection.expires_at <= now:
                self._connections[connection].idle.remove(connection)
                connection.drop()
        if self.idle:
            self._sweeper = self._clock.call_at(now + _SWEEP_EVERY_S, self._sweep)

    # Leaves.

    def _lane(self, origin: Origin) -> Lane:
        lane = self._lanes.get(origin)
        if lane is None:
            lane = self._lanes[origin] = Lane(
                origin,
                proxy=self._proxy.proxy_for(origin),
                slots_max=self._connections_per_origin_max,
            )
        return lane

    def _written(self, request: Request, lane: Lane) -> bytes:
        if lane.proxy is None or request.origin.scheme == "https":
            return request_bytes(request)
        return request_bytes(request, proxied=True, authorization=lane.proxy.authorization)

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls
