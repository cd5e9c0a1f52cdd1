"""The window's table, row by row, and that it never leaves its bounds or stops for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.resilience.fair_queue import Ticket
from droveway.resilience.gate import PROBE_S
from droveway.resilience.pacing import Pacer
from droveway.resilience.window import PATIENCE_MAX, ROUND_TRIP_MIN, Window


def volley(window: Window, now: float, *, of: int, let_in: int) -> Window:
    """So many were out at once, and the vendor let so many in."""
    for back in range(1, of - let_in + 1):
        window.refused(now, sent_at=now - 0.1, let_in=of - back)
    return window


def answers_until(window: Window, places: int) -> int:
    count = 0
    while window.places < places:
        window.answered(full=True)
        count += 1
        assert count < 100_000, "it stands still"
    return count


def test_a_fresh_window_stands_at_its_ceiling_and_grows_no_further() -> None:
    window = Window(2_500)
    window.answered(full=True)
    assert (window.places, window.roof) == (2_500, None)


def test_a_volley_shows_how_many_were_let_in() -> None:
    window = volley(Window(160), 1.0, of=160, let_in=40)
    assert (window.places, window.roof) == (36, 40)


@pytest.mark.parametrize(("refused", "places"), [(1, 50), (2, 25), (3, 12), (90, 12)])
def test_a_chance_refusal_beside_few_others_does_not_close_it(refused: int, places: int) -> None:
    assert volley(Window(100), 1.0, of=refused + 2, let_in=2).places == places


def test_a_volley_of_which_none_was_let_in_halves_it_once_until_a_good_answer() -> None:
    window = volley(Window(100), 1.0, of=17, let_in=0)
    assert (window.places, window.roof) == (50, None)
    for now in range(2, 300):
        volley(window, now, of=1, let_in=0)
    assert window.places == 50
    window.answered(full=False)
    assert volley(window, 301.0, of=1, let_in=0).places == 25


def test_what_was_sent_before_it_narrowed_does_not_narrow_it_again() -> None:
    window = Window(100)
    window.refused(5.0, sent_at=4.0, let_in=99)
    assert window.places == 89
    window.refused(5.1, sent_at=5.0, let_in=98)
    assert (window.places, window.roof) == (88, 98)
    window.refused(5.3, sent_at=5.2, let_in=98)
    assert (window.places, window.roof) == (88, 98)
    window.refused(6.0, sent_at=5.9, let_in=50)
    assert window.places == 45


def test_a_late_refusal_of_a_volley_takes_back_nothing_that_has_grown_since() -> None:
    window = volley(Window(100), 1.0, of=50, let_in=40)
    answers_until(window, 60)
    window.refused(99.0, sent_at=0.9, let_in=59)
    assert window.places == 60


def test_it_does_not_grow_while_nobody_fills_it() -> None:
    window = volley(Window(100), 1.0, of=50, let_in=40)
    for _ in range(1_000):
        window.answered(full=False)
    assert window.places == 36


def test_it_is_doubled_in_a_round_trip_where_no_roof_is_known() -> None:
    window = volley(Window(200), 1.0, of=17, let_in=0)
    assert (window.places, answers_until(window, 200)) == (100, 100)


def test_the_way_from_the_roof_is_doubled_in_a_round_trip() -> None:
    window = volley(Window(500), 1.0, of=300, let_in=100)
    answers_until(window, 110)
    # From 110 to 120: at 1 + (W - 100) / W each, about as many answers as it is wide.
    assert 60 <= answers_until(window, 120) <= 125


def test_a_roof_that_stays_is_struck_ever_more_rarely_and_one_that_moved_soon() -> None:
    window = volley(Window(500), 0.0, of=300, let_in=100)
    answers = []
    for now in range(1, 8):
        answers.append(answers_until(window, 101))
        volley(window, float(now), of=101, let_in=100)
    trips = [round(count / 96) for count in answers]
    assert trips == [1, 2, 4, 8, PATIENCE_MAX, PATIENCE_MAX, PATIENCE_MAX]
    volley(window, 9.0, of=50, let_in=20)
    assert answers_until(window, 21) <= 2 * 20


def test_a_tiny_window_asks_for_more_than_a_round_trip_of_answers() -> None:
    window = volley(Window(16), 0.0, of=9, let_in=1)
    volley(window, 1.0, of=2, let_in=1)
    assert window.places == 1
    volley(window, 2.0, of=2, let_in=1)
    assert answers_until(window, 2) >= ROUND_TRIP_MIN


events = st.lists(
    st.tuples(
        st.sampled_from(["answered", "refused"]),
        st.floats(0, 10),
        st.floats(0, 20),
        st.integers(0, 600),
        st.booleans(),
    ),
    max_size=60,
)


@given(st.integers(1, 500), st.integers(1, 20), events)
def test_it_never_leaves_its_bounds(
    ceiling: int, floor: int, events: list[tuple[str, float, float, int, bool]]
) -> None:
    window, now = Window(ceiling, floor=floor), 0.0
    for what, passed_s, ago_s, let_in, full in events:
        now += passed_s
        if what == "answered":
            window.answered(full=full)
        else:
            before = window.places
            window.refused(now, sent_at=now - ago_s, let_in=let_in)
            assert window.places <= max(before, ceiling)
        assert min(floor, ceiling) <= window.places <= ceiling


moves = st.lists(st.tuples(st.sampled_from("jarorf"), st.integers(0, 20)), max_size=60)


@given(st.integers(1, 12), moves)
def test_somebody_may_always_go_when_nobody_is_out(
    concurrency: int, moves: list[tuple[str, int]]
) -> None:
    pacer, now, out = Pacer(concurrency=concurrency), 0.0, list[Ticket]()
    for number, (move, which) in enumerate(moves):
        now += 0.25
        if move == "j":
            pacer.join(Ticket(number, 1, 0.5), 0.0)
        elif out:
            ticket = out[which % len(out)]
            if move == "a":
                pacer.answered(ticket, now)
            else:
                out.remove(ticket)
                if move == "o":
                    pacer.overloaded(ticket, now)
                if move == "r":
                    pacer.refused(ticket, now, retry_after_s=0.5)
                pacer.returned(ticket)
        out += pacer.admit(now)
    for ticket in out:
        pacer.returned(ticket)
    pacer.join(Ticket(10_000, 1, 0.5), 0.0)
    for _ in range(len(moves) + 5):
        going = pacer.admit(now)
        if going:
            return
        wake_at = pacer.wake_at(now)
        assert wake_at is not None, "only an event can help, and nobody is out"
        now = max(wake_at, now + PROBE_S / 100)
    pytest.fail("nobody went")


def test_an_overloaded_vendor_narrows_the_window_and_cools_nobody() -> None:
    pacer = Pacer(concurrency=100)
    for number in range(10):
        pacer.join(Ticket(number, 1, 0.0), 0.0)
    going = pacer.admit(0.0)
    pacer.overloaded(going[0], 1.0)
    pacer.returned(going[0])
    assert (pacer.state, pacer.concurrency, pacer.in_flight) == ("closed", 50, 9)
