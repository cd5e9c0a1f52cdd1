"""This file knows who may send now: one line of tickets for each vendor account and model.

All agents, roles and keys that use one account and model stand in one line. What it decides is put
together of four parts, each of which knows one thing:

    gate.py          whether anybody goes: closed, open, half open
    window.py        how many may be in flight, learned from refusals and good answers
    minute.py        how many requests and tokens the last minute leaves room for
    fair_queue.py    whose turn is next

A ticket that was refused comes back with its old number and the turn it had in vain. When a probe
was answered, those who wait are spread: each gets an earliest moment of its own, jitter × stagger ×
waiters, 2 s at most, from then on. A herd that was stopped together does not return together. Who
comes amid a spread goes behind it.

Limits per minute that nobody set are taken from what the vendor tells of them (`told_limits.py`).

Nothing here waits or reads a clock: every call takes `now` in seconds of some monotonic clock.
"""

from typing import Final

from droveway.resilience.fair_queue import FairQueue, Ticket
from droveway.resilience.gate import FAILURES_IN_A_ROW, Gate, State
from droveway.resilience.minute import Minute, Sent
from droveway.resilience.told_limits import ToldLimits
from droveway.resilience.window import Window

STAGGER_S: Final = 0.05
# A large herd is spread enough by then, and nobody shall wait for the sake of waiting.
SPREAD_MAX_S: Final = 2.0
WAITING_MAX: Final = 10_000
# By how much the last turn counts in the mean time between two; the first few count evenly.
LAST_TURN: Final = 1 / 16


