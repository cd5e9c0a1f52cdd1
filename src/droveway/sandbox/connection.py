"""This file knows one TCP connection of a client: it plays one reply after another."""

import asyncio
from collections import deque
from collections.abc import Callable

from droveway.clock import Clock
from droveway.sandbox.player import Player
from droveway.sandbox.reply import error_reply
from droveway.sandbox.requests import Reader, Request, UnreadableError
from droveway.sandbox.vendor import Vendor


class Connection:
    """Serves the requests of one connection in their order; an `asyncio.Protocol` by its shape.

    Args:
        vendor: Decides the replies.
        number: Which connection of the sandbox it is.
        clock: Waits.
        lost: Called when it is gone.
    """

    def __init__(
        self,
        vendor: Vendor,
        number: int,
        *,
        clock: Clock,
        lost: Callable[["Connection"], None],
    ) -> None:
        self._vendor = vendor
        self._number = number
        self._clock = clock
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._reader = Reader()
        self._waiting: deque[Request] = deque()
        self._player: Player | None = None
        self._paused = False

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The client is here."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read on, and serve what is whole."""
        assert self._transport is not None
        if self._transport.is_closing():
            return
        try:
            requests = self._reader.feed(data)
        except UnreadableError as error:
            self._refuse(error)
            return
        if self._reader.wants_continue:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._waiting.extend(requests)
        self._serve_next()

    def eof_received(self) -> bool:
        """The client has gone: half a connection is none for the clients we serve."""
        return False

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._paused = True
        if self._player is not None:
            self._player.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._paused = False
        if self._player is not None:
            self._player.resume()

    def connection_lost(self, _: Exception | None) -> None:
        """Everything that still ran has lost its reader."""
        self._waiting.clear()
        self._reader.close()
        if self._player is not None:
            self._player.lost()
            self._player = None
        self._lost(self)

    def _serve_next(self) -> None:
        """Play the reply to the next request, if there is one and none is under way."""
        if self._player is not None or not self._waiting:
            return
        if self._transport is None or self._transport.is_closing():
            return
        request = self._waiting.popleft()
        self._player = Player(
            self._transport,
            self._vendor.answer(request, self._number),
            clock=self._clock,
            keep_alive=request.keep_alive,
            done=self._over,
        )
        if self._paused:
            self._player.pause()
        self._player.start()

    def _over(self) -> None:
        """A reply has ended; the next one begins in a turn of its own, however many wait."""
        self._player = None
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._serve_next)

    def _refuse(self, error: UnreadableError) -> None:
        """Answer what was no request, unless an answer is under way, and close."""
        assert self._transport is not None
        if self._player is None:
            reply = error_reply(error.status, str(error))
            self._transport.write(reply.head(keep_alive=False) + reply.body)
        self._transport.close()
