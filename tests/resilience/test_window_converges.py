"""The window finds what a vendor lets in: a discrete-event loop around the pacer, on a still clock."""

import heapq
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from droveway.resilience.fair_queue import Ticket
from droveway.resilience.pacing import Pacer

ROUND_TRIP_S = 4.0
REFUSAL_S = 0.05
Step = tuple[float, int]  # from when on, how many are let in


@dataclass
class Vendor:
    """Lets so many in at once, refuses the others with `Retry-After: 1`, and has endless callers."""

    pacer: Pacer
    steps: Sequence[Step]
    seed: int
    callers: int = 400
    now: float = 0.0
    inside: int = 0
    sent: int = 0
    refusals: list[float] = field(default_factory=list)
    windows: list[tuple[float, int]] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.order = itertools.count()
        self.events: list[tuple[float, int, str, Ticket]] = []

    def let_in(self) -> int:
        return next(count for since, count in reversed(self.steps) if since <= self.now)

    def at(self, after_s: float, what: str, ticket: Ticket) -> None:
        heapq.heappush(self.events, (self.now + after_s, next(self.order), what, ticket))

    def ticket(self, number: int | None = None) -> Ticket:
        number = next(self.order) if number is None else number
        return Ticket(number, 1, self.chance.random())

    def run(self, *, until: float) -> None:
        for _ in range(self.callers):
            self.pacer.join(self.ticket(), self.now)
        while self.now < until:
            for ticket in self.pacer.admit(self.now):
                self.send(ticket)
            wake_at = self.pacer.wake_at(self.now)
            if wake_at is not None and (not self.events or wake_at < self.events[0][0]):
                assert wake_at > self.now, "a busy loop"
                self.now = wake_at
                continue
            assert self.events, "nobody is out and nobody may go"
            self.now, _, what, ticket = heapq.heappop(self.events)
            self.happen(what, ticket)
            self.windows.append((self.now, self.pacer.concurrency))

    def send(self, ticket: Ticket) -> None:
        self.sent += 1
        if self.inside >= self.let_in():
            self.at(REFUSAL_S, "refused", ticket)
            return
        self.inside += 1
        lasts_s = ROUND_TRIP_S * self.chance.uniform(0.7, 1.3)
        self.at(0.2 * lasts_s, "answered", ticket)
        self.at(lasts_s, "returned", ticket)

    def happen(self, what: str, ticket: Ticket) -> None:
        if what == "answered":
            self.pacer.answered(ticket, self.now)
        elif what == "refused":
            self.pacer.refused(ticket, self.now, retry_after_s=1.0)
            self.refusals.append(self.now)
            self.pacer.join(self.ticket(ticket.number), self.now)
        else:
            self.inside -= 1
            self.pacer.returned(ticket)
            self.answers.append(self.now)
            self.pacer.join(self.ticket(), self.now)

    def settled_after(self, since: float, until: float) -> float:
        """Round trips until the window is within 20 % of what is let in, at 90 % at least."""
        count = next(count for begin, count in self.steps if begin == since)
        within = (
            moment
            for moment, places in self.windows
            if since <= moment < until and int(0.9 * count) <= places <= 1.2 * count
        )
        return (next(within) - since) / ROUND_TRIP_S


LASTS_S = 100 * ROUND_TRIP_S
COUNTS = (40, 120, 15, 60)
STEPS = [(place * LASTS_S, count) for place, count in enumerate(COUNTS)]
ROUND_TRIPS_MAX = 20.0


def day(seed: int, *, ceiling: int = 160) -> Vendor:
    vendor = Vendor(Pacer(concurrency=ceiling), STEPS, seed)
    vendor.run(until=len(STEPS) * LASTS_S)
    return vendor


@pytest.mark.parametrize("seed", range(3))
def test_the_window_reaches_what_a_vendor_lets_in_and_stays_there(seed: int) -> None:
    vendor = day(seed)
    for since, count in STEPS:
        until = since + LASTS_S
        trips = vendor.settled_after(since, until)
        assert trips <= ROUND_TRIPS_MAX
        settled = since + ROUND_TRIPS_MAX * ROUND_TRIP_S
        later = [places for moment, places in vendor.windows if settled <= moment < until]
        assert min(later) >= int(0.8 * count)
        assert max(later) <= 1.2 * count
        answers = sum(settled <= moment < until for moment in vendor.answers)
        assert answers >= 0.9 * count * (until - settled) / ROUND_TRIP_S
    assert len(vendor.refusals) < 0.02 * vendor.sent


def test_a_ceiling_that_a_vendor_lets_in_is_never_left() -> None:
    vendor = day(1, ceiling=15)
    assert vendor.refusals == []
    assert {places for _, places in vendor.windows} == {15}
