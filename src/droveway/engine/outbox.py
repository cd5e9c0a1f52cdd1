"""This file knows how events get from a vendor's socket to the caller, and how they are bounded."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from droveway.chat import ChatEvent
from droveway.errors import DrovewayError

BYTES_MAX: Final = 256 * 1024


class Retrying(msgspec.Struct, frozen=True, tag="retrying"):
    """An attempt failed before anything of it was delivered, and another one follows.

    Attributes:
        reason: What went wrong, in one line.
        delay_s: How long the next attempt waits, as far as is known.
        provider: Who is asked next.
        model: And for which model.
    """

    reason: str
    delay_s: float
    provider: str
    model: str


class RawEvent(msgspec.Struct, frozen=True, gc=False, tag="raw"):
    """A data event of a vendor, for a caller who speaks the same dialect.

    Attributes:
        data: Its data, as it came.
        usage_only: Whether it is a usage chunk without a choice, which not everybody asked for.
    """

    data: bytes
    usage_only: bool


class KeepAlive(msgspec.Struct, frozen=True, gc=False, tag="keep_alive"):
    """Nothing came for a while; the reader may want to tell its own caller that it still waits."""


StreamEvent = ChatEvent | Retrying | RawEvent | KeepAlive


class Outbox:
    """A bounded buffer between one writer, the attempt, and one reader, the caller.

    The writer never waits: it is told that the box is full and stops reading its socket.

    Args:
        bytes_max: Bytes of vendor data above which the writer shall pause.

    Attributes:
        closed: Whether nothing more comes.
        error: What it was closed with.
        on_news: Called at every event and at the end, for a reader that does not wait in `take`.
        on_room: Called when there is room again.
    """

    __slots__ = (
        "_bytes_max",
        "_events",
        "_forsaken",
        "_size",
        "_waiter",
        "closed",
        "error",
        "on_news",
        "on_room",
    )

    def __init__(self, *, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._events: deque[tuple[StreamEvent, int]] = deque()
        self._size = 0
        self._forsaken = False
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False
        self.error: DrovewayError | None = None
        self.on_news: Callable[[], None] | None = None
        self.on_room: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        """Whether the writer shall pause until `on_room` is called."""
        return self._size > self._bytes_max

    @property
    def size(self) -> int:
        """Bytes of vendor data that wait for the reader."""
        return self._size

    @property
    def holds_events(self) -> bool:
        """Whether there is something to take."""
        return bool(self._events)

    def put(self, event: StreamEvent, size: int = 0) -> None:
        """Add an event that took so many bytes on the wire; nothing is kept for nobody."""
        if self._forsaken:
            return
        self._events.append((event, size))
        self._size += size
        self._wake()

    def forsake(self) -> None:
        """Take note that nobody reads any more: what waits is let go, and so is what comes."""
        self._forsaken = True
        self._events.clear()
        self._size = 0
        if self.on_room is not None:
            self.on_room()

    def close(self, error: DrovewayError | None = None) -> None:
        """Say that nothing more comes; an error is raised to the reader after the last event."""
        self.closed = True
        self.error = error
        self._wake()

    def take_now(self) -> StreamEvent | None:
        """Return the next event if it is there already."""
        return self._pop() if self._events else None

    async def take(self) -> StreamEvent | None:
        """Return the next event, or None after the last one.

        Raises:
            DrovewayError: What the box was closed with.
        """
        while not self._events:
            if self.closed:
                if self.error is not None:
                    raise self.error
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._pop()

    def _pop(self) -> StreamEvent:
        event, size = self._events.popleft()
        was_full = self.full
        self._size -= size
        if was_full and not self.full and self.on_room is not None:
            self.on_room()
        return event

    def _wake(self) -> None:
        if self.on_news is not None:
            self.on_news()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
