"""The pacer's table, row by row, and what it promises about places, bounds and moments."""

import itertools

import pytest

from droveway.resilience.fair_queue import Ticket
from droveway.resilience.gate import OPEN_BASE_S, OPEN_MAX_S, OPEN_MIN_S, PROBE_S
from droveway.resilience.minute import WINDOW_S
from droveway.resilience.pacing import STAGGER_S, Pacer


def tickets(count: int, *, tokens: int = 100, jitter: float = 0.5) -> list[Ticket]:
    return [Ticket(number, tokens, jitter) for number in range(1, count + 1)]


def line(pacer: Pacer, *joining: Ticket) -> Pacer:
    for ticket in joining:
        pacer.join(ticket, 0.0)
    return pacer


def numbers(going: list[Ticket]) -> list[int]:
    return [ticket.number for ticket in going]


def cooling(count: int = 4, *, retry_after_s: float | None = 1.0) -> tuple[Pacer, list[Ticket]]:
    """A line whose first ticket was refused at 0 and has come back, with others behind it."""
    pacer, all_tickets = Pacer(concurrency=100), tickets(count)
    line(pacer, all_tickets[0])
    pacer.admit(0.0)
    pacer.refused(all_tickets[0], 0.0, retry_after_s=retry_after_s)
    line(pacer, *all_tickets)
    return pacer, all_tickets


# Open.


def test_an_open_line_lets_all_go_in_order() -> None:
    pacer = line(Pacer(concurrency=100), *reversed(tickets(5)))
    assert numbers(pacer.admit(0.0)) == [1, 2, 3, 4, 5]
    assert (pacer.in_flight, pacer.waiting, pacer.state) == (5, 0, "closed")


def test_no_more_go_than_may_be_in_flight_and_the_next_goes_when_one_is_back() -> None:
    pacer, all_tickets = Pacer(concurrency=2), tickets(4)
    line(pacer, *all_tickets)
    assert numbers(pacer.admit(0.0)) == [1, 2]
    assert (pacer.admit(9.0), pacer.wake_at(9.0)) == ([], None)
    pacer.returned(all_tickets[1])
    assert numbers(pacer.admit(9.0)) == [3]


def test_a_ticket_may_leave_the_line_and_one_that_is_not_in_it_may_too() -> None:
    pacer, all_tickets = Pacer(concurrency=1), tickets(3)
    line(pacer, *all_tickets)
    pacer.admit(0.0)
    pacer.leave(all_tickets[1])
    pacer.leave(all_tickets[1])
    pacer.leave(all_tickets[0])
    assert (pacer.waiting, pacer.in_flight) == (1, 1)
    pacer.returned(all_tickets[0])
    pacer.returned(all_tickets[0])
    assert numbers(pacer.admit(0.0)) == [3]


def test_nobody_waiting_needs_no_waking() -> None:
    pacer = Pacer(concurrency=1)
    assert pacer.wake_at(0.0) is None
    assert pacer.admit(0.0) == []


# Limits of a minute.


def test_requests_of_a_minute_are_counted_from_when_they_went() -> None:
    pacer, all_tickets = Pacer(concurrency=9, rpm=2), tickets(4)
    line(pacer, *all_tickets)
    assert numbers(pacer.admit(10.0)) == [1, 2]
    for ticket in all_tickets[:2]:
        pacer.returned(ticket)
    assert pacer.wake_at(10.0) == 70.0
    assert pacer.admit(69.9) == []
    assert numbers(pacer.admit(70.0)) == [3, 4]


@pytest.mark.parametrize("start", [0.3, 1.1, 1234.567, 86_400.1])
def test_the_moment_to_wake_up_is_one_at_which_somebody_goes(start: float) -> None:
    """Ours: 0.3 + 60 - 60 is less than 0.3, and a line that reckons in two ways never moves."""
    pacer = line(Pacer(concurrency=9, rpm=1), *tickets(2))
    pacer.admit(start)
    wake_at = pacer.wake_at(start)
    assert wake_at is not None
    assert numbers(pacer.admit(wake_at)) == [2]


def test_tokens_of_a_minute_are_reserved_by_estimate() -> None:
    pacer = line(Pacer(concurrency=9, tpm=250), *tickets(3))
    assert numbers(pacer.admit(0.0)) == [1, 2]
    assert pacer.wake_at(0.0) == 60.0
    assert numbers(pacer.admit(60.0)) == [3]


