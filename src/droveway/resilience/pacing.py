"""This file knows who may send now: one line of tickets for each vendor account and model.

Theory of operation
-------------------
All agents and roles that use one account and model stand in one line, ordered by the number they
drew when they first came. A ticket that was refused comes back with its old number, so that it
loses nothing by having been sent first. The line has three states:

    open      tickets go while concurrency, requests and tokens of the last minute allow
    cooling   the vendor said "later": nobody goes until `until`; a later refusal may only
              lengthen it
    probing   the cool-down is over and one ticket, the first in line, is on its way alone

    state, event    refused           probe answered    probe left otherwise   `until` passed
    open            cooling           -                 -                      -
    cooling         cooling (later)   -                 -                      probing
    probing         cooling           open, spread      probing (next one)     -

A probe that is neither answered nor refused within two seconds counts as answered.

"Spread" gives each ticket then waiting its own earliest moment: jitter × stagger × waiters, 2 s at
most, from
then on. A herd that was stopped together does not return together.

The limits per minute are kept over a sliding minute, which is at least as strict as any window a
vendor may use. Tokens are reserved by estimate when a ticket goes and corrected when it is back.
How many may be in flight is learned from refusals and good answers (`window.py`); limits per minute
that nobody set, from what the vendor tells of them (`told_limits.py`).

Nothing here waits or reads a clock: every call takes `now` in seconds of some monotonic clock.
"""

from bisect import insort
from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

from droveway.resilience.told_limits import ToldLimits
from droveway.resilience.window import Window

State = Literal["open", "cooling", "probing"]

