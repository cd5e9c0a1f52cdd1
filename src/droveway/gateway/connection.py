"""This file knows one socket at the door: requests come in within limits, answers go out in turn.

Theory of operation. `Incoming` puts requests into a queue; one loop, `_work`, reads a slice,
starts the next answer, reads the next slice. So an answer that is there at once never runs inside
the parser or inside another answer. What comes while an answer is on its way is read on, up to a
bound, and waits for its turn; to a caller who does not read, no further answer is begun.

    reading ──request──▶ answering ──answered──▶ reading
       │                     └── the last one ──▶ lingering ──▶ closed
       └── silent for too long ──▶ closed

Lingering: what still comes is dropped unread for a while, because closing a socket with unread
bytes would take the answer from its caller. `look` is asked once a second by whoever holds the
connections: there is no timer for a request.
"""

import asyncio
from typing import Final, Protocol, cast

from droveway.errors import DrovewayError
from droveway.gateway.incoming import BODY_S, Guard, Incoming, Turns
from droveway.gateway.visit import Visit

RESTING_S: Final = 75.0
LINGER_S: Final = 5.0
# A reader that takes nothing for so long is gone, whatever its socket says.
STUCK_S: Final = 60.0
PIPELINED_MAX: Final = 16
PIPELINED_BYTES_MAX: Final = 2**20
# So much is read before it is asked again whether somebody is too far ahead.
SLICE_BYTES: Final = 16 * 1024
WRITE_BYTES_HIGH: Final = 64 * 1024
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class House(Guard, Protocol):
    """Who lets requests in and answers them."""

    def serve(self, visit: Visit) -> None:
        """Answer a request that is whole; now or later, but never with an exception."""

    def refuse(self, visit: Visit, error: DrovewayError) -> None:
        """Answer a request with an error."""


class Doorway(Protocol):
    """Who holds the connections."""

    leaving: bool

    def now(self) -> float:
        """The monotonic time in seconds."""

    def came(self, connection: "Connection") -> None:
        """A caller has connected."""

    def went(self, connection: "Connection") -> None:
        """A connection is gone."""


