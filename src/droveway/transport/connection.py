"""This file knows one socket: what is written to it, whose answer comes, and when it is done.

Theory of operation. A connection is opened for the pool, works for one call at a time, and goes
back to the pool only from `_finish`; every other way out closes the socket:

    opened ──start──▶ busy ──complete, reusable──▶ idle ──start──▶ busy …
                       │                            │
                       └── abort, error, EOF ───────┴── unasked bytes, expiry ──▶ closed

`on_lost` is called exactly once after the socket was opened, when the socket is gone; the pool
counts sockets by it.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

from droveway.errors import APIConnectionError, ProtocolError, UpstreamError
from droveway.transport.message import Sink
from droveway.transport.reader import ResponseReader

_NO_MORE: Final = "the request may have been carried out; ask again only if that does no harm"


class Call:
    """One request on its way, for the one who sent it.

    Attributes:
        reused: Whether the connection had carried a request before.
        peer: Address that the socket is connected to: "192.0.2.7:443".
    """

    __slots__ = ("_connection", "peer", "reused")

    def __init__(self, connection: "Connection", *, reused: bool) -> None:
        self._connection: Connection | None = connection
        self.peer = connection.peer
        self.reused = reused

    def abort(self) -> None:
        """Close the connection at once; after this the sink hears nothing. Harmless twice."""
        connection = self._connection
        if connection is not None:
            connection.drop()

    def pause(self) -> None:
        """Read no more from the socket; what one read has brought already may still come."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read again."""
        if self._connection is not None:
            self._connection.resume()

    def detach(self) -> None:
        """For the connection: the call is over, and the connection belongs to others now."""
        self._connection = None


class Connection(asyncio.Protocol):
    """One socket to one origin, or to a proxy on the way there.

    Args:
        whence: Whom it talks to, for messages.
        reader: Reads the responses.
        on_free: Takes the connection back when a response is complete and another may follow.
        on_lost: Told when the socket is gone.

    Attributes:
        peer: Address of the other end.
        idle_since: Moment at which it became idle; kept by the lane.
        expires_at: Moment after which an idle connection is used no more; kept by the lane.
        counted: Whether it still holds a slot of its lane; kept by the lane.
    """

    __slots__ = (
        "_call",
        "_on_free",
        "_on_lost",
        "_paused",
        "_reader",
        "_sink",
        "_transport",
        "_whence",
        "counted",
        "expires_at",
        "idle_since",
        "peer",
    )

    def __init__(
        self,
        *,
        whence: str,
        reader: ResponseReader,
        on_free: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        self._whence = whence
        self._reader = reader
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._sink: Sink | None = None
        self._call: Call | None = None
        self._paused = False
        self.peer = ""
        self.counted = True
        self.idle_since = self.expires_at = 0.0

    @property
    def open(self) -> bool:
        """Whether there is a socket, as far as the event loop has noticed."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def fileno(self) -> int:
        """The socket's descriptor; -1 when it has none."""
        sock = self._transport.get_extra_info("socket") if self._transport else None
        return -1 if sock is None else cast("int", sock.fileno())

    @property
    def keep_alive_s(self) -> int | None:
        """How long the server said it keeps this connection idle."""
        return self._reader.keep_alive_s

    def start(
        self, sink: Sink, data: bytes, *, reused: bool, head_only: bool, body_bytes_max: int
    ) -> Call | None:
        """Write a request and hand its response to a sink.

        Returns:
            The call; None when the socket turned out to be closed before a byte went out.
        """
        transport = self._transport
        assert transport is not None
        assert self._sink is None
        self._reader.begin(sink, head_only=head_only, body_bytes_max=body_bytes_max)
        transport.write(data)
        if transport.is_closing():
            # One write is one send: if that failed, nothing of it was sent.
            self._reader.mute()
            return None
        self._sink = sink
        self._call = Call(self, reused=reused)
        return self._call

    def drop(self) -> None:
        """Close the socket now, without a word to the sink."""
        self._detach()
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: UpstreamError) -> None:
        """Close the socket now and end the call, if there is one, with an error."""
        sink = self._sink
        self.drop()
        if sink is not None:
            sink.on_error(error)

    def pause(self) -> None:
        """Read no more."""
        if not self._paused and self._transport is not None and self.open:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused and self._transport is not None:
            self._paused = False
            if self.open:
                self._transport.resume_reading()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected, and its TLS handshake done."""
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else self._whence
        sock = transport.get_extra_info("socket")
        if sock is not None:
            _keep_alive(sock)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._sink is None:
            # Nobody asked: late bytes of an aborted call, or a server that says goodbye.
            self.drop()
            return
        try:
            self._reader.feed(data)
        except ProtocolError as error:
            self.fail(error)
            return
        if self._reader.complete and self._sink is not None:
            self._finish(self._sink)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        sink = self._sink
        whole = sink is not None and exc is None and self._reader.ended()
        began = self._reader.began
        self._detach()
        self._reader.forget()
        self._on_lost(self)
        if sink is None:
            return
        if whole:
            sink.on_done()
        else:
            sink.on_error(self._broken(exc, began=began))

    # Leaves.

    def _finish(self, sink: Sink) -> None:
        transport = self._transport
        assert transport is not None
        self._detach()
        # A request that is still being written would continue in front of the next one.
        if self._reader.reusable and self.open and transport.get_write_buffer_size() == 0:
            self.resume()
            self._on_free(self)
        else:
            transport.abort()
        sink.on_done()

    def _detach(self) -> None:
        self._sink = None
        self._reader.mute()
        if self._call is not None:
            self._call.detach()
            self._call = None

    def _broken(self, exc: Exception | None, *, began: bool) -> APIConnectionError:
        why = f" ({exc})" if exc is not None and str(exc) else ""
        when = "amid its answer" if began else "before it answered"
        message = f"{self._whence} closed the connection {when}{why}; {_NO_MORE}"
        return APIConnectionError(message, sent=True)


def _keep_alive(sock: socket.socket) -> None:
    """Let the kernel probe a silent peer: a model may think for minutes behind a forgetful NAT."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