WINDOW_S: Final = 60.0
STAGGER_S: Final = 0.05
# A large herd is spread enough by then, and nobody shall wait for the sake of waiting.
SPREAD_MAX_S: Final = 2.0
# Without a Retry-After: what a refusal cools for, doubled with each one in a row.
COOL_DOWN_BASE_S: Final = 1.0
COOL_DOWN_MAX_S: Final = 30.0
# Refusals come at once, answers may take minutes: a probe not refused for so long has passed.
PROBE_S: Final = 2.0
# A vendor that says "0 seconds" means "not now" all the same.
COOL_DOWN_MIN_S: Final = 0.05


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place in line.

    Attributes:
        number: Its place; kept through refusals.
        tokens: Input and output tokens it may use, by estimate.
        jitter: In [0, 1); where in a spread it goes.
        not_before: Its earliest moment within a spread.
    """

    number: int
    tokens: int
    jitter: float
    not_before: float = 0.0

    def __lt__(self, other: "Ticket") -> bool:
        return self.number < other.number


@dataclass(slots=True)
class _Sent:
    """What was sent, how many tokens it counts for, and whether the last minute holds it."""

    at: float
    tokens: int
    recent: bool = False


class Pacer:
    """Decides who of one line may go.

    Args:
        concurrency: Requests in flight at most, however well it goes.
        rpm: Requests in any 60 seconds at most; None takes what the vendor tells.
        tpm: Tokens in any 60 seconds at most; None likewise.
        stagger_s: Mean distance between tickets of a spread is half of this.

    Attributes:
        concurrency: Requests in flight at most, as of now.
        listens: Whether there is a limit that the vendor may tell.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        rpm: int | None = None,
        tpm: int | None = None,
        stagger_s: float = STAGGER_S,
    ) -> None:
        # A copy of the window's places, for every request asks for it.
        self.concurrency = concurrency
        self._ceiling = concurrency
        self._window = Window(concurrency)
        self.rpm = rpm
        self.tpm = tpm
        self._set = (rpm, tpm)
        self.listens = None in self._set
        self.state: State = "open"
        self._stagger_s = stagger_s
        self._until = 0.0
        self._spread_until = 0.0
        self._refusals_in_a_row = 0
        self._probe: Ticket | None = None
        self._waiting: list[Ticket] = []
        self._flying: dict[Ticket, _Sent] = {}
        self._minute: deque[_Sent] = deque()
        self._minute_tokens = 0

    @property
    def in_flight(self) -> int:
        """How many were sent and are not back."""
        return len(self._flying)

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiting)

    def ready_at(self, now: float) -> float:
        """Return when a newcomer could go at the earliest, as far as the cool-down says."""
        return max(now, self._until) if self.state == "cooling" else now

    def join(self, ticket: Ticket) -> None:
        """Stand in line, at the place of the ticket's number; behind a spread that is going on."""
        ticket.not_before = max(ticket.not_before, self._spread_until)
        insort(self._waiting, ticket)

    def leave(self, ticket: Ticket) -> None:
        """Go away without having been sent; harmless for one who is not in line."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)

    def admit_now(self, ticket: Ticket, now: float) -> bool:
        """Let a newcomer go past an empty line; False when it must join, and nothing is noted."""
        clear = self.state == "open" and not self._waiting and self._spread_until <= now
        if not clear or ticket.not_before > now or not self._room(now, ticket):
            return False
        self._fly(ticket, now)
        return True

    def admit(self, now: float) -> list[Ticket]:
        """Take those who may go now out of the line and count them as in flight."""
        if self.state == "cooling":
            if now < self._until:
                return []
            self.state, self._probe = "probing", None
        if self.state == "probing":
            return self._send_probe(now)
        going: list[Ticket] = []
        for ticket in list(self._waiting):
            if not self._room(now, ticket):
                break
            if ticket.not_before <= now:
                going.append(self._send(ticket, now))
        return going

    def wake_at(self, now: float) -> float | None:
        """Return when to ask again if nothing else happens; None when only an event can help."""
        if not self._waiting or self._full():
            return None
        if self.state == "cooling":
            return max(now, self._until)
        if self.state == "probing":
            if self._probe is not None:
                return max(now, self._flying[self._probe].at + PROBE_S)
            return self._window_frees(now, self._waiting[0])
        soonest: float | None = None
        for ticket in self._waiting:
            frees = self._window_frees(now, ticket)
            if soonest is None or max(frees, ticket.not_before) < soonest:
                soonest = max(frees, ticket.not_before)
            if frees > now:
                break
        return soonest

    def answered(self, ticket: Ticket, now: float) -> None:
        """Note that the vendor began a good answer to a ticket in flight."""
        self._refusals_in_a_row = 0
        if self.concurrency < self._ceiling:
            self._window.answered(full=self._full())
            self.concurrency = self._window.places
        if self.state == "probing" and ticket is self._probe:
            self._open(now)

    def refused(self, ticket: Ticket, now: float, *, retry_after_s: float | None) -> float:
        """Note that the vendor said "later" to a ticket in flight; everybody cools down.

        Returns:
            The moment until which nobody goes.
        """
        self._narrow(self._land(ticket), now)
        # The answers to a volley that was sent before the first refusal are one refusal.
        if self.state != "cooling" or not self._refusals_in_a_row:
            self._refusals_in_a_row = min(self._refusals_in_a_row + 1, 30)
        if retry_after_s is None:
            doubled = COOL_DOWN_BASE_S * 2.0 ** (self._refusals_in_a_row - 1)
            retry_after_s = min(COOL_DOWN_MAX_S, doubled)
        self.state, self._probe = "cooling", None
        self._until = max(self._until, now + max(COOL_DOWN_MIN_S, retry_after_s))
        return self._until

    def overloaded(self, ticket: Ticket, now: float) -> None:
        """Note that the vendor has too much to do, and named no moment; nobody cools down.

        The ticket is still in flight and comes back by `returned`.
        """
        self._narrow(self._flying.get(ticket), now, out=1)

    def told(self, limits: ToldLimits) -> None:
        """Keep the limits that the vendor tells, where none was set."""
        rpm, tpm = self._set
        self.rpm = rpm or limits.rpm or self.rpm
        self.tpm = tpm or limits.tpm or self.tpm

    def returned(self, ticket: Ticket, *, tokens: int | None = None) -> None:
        """Note that a ticket in flight is back, however it ended.

        Args:
            ticket: The ticket.
            tokens: What it used in truth; None when that is not known.
        """
        sent = self._land(ticket)
        if sent is not None and sent.recent and tokens is not None:
            self._minute_tokens += tokens - sent.tokens
            sent.tokens = tokens
        if ticket is self._probe:
            self._probe = None  # it neither succeeded nor was refused: the next one probes

    def _send_probe(self, now: float) -> list[Ticket]:
        if self._probe is not None:
            if now < self._flying[self._probe].at + PROBE_S:
                return []
            self._open(now)
            return self.admit(now)
        if not self._waiting or not self._room(now, self._waiting[0]):
            return []
        self._probe = self._waiting[0]
        return [self._send(self._probe, now)]

    def _open(self, now: float) -> None:
        self.state, self._probe = "open", None
        reach = min(SPREAD_MAX_S, self._stagger_s * len(self._waiting))
        self._spread_until = now + reach
        for waiting in self._waiting:
            waiting.not_before = now + waiting.jitter * reach

    def _send(self, ticket: Ticket, now: float) -> Ticket:
        self._waiting.remove(ticket)
        self._fly(ticket, now)
        return ticket

    def _fly(self, ticket: Ticket, now: float) -> None:
        sent = _Sent(now, ticket.tokens)
        self._flying[ticket] = sent
        if self.rpm is not None or self.tpm is not None:
            sent.recent = True
            self._minute.append(sent)
            self._minute_tokens += sent.tokens

    def _land(self, ticket: Ticket) -> _Sent | None:
        return self._flying.pop(ticket, None)

    def _narrow(self, sent: _Sent | None, now: float, *, out: int = 0) -> None:
        """Narrow the window for one that was refused; `out` is 1 while it counts as in flight."""
        if sent is not None:
            self._window.refused(now, sent_at=sent.at, let_in=len(self._flying) - out)
            self.concurrency = self._window.places

    def _full(self) -> bool:
        return len(self._flying) >= self.concurrency

    def _room(self, now: float, ticket: Ticket) -> bool:
        self._forget(now)
        if self._full() or (self.rpm is not None and len(self._minute) >= self.rpm):
            return False
        # A request larger than the whole limit goes alone: the vendor shall say no, not we.
        alone = not self._minute
        return self.tpm is None or alone or self._minute_tokens + ticket.tokens <= self.tpm

    def _forget(self, now: float) -> None:
        # The same sum as in `_window_frees`: rounded otherwise, the two would disagree for ever.
        while self._minute and self._minute[0].at + WINDOW_S <= now:
            sent = self._minute.popleft()
            sent.recent = False
            self._minute_tokens -= sent.tokens

    def _window_frees(self, now: float, ticket: Ticket) -> float:
        return now if self._room(now, ticket) else self._minute[0].at + WINDOW_S