class Connection(asyncio.Protocol):
    """One caller's socket.

    Args:
        house: Who answers.
        doorway: Who holds the connections.

    Attributes:
        blocked: Whether the caller reads more slowly than we write.
    """

    __slots__ = (
        "_answered_at",
        "_answering",
        "_doorway",
        "_dropped_bytes",
        "_held",
        "_house",
        "_incoming",
        "_is_paused",
        "_is_working",
        "_since",
        "_stuck_bytes",
        "_stuck_since",
        "_transport",
        "_turns",
        "blocked",
    )

    def __init__(self, house: House, doorway: Doorway) -> None:
        self._house = house
        self._doorway = doorway
        self._turns: Turns = Turns()
        self._incoming = Incoming(house, self, self._turns, now=doorway.now)
        self._answering: Visit | None = None
        self._transport: asyncio.Transport | None = None
        # What came from a caller who is too far ahead.
        self._held: bytes | memoryview = b""
        self._is_paused = self._is_working = False
        self._dropped_bytes = 0
        self._since = self._answered_at = doorway.now()
        self._stuck_since = 0.0
        self._stuck_bytes = 0
        self.blocked = False

    # Asked by whoever holds the connections.

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or waits for it."""
        return self.requests > 0

    @property
    def requests(self) -> int:
        """How many requests are being answered, or wait for it."""
        return (self._answering is not None) + len(self._turns)

    def close(self) -> None:
        """Close the socket when what was written is sent."""
        self._incoming.stop()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the socket now."""
        self._incoming.stop()
        if self._transport is not None:
            self._transport.abort()

    def go_if_idle(self) -> None:
        """Close the socket unless a request is on its way in or out."""
        if not self.busy and self._incoming.visit is None and not self._incoming.is_cut:
            self.close()

    def look(self, now: float) -> None:
        """Cut a caller who is too slow, in sending or in reading; called about once a second."""
        incoming = self._incoming
        if self._is_stuck(now):
            self.abort()
        elif incoming.is_deaf:
            if not self.busy and (now - self._since > LINGER_S or now - self._answered_at > BODY_S):
                self.close()
        elif incoming.visit is not None:
            if not self._is_paused:
                incoming.look(now)
                self._work()
        elif now - self._since > RESTING_S or self._doorway.leaving:
            self.go_if_idle()

    # The way out: `Wire` of a visit.

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport is not None:
            self._transport.write(data)

    def stays(self, visit: Visit) -> bool:
        """Whether a further request may come after this one; if not, none is heard any more."""
        assert self._answering is visit, "answers go out in turn"
        if self._turns:
            return True
        if self._doorway.leaving:
            self._incoming.stop()
        return not self._incoming.is_deaf

    def answered(self, visit: Visit) -> None:
        """Take the next request, or go."""
        assert self._answering is visit, "answers go out in turn"
        self._answering = None
        self._since = self._answered_at = self._doorway.now()
        self._work()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody came."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_HIGH)
        self._doorway.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Somebody left."""
        del exc
        self._transport = None
        self._doorway.went(self)
        self._let_go()
        self._incoming.forget()

    def eof_received(self) -> None:
        """Take the end of what is sent for the end of the caller: a closed socket looks the same.

        What was written already is still sent; the transport closes after that.
        """
        self._let_go()

    def pause_writing(self) -> None:
        """Hold back: what was written is not read."""
        self.blocked = True

    def resume_writing(self) -> None:
        """Go on."""
        self.blocked = False
        if self._answering is not None:
            self._answering.on_room()
        self._work()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self._held = data if not self._held else bytes(self._held) + data
        self._work()

    # The loop.

    def _work(self) -> None:
        """Read and answer, until there is nothing to read or an answer takes its time."""
        if self._is_working or self._transport is None or self._transport.is_closing():
            return
        self._is_working = True
        try:
            while True:
                while self._turns and self._answering is None and not self.blocked:
                    self._start(*self._turns.popleft())
                if not self._held or self._is_ahead():
                    break
                self._read_slice()
        finally:
            self._is_working = False
        self._hold_back()
        if not self.busy:
            self._rest()

    def _start(self, visit: Visit, refusal: DrovewayError | None) -> None:
        self._answering = visit
        if refusal is None:
            self._house.serve(visit)
        else:
            self._house.refuse(visit, refusal)

    def _is_ahead(self) -> bool:
        """Whether so much waits for its turn that nothing more is read."""
        return bool(self._turns) and (
            len(self._turns) >= PIPELINED_MAX
            or sum(len(visit.body) for visit, _ in self._turns) > PIPELINED_BYTES_MAX
        )

    def _read_slice(self) -> None:
        data, self._held = self._held, b""
        if self._incoming.is_deaf:
            self._drop(len(data))
        elif len(data) <= SLICE_BYTES:
            self._incoming.feed(data)
        else:
            view = memoryview(data)
            self._held = view[SLICE_BYTES:]
            self._incoming.feed(view[:SLICE_BYTES])

    def _drop(self, size: int) -> None:
        self._since = self._doorway.now()
        self._dropped_bytes += size
        if self._dropped_bytes > self._house.body_bytes_max and not self.busy:
            self.close()

    def _hold_back(self) -> None:
        """Read the socket only while nobody is too far ahead."""
        assert self._transport is not None, "who has no socket does no work"
        if self._is_ahead() == self._is_paused:
            return
        self._is_paused = not self._is_paused
        if self._is_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            self._incoming.since = self._doorway.now()  # it was we who took the time

    def _rest(self) -> None:
        """Wait for a request, tell a caller to go on with it, or go."""
        incoming, transport = self._incoming, self._transport
        if transport is None or transport.is_closing():
            return
        if incoming.owes_continue:
            incoming.owes_continue = False
            self.write(_CONTINUE)
        if incoming.is_deaf and incoming.is_cut:
            # So that a caller who waits for the end of the connection sees it.
            try:
                transport.write_eof()
            except OSError:
                self.abort()  # reset by the caller a moment ago
        elif incoming.is_deaf or self._doorway.leaving:
            self.go_if_idle()

    def _let_go(self) -> None:
        """Give up what was asked: nobody is there to be answered."""
        self._incoming.stop()
        self._turns.clear()
        self._held = b""
        visit, self._answering = self._answering, None
        if visit is not None:
            visit.lost()

    def _is_stuck(self, now: float) -> bool:
        """Whether what was written is not read, not a byte of it, for too long."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if waiting == 0 or waiting != self._stuck_bytes:
            self._stuck_since, self._stuck_bytes = now, waiting
        return now - self._stuck_since > STUCK_S
