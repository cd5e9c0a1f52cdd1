"""This file knows the connections to one origin: which are idle, who waits, who is next."""

import asyncio
import select
from collections import deque
from contextlib import suppress
from typing import Final

from droveway.transport.connection import Connection
from droveway.transport.origin import Origin
from droveway.transport.proxies import Proxy

# After so long a rest the kernel is asked whether the peer closed; sooner, the event loop knows.
_ASK_KERNEL_AFTER_S: Final = 1.0


class Lane:
    """The connections to one origin.

    Two things always hold: nobody waits while a connection is idle, and nobody waits while a slot
    is free; so who comes later cannot overtake.

    Args:
        origin: Where they go.
        proxy: What stands in between; None for nothing.
        slots_max: How many sockets there may be.

    Attributes:
        idle: Idle connections, the one used last at the end.
        slots: How many sockets there are, opening ones and closing ones among them.
    """

    __slots__ = ("_turns", "idle", "origin", "proxy", "slots", "slots_max")

    def __init__(self, origin: Origin, *, proxy: Proxy | None, slots_max: int) -> None:
        self.origin = origin
        self.proxy = proxy
        self.slots_max = slots_max
        self.slots = 0
        self.idle: list[Connection] = []
        self._turns: deque[asyncio.Future[Connection | None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return len(self._turns)

    def take(self, now: float) -> Connection | None:
        """The idle connection used last that is still good; None when there is none."""
        while self.idle:
            connection = self.idle.pop()
            if connection.expires_at > now and connection.open and _quiet(connection, now):
                return connection
            connection.drop()
        return None

    async def slot(self) -> Connection | None:
        """Wait for a slot, first come first served.

        Returns:
            A connection that another call gave back; None for a free slot, which is the caller's.
        """
        if self.slots < self.slots_max:
            self.slots += 1
            return None
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                # Passed over already, where a slot came free in the very same round of the loop.
                with suppress(ValueError):
                    self._turns.remove(turn)
            elif turn.exception() is None:
                # It was our turn and the cancellation came first: the next one has it.
                self._pass_on(turn.result())
            raise

    def give_back(self, connection: Connection) -> bool:
        """Hand a connection to who waits longest.

        Returns:
            False when nobody waits: the connection is the caller's to keep.
        """
        turn = self._next_turn()
        if turn is None:
            return False
        turn.set_result(connection)
        return True

    def free_slot(self) -> None:
        """A socket is gone, or was never opened: who waits longest may open one."""
        turn = self._next_turn()
        if turn is None:
            self.slots -= 1
        else:
            turn.set_result(None)

    def turn_away(self, error: Exception) -> None:
        """Nobody who waits will get a connection."""
        while (turn := self._next_turn()) is not None:
            turn.set_exception(error)

    def _next_turn(self) -> asyncio.Future[Connection | None] | None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                return turn
        return None

    def _pass_on(self, connection: Connection | None) -> None:
        if connection is None:
            self.free_slot()
        elif not self.give_back(connection):
            connection.drop()


def _quiet(connection: Connection, now: float) -> bool:
    if now - connection.idle_since < _ASK_KERNEL_AFTER_S or not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(connection.fileno, select.POLLIN)
    return not poll.poll(0)