def test_tokens_are_corrected_when_a_ticket_is_back() -> None:
    pacer, all_tickets = Pacer(concurrency=9, tpm=250), tickets(5)
    line(pacer, *all_tickets)
    assert numbers(pacer.admit(0.0)) == [1, 2]
    pacer.returned(all_tickets[0], tokens=10)
    assert numbers(pacer.admit(1.0)) == [3]
    pacer.returned(all_tickets[1], tokens=240)
    assert pacer.admit(2.0) == []
    assert numbers(pacer.admit(60.0)) == [4]


def test_a_ticket_back_without_a_count_stays_counted_as_estimated() -> None:
    pacer, all_tickets = Pacer(concurrency=9, tpm=100), tickets(2)
    line(pacer, *all_tickets)
    pacer.admit(0.0)
    pacer.returned(all_tickets[0])
    assert pacer.admit(59.0) == []


@pytest.mark.parametrize("used", [1, 10_000])
def test_a_ticket_back_after_more_than_a_minute_changes_no_count(used: int) -> None:
    """Ours: what is corrected after it was forgotten would stay in the sum for ever."""
    pacer, all_tickets = Pacer(concurrency=9, tpm=250), tickets(9)
    pacer.join(all_tickets[0], 0.0)
    pacer.admit(0.0)
    line(pacer, all_tickets[1])
    assert numbers(pacer.admit(70.0)) == [2]
    pacer.returned(all_tickets[0], tokens=used)
    line(pacer, *all_tickets[2:])
    assert numbers(pacer.admit(70.0)) == [3]


def test_a_request_larger_than_the_whole_limit_goes_alone() -> None:
    """Ours: the vendor shall say no, not we; and nobody behind it starves."""
    large, small = Ticket(1, 5000, 0.0), Ticket(2, 10, 0.0)
    pacer = line(Pacer(concurrency=9, tpm=250), large, small)
    assert numbers(pacer.admit(0.0)) == [1]
    assert numbers(pacer.admit(60.0)) == [2]


def test_a_large_ticket_is_not_overtaken_by_small_ones_behind_it() -> None:
    pacer = Pacer(concurrency=9, tpm=250)
    line(pacer, Ticket(1, 200, 0.0), Ticket(2, 100, 0.0), Ticket(3, 1, 0.0))
    assert numbers(pacer.admit(0.0)) == [1]
    assert pacer.admit(1.0) == []
    assert numbers(pacer.admit(60.0)) == [2, 3]


# Cooling.


def test_a_refusal_cools_the_line_until_the_moment_the_vendor_named() -> None:
    pacer, _ = cooling(retry_after_s=7.5)
    assert pacer.state == "open"
    assert pacer.in_flight == 0
    assert pacer.wake_at(0.0) == 7.5
    assert pacer.ready_at(1.0) == 7.5
    assert pacer.ready_at(9.0) == 9.0
    assert pacer.admit(7.499) == []
    assert numbers(pacer.admit(7.5)) == [1]


def test_a_newcomer_cools_with_the_others() -> None:
    pacer, _ = cooling()
    pacer.join(Ticket(99, 1, 0.0), 0.0)
    assert pacer.admit(0.5) == []


def test_a_later_refusal_lengthens_the_wait_and_an_earlier_one_does_not_shorten_it() -> None:
    pacer, all_tickets = Pacer(concurrency=9), tickets(3)
    line(pacer, *all_tickets)
    pacer.admit(0.0)
    assert pacer.refused(all_tickets[0], 0.0, retry_after_s=10.0) == 10.0
    assert pacer.refused(all_tickets[1], 0.1, retry_after_s=1.0) == 10.0
    assert pacer.refused(all_tickets[2], 0.2, retry_after_s=20.0) == 20.2
    assert pacer.ready_at(0.3) == 20.2


@pytest.mark.parametrize("retry_after_s", [0.0, 0.01])
def test_zero_seconds_means_not_now_all_the_same(retry_after_s: float) -> None:
    pacer, _ = cooling(retry_after_s=retry_after_s)
    assert pacer.wake_at(0.0) == OPEN_MIN_S


def test_a_refusal_that_names_no_moment_cools_twice_as_long_each_time() -> None:
    pacer, ticket = Pacer(concurrency=1), Ticket(1, 1, 0.0)
    now, waits = 0.0, []
    for _ in range(8):
        pacer.join(ticket, 0.0)
        assert pacer.admit(now) == [ticket]
        until = pacer.refused(ticket, now, retry_after_s=None)
        waits.append(until - now)
        now = until
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert (waits[0], waits[-1]) == (OPEN_BASE_S, OPEN_MAX_S)