class Pacer:
    """Decides who of one line may go.

    Args:
        concurrency: Requests in flight at most, however well it goes.
        rpm: Requests in any 60 seconds at most; None takes what the vendor tells.
        tpm: Tokens in any 60 seconds at most; None likewise.
        waiting_max: How many may wait.
        failures_max: How many failures in a row open the gate; 0 for never.
        stagger_s: Mean distance between tickets of a spread is half of this.

    Attributes:
        gate: Whether anybody goes.
        concurrency: Requests in flight at most, as of now.
        listens: Whether there is a limit that the vendor may tell.
        turns: How many have gone.
        used_at: When the last one went; whoever makes the line says when that was.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        rpm: int | None = None,
        tpm: int | None = None,
        waiting_max: int = WAITING_MAX,
        failures_max: int = FAILURES_IN_A_ROW,
        stagger_s: float = STAGGER_S,
    ) -> None:
        self.gate = Gate(failures_max=failures_max)
        # A copy of the window's places, for every request asks for it.
        self.concurrency = concurrency
        self._ceiling = concurrency
        self._window = Window(concurrency)
        self._minute = Minute(rpm=rpm, tpm=tpm)
        self._set = (rpm, tpm)
        self.listens = None in self._set
        self._stagger_s = stagger_s
        self._spread_until = 0.0
        self._probe: Ticket | None = None
        self._waiting = FairQueue()
        self._waiting_max = waiting_max
        self._flying: dict[Ticket, Sent] = {}
        self.turns = 0
        self.used_at = 0.0
        self._last_turn = 0.0
        self._turns_of_waiting = 0
        self._between_turns_s = 0.0

    @property
    def state(self) -> State:
        """The state of its gate."""
        return self.gate.state

    @property
    def rpm(self) -> int | None:
        """Requests in any 60 seconds at most, as of now."""
        return self._minute.rpm

    @property
    def tpm(self) -> int | None:
        """Tokens in any 60 seconds at most, as of now."""
        return self._minute.tpm

    @property
    def in_flight(self) -> int:
        """How many were sent and are not back."""
        return len(self._flying)

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiting)

    def is_unused(self, since: float) -> bool:
        """Whether nobody has gone since a moment, and nobody is on the way or waits."""
        return self.used_at < since and not self._flying and not self._waiting

    def ready_at(self, now: float) -> float:
        """Return when a newcomer could go at the earliest, as far as the gate says."""
        return max(now, self.gate.until) if self.gate.state == "open" else now

    def has_room(self, now: float) -> bool:
        """Whether a newcomer of no size could go at once."""
        clear = self.gate.state == "closed" and not self._waiting
        return clear and not self._full() and self._minute.has_room(now, 0)

    @property
    def probes(self) -> bool:
        """Whether one is on its way on whose answer all others wait."""
        return self._probe is not None

    def wait_s(self, ticket: Ticket, now: float) -> float:
        """Return about how long one that joins now would wait: what a caller is told honestly.

        The turns of those ahead of it at the pace of the last ones, or the rest of a cool-down, or
        until the limits of the minute leave room; whichever is longest.
        """
        turns = self._waiting.ahead_of(ticket) * self._between_turns_s
        frees = self._minute.frees_at(now, ticket.tokens)
        return max(turns, self.ready_at(now) - now, frees - now)

    def join(self, ticket: Ticket, now: float) -> Ticket | None:
        """Stand in line; behind a spread that is going on.

        Returns:
            Who must leave the line because too many wait, and has left it; the ticket itself if it
            may not stand in it. None where there is room.
        """
        surplus = None
        if len(self._waiting) >= self._waiting_max:
            surplus = self._waiting.surplus(ticket)
            if surplus is ticket:
                return ticket
            self._waiting.remove(surplus)
        if not self._waiting:
            self._last_turn = now
        ticket.not_before = max(ticket.not_before, self._spread_until)
        self._waiting.push(ticket, now)
        return surplus

    def leave(self, ticket: Ticket) -> None:
        """Go away without having been sent; harmless for one who is not in line."""
        self._waiting.remove(ticket)

    def admit_now(self, ticket: Ticket, now: float) -> bool:
        """Let a newcomer go past an empty line; False when it must join, and nothing is noted."""
        clear = self.gate.state == "closed" and not self._waiting and self._spread_until <= now
        if not clear or ticket.not_before > now or not self._room(now, ticket):
            return False
        self._fly(ticket, now)
        return True

    def admit(self, now: float) -> list[Ticket]:
        """Take those who may go now out of the line and count them as in flight."""
        if self.gate.state == "open":
            self._probe = None
        if self.gate.elapsed(now):
            return self._send_probe(now)
        if self.gate.state == "open":
            return []
        going: list[Ticket] = []
        while self._waiting and not self._full():
            ticket = self._waiting.head(now)
            if ticket is None or not self._minute.has_room(now, ticket.tokens):
                break
            going.append(self._send(ticket, now))
        return going

    def wake_at(self, now: float) -> float | None:
        """Return when to ask again if nothing else happens; None when only an event can help."""
        if not self._waiting or self._full():
            return None
        if self.gate.state == "open":
            return max(now, self.gate.until)
        if self.gate.state == "half_open" and self._probe is not None:
            return max(now, self._flying[self._probe].at + self.gate.probe_s)
        head, rested = self._waiting.head(now), self._waiting.wakes_at()
        moments = [] if rested is None else [rested]
        if head is not None:
            moments.append(self._minute.frees_at(now, head.tokens))
        return min(moments, default=None)

    def answered(self, ticket: Ticket, now: float) -> None:
        """Note that the vendor began a good answer to a ticket in flight."""
        if self.concurrency < self._ceiling:
            self._window.answered(full=self._full())
            self.concurrency = self._window.places
        if self.gate.answered(probe=ticket is self._probe):
            self._spread(now)

    def succeeded(self) -> None:
        """Note that an answer is whole."""
        self.gate.succeeded()

    def refused(self, ticket: Ticket, now: float, *, retry_after_s: float | None) -> float:
        """Note that the vendor said "later" to a ticket in flight; everybody cools down.

        Returns:
            The moment until which nobody goes.
        """
        self._narrow(self._land(ticket), now)
        self.gate.refused(now, retry_after_s=retry_after_s)
        self._probe = None
        return self.gate.until

    def overloaded(self, ticket: Ticket, now: float) -> None:
        """Note that the vendor has too much to do, and named no moment; nobody cools down.

        The ticket is still in flight and comes back by `returned`.
        """
        self._narrow(self._flying.get(ticket), now, out=1)

    def failed(self, ticket: Ticket, now: float) -> list[Ticket]:
        """Note that the vendor, or the way there, has failed a ticket that is still in flight.

        Returns:
            Those who shall wait no more, and have left the line.
        """
        probe = ticket is self._probe
        lost = self.gate.failed(now, request=ticket.number, probe=probe)
        return self._send_away() if lost else []

    def shut_out(self, now: float) -> list[Ticket]:
        """Note that the vendor takes neither our key nor our account; returns as `failed`."""
        self.gate.shut_out(now)
        return self._send_away()

    def told(self, limits: ToldLimits) -> None:
        """Keep the limits that the vendor tells, where none was set."""
        rpm, tpm = self._set
        minute = self._minute
        minute.rpm = rpm or limits.rpm or minute.rpm
        minute.tpm = tpm or limits.tpm or minute.tpm

    def returned(self, ticket: Ticket, *, tokens: int | None = None) -> None:
        """Note that a ticket in flight is back, however it ended.

        Args:
            ticket: The ticket.
            tokens: What it used in truth; None when that is not known.
        """
        sent = self._land(ticket)
        if sent is not None and tokens is not None:
            self._minute.correct(sent, tokens)
        if ticket is self._probe:
            self._probe = None  # it neither succeeded nor was refused: the next one probes

    def _send_probe(self, now: float) -> list[Ticket]:
        if self._probe is not None:
            if now < self._flying[self._probe].at + self.gate.probe_s:
                return []
            self.gate.passed()
            self._spread(now)
            return self.admit(now)
        ticket = self._waiting.head(now)
        if ticket is None or not self._room(now, ticket):
            return []
        self._probe = ticket
        return [self._send(ticket, now)]

    def _spread(self, now: float) -> None:
        self._probe = None
        reach = min(SPREAD_MAX_S, self._stagger_s * len(self._waiting))
        self._spread_until = now + reach
        self._waiting.rest_all(reach, now)

    def _send_away(self) -> list[Ticket]:
        leaving = list(self._waiting)
        for ticket in leaving:
            self._waiting.remove(ticket)
        return leaving

    def _send(self, ticket: Ticket, now: float) -> Ticket:
        self._waiting.take(ticket)
        self._turns_of_waiting += 1
        share = max(LAST_TURN, 1 / self._turns_of_waiting)
        self._between_turns_s += share * (now - self._last_turn - self._between_turns_s)
        self._last_turn = now
        self._fly(ticket, now)
        return ticket

    def _fly(self, ticket: Ticket, now: float) -> None:
        self.turns += 1
        self.used_at = now
        sent = Sent(now, ticket.tokens)
        self._flying[ticket] = sent
        self._minute.note(sent)

    def _land(self, ticket: Ticket) -> Sent | None:
        return self._flying.pop(ticket, None)

    def _narrow(self, sent: Sent | None, now: float, *, out: int = 0) -> None:
        """Narrow the window for one that was refused; `out` is 1 while it counts as in flight."""
        if sent is not None:
            self._window.refused(now, sent_at=sent.at, let_in=len(self._flying) - out)
            self.concurrency = self._window.places

    def _full(self) -> bool:
        return len(self._flying) >= self.concurrency

    def _room(self, now: float, ticket: Ticket) -> bool:
        return not self._full() and self._minute.has_room(now, ticket.tokens)
