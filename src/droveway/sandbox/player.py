"""This file knows how to play a reply on a connection: piece by piece, with one timer."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final

from droveway.clock import Alarm, Clock
from droveway.sandbox.reply import Piece
from droveway.sandbox.vendor import Take

_BATCH_BYTES: Final = 256 * 1024
# Timers fire up to a millisecond early or late; what is nearly due goes along.
_NEARLY_S: Final = 0.0005
# A reset throws away what the other side has not read yet; so it waits until that was read.
_BEFORE_RESET_S: Final = 0.02
_LINGER_RESET: Final = struct.pack("ii", 1, 0)


class Player:
    """Plays one reply; it never holds more than one timer and never waits in a task.

    Theory of operation. `_due` is the moment of the next piece. `_turn` writes all pieces that
    are due, then sets the timer for the next. A transport that is full calls `pause`; then nothing
    is written until `resume`, and what fell due meanwhile goes out at once. After the last piece
    the ending happens, once: `_ended` says so, and `done` is told.

    Args:
        transport: The connection.
        take: What is played.
        clock: Waits.
        keep_alive: Whether the client lets the connection live on.
        done: Called once when the reply has ended and the connection may take the next request.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        take: Take,
        *,
        clock: Clock,
        keep_alive: bool,
        done: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._reply = take.reply
        self._seen = take.seen
        self._lane = take.lane
        self._clock = clock
        self._keep_alive = keep_alive and take.reply.framing != "close"
        self._done = done
        self._next = 0
        self._due = clock.monotonic() + (take.reply.head_wait_s or 0.0)
        self._timer: Alarm | asyncio.Handle | None = None
        self._head_sent = False
        self._paused = False
        self._ended = False

    def start(self) -> None:
        """Begin; the first piece may be due at once."""
        if self._reply.pieces:
            self._due += self._reply.pieces[0].wait_s
        self._seen.status = (
            0 if self._reply.headless or self._reply.raw_head else self._reply.status
        )
        self._wait_or_turn()

    def pause(self) -> None:
        """The transport is full."""
        self._paused = True

    def resume(self) -> None:
        """The transport has room again."""
        self._paused = False
        if not self._ended and self._timer is None:
            self._turn()

    def lost(self) -> None:
        """The connection is gone; if the reply was not over, the client left it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._ended:
            self._seen.client_gone_at = self._clock.monotonic()
            self._end()

    def _wait_or_turn(self) -> None:
        """Set the timer, unless the next piece is due."""
        if self._due > self._clock.monotonic() + _NEARLY_S:
            self._timer = self._clock.call_at(self._due, self._turn)
        else:
            self._turn()

    def _turn(self) -> None:
        """Write what is due; then wait, or end."""
        self._timer = None
        pieces = self._reply.pieces
        while not self._paused and not self._transport.is_closing():
            batch, alone = self._collect()
            is_last = self._next == len(pieces)
            if is_last and self._reply.ending == "done" and self._reply.framing == "chunked":
                batch.append(b"0\r\n\r\n")
            if batch:
                self._transport.write(b"".join(batch))
            if is_last:
                self._finish()
                return
            if alone and self._due <= self._clock.monotonic() + _NEARLY_S:
                # A turn of the loop, or the transport would join the two writes.
                self._timer = asyncio.get_running_loop().call_soon(self._turn)
                return
            if self._due > self._clock.monotonic() + _NEARLY_S:
                self._timer = self._clock.call_at(self._due, self._turn)
                return

    def _collect(self) -> tuple[list[bytes], bool]:
        """Take the pieces that are due, framed; and whether they must be written by themselves."""
        batch: list[bytes] = []
        if not self._head_sent and not self._reply.headless:
            batch.append(self._reply.head(keep_alive=self._keep_alive))
            self._head_sent = True
        pieces = self._reply.pieces
        now = self._clock.monotonic() + _NEARLY_S
        size = 0
        while self._next < len(pieces) and self._due <= now and size < _BATCH_BYTES:
            piece = pieces[self._next]
            batch.append(self._reply.frame(piece.data))
            self._count(piece)
            size += len(piece.data)
            self._next += 1
            if self._next < len(pieces):
                self._due += pieces[self._next].wait_s
            if piece.alone:
                return batch, True
        return batch, False

    def _count(self, piece: Piece) -> None:
        self._seen.events_sent += piece.is_event
        self._seen.tokens_sent += piece.tokens
        if piece.kind == "body":
            self._seen.tokens_sent = self._seen.completion_tokens

    def _finish(self) -> None:
        """Let the ending of the reply happen."""
        ending = self._reply.ending
        if ending == "silence":
            return
        if ending == "murmur":
            self._due = self._clock.monotonic()
            self._murmur()
        elif ending == "reset" and self._head_sent:
            when = self._clock.monotonic() + _BEFORE_RESET_S
            self._timer = self._clock.call_at(when, self._reset)
        elif ending == "reset":
            self._reset()
        else:
            self._end()
            if ending == "close" or not self._keep_alive:
                self._transport.close()
            else:
                self._done()

    def _murmur(self) -> None:
        """Send the tail, again and again."""
        tail = self._reply.tail
        assert tail is not None
        if not self._paused:
            self._transport.write(self._reply.frame(tail.data))
        self._due += tail.wait_s
        self._timer = self._clock.call_at(self._due, self._murmur)

    def _reset(self) -> None:
        """End the connection with RST: a socket that lingers for no time sends no FIN."""
        self._timer = None
        self._end()
        handle = self._transport.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self._transport.abort()

    def _end(self) -> None:
        self._ended = True
        if self._seen.client_gone_at is None:
            self._seen.ended_at = self._clock.monotonic()
        if self._lane is not None:
            self._lane.leave()
            self._lane = None
