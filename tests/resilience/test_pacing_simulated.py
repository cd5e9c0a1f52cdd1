"""The pacer under any traffic: a simulated vendor, a simulated clock, and every promise checked."""

import heapq
import itertools
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from droveway.resilience.fair_queue import Ticket
from droveway.resilience.gate import PROBE_S
from droveway.resilience.minute import WINDOW_S
from droveway.resilience.pacing import Pacer

Kind = Literal["answered", "refused", "failed"]
Arrival = tuple[float, int, float]  # when, with how many tokens, with what jitter


@dataclass(frozen=True)
class Fate:
    """What the vendor does with one request."""

    kind: Kind
    after_s: float
    lasts_s: float
    retry_after_s: float | None
    uses: float  # of the tokens that were estimated


@dataclass
class Sending:
    at: float
    estimated: int
    used: int


@dataclass
class World:
    """Drives a pacer as the engine does, and checks after every step that it keeps its word."""

    pacer: Pacer
    fates: list[Fate]
    now: float
    refusals_max: int = 4
    events: list[tuple[float, int, str, Ticket, Fate | None]] = field(default_factory=list)
    sent: dict[Ticket, Sending] = field(default_factory=dict)
    sendings: list[Sending] = field(default_factory=list)
    refusals: dict[int, int] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    order: "itertools.count[int]" = field(default_factory=itertools.count)
    until: float = 0.0
    shut: bool = False  # refused, and no probe was answered since
    probe: Ticket | None = None
    steps: int = 0

    def at(self, when: float, what: str, ticket: Ticket, *, fate: Fate | None = None) -> None:
        heapq.heappush(self.events, (when, next(self.order), what, ticket, fate))

    def run(self, *, steps_max: int) -> None:
        while True:
            wake_at = self.pump()
            if not self.events and wake_at is None:
                return
            self.steps += 1
            assert self.steps <= steps_max, "a busy loop"
            if self.events and (wake_at is None or self.events[0][0] <= wake_at):
                self.happen()
            else:
                assert wake_at is not None
                self.wake(wake_at)

    def wake(self, wake_at: float) -> None:
        """Nothing else happens until then: somebody goes, or the moment moves on."""
        self.now = wake_at
        going = self.admit()
        again = self.pacer.wake_at(self.now)
        assert going or again is None or again > wake_at

    def pump(self) -> float | None:
        self.admit()
        wake_at = self.pacer.wake_at(self.now)
        assert wake_at is None or wake_at > self.now
        if wake_at is None and self.pacer.waiting:
            assert self.pacer.in_flight > 0, "a ticket is forgotten"
        return wake_at

    def admit(self) -> list[Ticket]:
        going = self.pacer.admit(self.now)
        if going:
            assert self.now >= self.until, "somebody went amid the cool-down"
        if self.probe is not None:
            if self.now < self.sent[self.probe].at + PROBE_S:
                assert not going, "the probe is not alone"
            else:
                self.shut, self.probe = False, None
        if self.shut and going:
            assert len(going) == 1, "two probes"
            self.probe = going[0]
        for ticket in going:
            self.send(ticket)
        # A window that has narrowed may be overfull; nobody goes into it then.
        assert not going or self.pacer.in_flight <= self.pacer.concurrency
        return going

    def send(self, ticket: Ticket) -> None:
        fate = self.fates[len(self.sendings) % len(self.fates)]
        if fate.kind == "refused" and self.refusals.get(ticket.number, 0) >= self.refusals_max:
            fate = Fate("answered", fate.after_s, fate.lasts_s, None, fate.uses)
        self.sent[ticket] = Sending(self.now, ticket.tokens, ticket.tokens)
        self.sendings.append(self.sent[ticket])
        self.at(self.now + fate.after_s, fate.kind, ticket, fate=fate)

    def happen(self) -> None:
        self.now, _, what, ticket, fate = heapq.heappop(self.events)
        if what == "join":
            self.pacer.join(ticket, self.now)
            return
        assert fate is not None
        if what == "answered":
            self.pacer.answered(ticket, self.now)
            if ticket is self.probe:
                self.shut, self.probe = False, None
            self.at(self.now + fate.lasts_s, "back", ticket, fate=fate)
        elif what == "refused":
            self.refuse(ticket, fate)
        else:
            self.come_back(ticket, fate)

    def refuse(self, ticket: Ticket, fate: Fate) -> None:
        until = self.pacer.refused(ticket, self.now, retry_after_s=fate.retry_after_s)
        assert until >= self.until, "a cool-down was shortened"
        assert until >= self.now + (fate.retry_after_s or 0.0)
        self.until, self.shut, self.probe = until, True, None
        self.sent[ticket].used = 0
        self.refusals[ticket.number] = self.refusals.get(ticket.number, 0) + 1
        jitter = (ticket.jitter * 7.31 + 0.17) % 1.0
        self.pacer.join(Ticket(ticket.number, ticket.tokens, jitter), self.now)

    def come_back(self, ticket: Ticket, fate: Fate) -> None:
        self.sent[ticket].used = int(ticket.tokens * fate.uses)
        self.pacer.returned(ticket, tokens=self.sent[ticket].used)
        if ticket is self.probe:
            self.probe = None
        self.done.add(ticket.number)