def test_the_refusals_of_one_volley_are_one_refusal() -> None:
    """Ours: what was sent before the first refusal says nothing about the second."""
    pacer, all_tickets = Pacer(concurrency=99), tickets(20)
    line(pacer, *all_tickets)
    pacer.admit(0.0)
    assert {pacer.refused(each, 0.0, retry_after_s=None) for each in all_tickets} == {1.0}
    line(pacer, *all_tickets)
    (probe,) = pacer.admit(1.0)
    assert pacer.refused(probe, 1.0, retry_after_s=None) == 3.0


def test_a_good_answer_makes_the_next_refusal_the_first_again() -> None:
    pacer, all_tickets = cooling(retry_after_s=None)
    pacer.admit(1.0)
    pacer.answered(all_tickets[0], 1.0)
    going = pacer.admit(5.0)
    assert pacer.refused(going[0], 5.0, retry_after_s=None) == 6.0


def test_a_good_answer_amid_a_volley_of_refusals_shortens_nothing() -> None:
    pacer, all_tickets = Pacer(concurrency=99), tickets(3)
    line(pacer, *all_tickets)
    pacer.admit(0.0)
    assert pacer.refused(all_tickets[0], 0.0, retry_after_s=None) == 1.0
    pacer.answered(all_tickets[1], 0.0)
    assert pacer.state == "open"
    assert pacer.refused(all_tickets[2], 0.0, retry_after_s=None) == 1.0


# Probing.


def test_after_the_cool_down_one_goes_alone() -> None:
    pacer, _ = cooling()
    assert numbers(pacer.admit(1.0)) == [1]
    assert pacer.state == "half_open"
    assert pacer.admit(1.5) == []
    assert pacer.wake_at(1.5) == 1.0 + PROBE_S
    assert pacer.ready_at(1.5) == 1.5


def test_a_refused_ticket_keeps_its_place() -> None:
    """Ours: number 1 was sent first and refused; number 0 was there before it."""
    pacer, _ = cooling()
    pacer.join(Ticket(0, 1, 0.0), 0.0)
    assert numbers(pacer.admit(1.0)) == [0]


def test_the_answer_to_the_probe_opens_the_line_and_spreads_those_who_wait() -> None:
    pacer, all_tickets = cooling(5)
    for ticket, jitter in zip(all_tickets[1:], (0.75, 0.0, 0.25, 0.5), strict=True):
        ticket.jitter = jitter
    pacer.admit(1.0)
    pacer.answered(all_tickets[0], 1.5)
    assert pacer.state == "closed"
    reach = STAGGER_S * 4
    assert numbers(pacer.admit(1.5)) == [3]
    assert pacer.wake_at(1.5) == pytest.approx(1.5 + 0.25 * reach)
    assert numbers(pacer.admit(1.5 + 0.25 * reach)) == [4]
    assert numbers(pacer.admit(1.5 + 0.99 * reach)) == [2, 5]


def test_an_answer_to_another_than_the_probe_opens_nothing() -> None:
    pacer, all_tickets = Pacer(concurrency=9), tickets(3)
    line(pacer, *all_tickets)
    pacer.admit(0.0)
    pacer.refused(all_tickets[0], 0.0, retry_after_s=1.0)
    pacer.join(all_tickets[0], 0.0)
    pacer.admit(1.0)
    pacer.answered(all_tickets[1], 1.1)
    assert pacer.state == "half_open"
    pacer.join(Ticket(9, 1, 0.0), 0.0)
    assert pacer.admit(1.2) == []


def test_a_refused_probe_cools_the_line_again() -> None:
    pacer, all_tickets = cooling()
    pacer.admit(1.0)
    assert pacer.refused(all_tickets[0], 1.1, retry_after_s=5.0) == pytest.approx(6.1)
    pacer.join(all_tickets[0], 0.0)
    assert pacer.state == "open"
    assert pacer.admit(6.0) == []
    assert numbers(pacer.admit(6.1)) == [1]


def test_a_probe_that_ends_otherwise_is_followed_by_the_next() -> None:
    pacer, all_tickets = cooling()
    pacer.admit(1.0)
    pacer.returned(all_tickets[0])
    assert (pacer.state, pacer.wake_at(1.1)) == ("half_open", 1.1)
    assert numbers(pacer.admit(1.1)) == [2]
    assert pacer.admit(1.2) == []


