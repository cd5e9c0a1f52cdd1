"""This file knows how tests fill a fair queue, take turns, and tell what it should hold."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from droveway.resilience.fair_queue import FairQueue, Priority, Ticket


@dataclass
class Crowd:
    """A fair queue, and the numbers of those who come to it.

    Attributes:
        queue: The queue.
        now: The moment of all that happens.
        number: The number of the one who came last.
    """

    queue: FairQueue = field(default_factory=FairQueue)
    now: float = 0.0
    number: int = 0

    def ticket(
        self,
        key: str = "",
        *,
        role: str = "",
        weight: int = 1,
        priority: Priority = "normal",
        in_vain: bool = False,
        not_before: float = 0.0,
        jitter: float = 0.5,
    ) -> Ticket:
        self.number += 1
        return Ticket(
            self.number,
            100,
            jitter,
            not_before=not_before,
            key=key,
            weight=weight,
            role=role,
            priority=priority,
            in_vain=in_vain,
        )

    def come(
        self, count: int, key: str = "", *, role: str = "", weight: int = 1, **rest: Priority
    ) -> list[Ticket]:
        """Let so many of one key wait."""
        priority: Priority = rest.get("priority", "normal")
        coming = [
            self.ticket(key, role=role, weight=weight, priority=priority) for _ in range(count)
        ]
        self.push(coming)
        return coming

    def push(self, tickets: Iterable[Ticket]) -> None:
        for ticket in tickets:
            self.queue.push(ticket, self.now)

    def turn(self) -> Ticket:
        """Let the next one go."""
        ticket = self.queue.head(self.now)
        assert ticket is not None, "somebody's turn has come"
        self.queue.take(ticket)
        return ticket

    def turns(self, count: int) -> list[Ticket]:
        return [self.turn() for _ in range(count)]

    def all_turns(self) -> list[Ticket]:
        return self.turns(len(self.queue))


def keys(tickets: Iterable[Ticket]) -> list[str]:
    return [ticket.key for ticket in tickets]