def busiest_minute(sendings: list[Sending]) -> tuple[int, int]:
    """The most requests and the most tokens used in any 60 seconds."""
    most_requests = most_tokens = 0
    for place, first in enumerate(sendings):
        within = [each for each in sendings[place:] if each.at < first.at + WINDOW_S]
        most_requests = max(most_requests, len(within))
        most_tokens = max(most_tokens, sum(each.used for each in within))
    return most_requests, most_tokens


# Moments on a grid, so that many things happen at once, and moments that no float hits exactly.
spans = st.one_of(
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, 2.0, 30.0, 59.9, 60.0, 75.3]), st.floats(0, 90)
)
fates = st.builds(
    Fate,
    kind=st.sampled_from(["answered", "answered", "answered", "refused", "failed"]),
    after_s=spans,
    lasts_s=spans,
    retry_after_s=st.none() | st.sampled_from([0.0, 0.1, 1.0, 7.0]) | st.floats(0, 20),
    uses=st.sampled_from([0.0, 0.3, 1.0]),
)
arrivals = st.lists(
    st.tuples(spans, st.integers(0, 100), st.floats(0, 1, exclude_max=True)),
    min_size=1,
    max_size=25,
)


def traffic(pacer: Pacer, fates: list[Fate], arrivals: list[Arrival], *, start: float) -> World:
    world = World(pacer, fates, now=start, until=start)
    for number, (after_s, tokens, jitter) in enumerate(arrivals, start=1):
        world.at(start + after_s, "join", Ticket(number, tokens, jitter))
    sendings_max = len(arrivals) * (world.refusals_max + 1)
    world.run(steps_max=len(arrivals) + 8 * sendings_max)
    assert world.done == set(range(1, len(arrivals) + 1)), "a ticket was forgotten"
    assert (pacer.waiting, pacer.in_flight) == (0, 0)
    return world


limits = st.fixed_dictionaries(
    {
        "concurrency": st.integers(1, 8),
        "rpm": st.none() | st.integers(1, 12),
        "tpm": st.none() | st.integers(100, 400),
    }
)
starts = st.sampled_from([0.0, 0.3, 1234.567, 98_765.4321])
days = st.tuples(st.lists(fates, min_size=1, max_size=20), arrivals, starts)


def check(limit: dict[str, int | None], day: tuple[list[Fate], list[Arrival], float]) -> None:
    fates, arrivals, start = day
    world = traffic(Pacer(**limit), fates, arrivals, start=start)  # type: ignore[arg-type]
    requests, tokens = busiest_minute(world.sendings)
    assert limit["rpm"] is None or requests <= limit["rpm"]
    assert limit["tpm"] is None or tokens <= limit["tpm"]
    # Every sending may wait out a window, a probe, a cool-down and an answer, and no more.
    longest_s = WINDOW_S + PROBE_S + 30.0 + 180.0 + 2.0
    assert world.now - start <= 90.0 + longest_s * len(world.sendings)


@given(limits, days)
@settings(max_examples=200, deadline=None)
def test_any_traffic_is_served_within_every_limit(
    limit: dict[str, int | None], day: tuple[list[Fate], list[Arrival], float]
) -> None:
    check(limit, day)


@pytest.mark.long
@given(limits, days)
@settings(max_examples=10_000, deadline=None)
def test_any_traffic_is_served_within_every_limit_ten_thousand_times(
    limit: dict[str, int | None], day: tuple[list[Fate], list[Arrival], float]
) -> None:
    check(limit, day)


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.just(0.0), st.just(1), st.just(0.0)), min_size=1, max_size=25),
    st.lists(fates.map(lambda fate: Fate("answered", fate.after_s, 0.0, None, 1.0)), min_size=1),
)
@settings(deadline=None)
def test_without_refusals_first_come_is_first_served(
    concurrency: int, arrivals: list[Arrival], fates: list[Fate]
) -> None:
    served: list[int] = []

    class Watched(World):
        def send(self, ticket: Ticket) -> None:
            served.append(ticket.number)
            super().send(ticket)

    world = Watched(Pacer(concurrency=concurrency), fates, now=0.0)
    for number, (after_s, tokens, jitter) in enumerate(arrivals, start=1):
        world.at(after_s, "join", Ticket(number, tokens, jitter))
    world.run(steps_max=10 * len(arrivals))
    assert served == sorted(served)


def test_a_silent_vendor_holds_nobody_longer_than_its_silence() -> None:
    """Ours: every request is refused once, then hangs for a minute without a sign."""
    first = [Fate("refused", 0.1, 0.0, 1.0, 0.0)] * 17
    world = traffic(
        Pacer(concurrency=100),
        [*first, *[Fate("failed", 60.0, 0.0, None, 0.0)] * 17],
        [(0.0, 1, number / 17) for number in range(17)],
        start=0.0,
    )
    assert len(world.sendings) == 34
    assert world.now <= 1.1 + PROBE_S + 60.0 + 1.0