def test_a_probe_that_is_silent_for_two_seconds_counts_as_answered() -> None:
    pacer, _ = cooling()
    pacer.admit(1.0)
    assert pacer.admit(1.0 + PROBE_S - 0.001) == []
    spread = pacer.admit(1.0 + PROBE_S)
    assert (pacer.state, spread) == ("closed", [])
    assert numbers(pacer.admit(1.0 + PROBE_S + STAGGER_S * 3)) == [2, 3, 4]


def test_a_cool_down_that_ends_while_nobody_waits_makes_the_next_comer_the_probe() -> None:
    pacer, ticket = Pacer(concurrency=9), Ticket(1, 1, 0.0)
    pacer.join(ticket, 0.0)
    pacer.admit(0.0)
    pacer.refused(ticket, 0.0, retry_after_s=1.0)
    assert pacer.wake_at(0.0) is None
    assert pacer.admit(5.0) == []
    line(pacer, *tickets(3))
    assert numbers(pacer.admit(6.0)) == [1]


def test_a_stray_refusal_while_a_probe_is_out_cools_the_line_again() -> None:
    pacer, all_tickets = Pacer(concurrency=9), tickets(4)
    line(pacer, *all_tickets[:2])
    pacer.admit(0.0)
    pacer.refused(all_tickets[0], 0.0, retry_after_s=1.0)
    line(pacer, all_tickets[0], *all_tickets[2:])
    pacer.admit(1.0)
    assert pacer.refused(all_tickets[1], 1.5, retry_after_s=3.0) == 4.5
    pacer.answered(all_tickets[0], 1.6)
    assert (pacer.state, pacer.admit(4.4)) == ("open", [])
    assert len(pacer.admit(4.5)) == 1


def test_a_probe_waits_for_room_like_everybody() -> None:
    pacer, all_tickets = Pacer(concurrency=9, rpm=2), tickets(3)
    line(pacer, *all_tickets[:2])
    pacer.admit(0.0)
    pacer.refused(all_tickets[0], 0.0, retry_after_s=1.0)
    pacer.join(all_tickets[0], 0.0)
    assert pacer.admit(1.0) == []
    assert pacer.wake_at(1.0) == WINDOW_S
    assert numbers(pacer.admit(WINDOW_S)) == [1]


def test_a_full_line_is_woken_by_an_event_and_by_nothing_else() -> None:
    pacer, all_tickets = Pacer(concurrency=4), tickets(6)
    line(pacer, *all_tickets[:2])
    pacer.admit(0.0)
    pacer.refused(all_tickets[0], 0.0, retry_after_s=1.0)
    assert pacer.concurrency == 2
    line(pacer, *all_tickets[2:])
    assert numbers(pacer.admit(1.0)) == [3]
    assert pacer.wake_at(1.0) is None
    pacer.returned(all_tickets[1])
    assert pacer.wake_at(1.1) == 1.0 + PROBE_S


# The herd.


@pytest.mark.parametrize("seed", range(10))
def test_a_herd_that_was_stopped_together_does_not_return_together(seed: int) -> None:
    """Ours: seventeen clients of a vendor's SDK come back within 29 ms of each other (2026-11)."""
    count, latency_s = 17, 0.05
    chances = itertools.cycle([(seed * 0.37 + place * 0.618) % 1.0 for place in range(count)])
    herd = [Ticket(number, 1, next(chances)) for number in range(1, count + 1)]
    pacer = line(Pacer(concurrency=100), *herd)
    attempts = len(pacer.admit(0.0))
    assert attempts == count
    for ticket in herd:
        pacer.refused(ticket, latency_s, retry_after_s=1.0)
        pacer.join(Ticket(ticket.number, 1, next(chances)), 0.0)
    until = latency_s + 1.0
    arrivals: list[float] = []
    now: float | None = pacer.wake_at(latency_s)
    while now is not None:
        going = pacer.admit(now)
        arrivals += [now] * len(going)
        if arrivals == [now]:
            pacer.answered(going[0], now + latency_s)
            now += latency_s
            assert pacer.state == "closed"
            arrivals += [now] * len(pacer.admit(now))
        now = pacer.wake_at(now)
    assert attempts + len(arrivals) == 34
    assert arrivals[0] == until
    opened = until + latency_s
    assert all(opened <= moment <= opened + STAGGER_S * 16 for moment in arrivals[1:])
    crowd = max(sum(each <= moment < each + 0.1 for moment in arrivals) for each in arrivals)
    assert crowd <= 5
    assert arrivals[-1] - arrivals[1] > STAGGER_S * 8
