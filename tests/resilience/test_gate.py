"""The breaker alone: each row of its table, its moments, and what counts as five in a row."""

import itertools
from collections.abc import Callable
from typing import get_args

import pytest

from droveway.resilience.gate import (
    EVENTS,
    FAILURES_IN_A_ROW,
    OPEN_BASE_S,
    OPEN_MIN_S,
    SHUT_OUT_S,
    TABLE,
    Cause,
    Event,
    Gate,
    State,
)
from gates import CAUSES, failing, half_open, opened, state_of

STATES: tuple[State, ...] = get_args(State)
ALL_EVENTS: tuple[Event, ...] = get_args(Event)
LATE = 1_000.0


def in_state(state: State, cause: Cause) -> Gate:
    made: dict[State, Callable[[], Gate]] = {
        "closed": Gate,
        "open": lambda: opened(cause),
        "half_open": lambda: half_open(cause),
    }
    return made[state]()


def happens(gate: Gate, event: Event, *, now: float) -> None:
    """Bring about one event of the table, by what the gate is told."""
    if event == "answered":
        gate.answered(probe=gate.state == "half_open")
    elif event == "refused":
        gate.refused(now, retry_after_s=1.0)
    elif event == "failed":
        gate.failed(now, request=1, probe=False)
    elif event == "shut_out":
        gate.shut_out(now)
    elif event == "elapsed":
        gate.elapsed(now)
    else:
        for request in range(FAILURES_IN_A_ROW):
            gate.failed(now, request=request, probe=gate.state == "half_open")


def test_the_table_names_every_state_and_only_known_events() -> None:
    assert set(TABLE) == set(STATES)
    assert set(EVENTS) == set(ALL_EVENTS)
    assert {event for row in TABLE.values() for event in row} <= set(ALL_EVENTS)
    assert {state for row in TABLE.values() for state in row.values()} <= set(STATES)
    assert "failed" not in {event for row in TABLE.values() for event in row}


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize(("state", "event"), list(itertools.product(STATES, ALL_EVENTS)))
def test_every_event_in_every_state_does_what_the_table_says(
    state: State, event: Event, cause: Cause
) -> None:
    gate = in_state(state, cause)
    if state == "half_open" and event == "failed" and cause == "failing":
        # One failure that is not the probe's: that of the probe is the event "down".
        assert gate.failed(LATE, request=1, probe=False) is False
    else:
        happens(gate, event, now=LATE)
    assert state_of(gate) == TABLE[state].get(event, state)
    assert (gate.cause is None) == (gate.state == "closed")


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("state", STATES)
def test_an_event_that_is_in_no_row_leaves_state_cause_and_moment(
    state: State, cause: Cause
) -> None:
    for event in ALL_EVENTS:
        gate = in_state(state, cause)
        before = (gate.state, gate.cause, gate.until)
        if event not in TABLE[state]:
            happens(gate, event, now=LATE)
            assert (gate.state, gate.cause, gate.until) == before, event


# For how long.


def test_refusals_without_a_word_double_from_one_second_to_thirty() -> None:
    gate, now, waits = Gate(), 0.0, []
    for _ in range(7):
        gate.refused(now, retry_after_s=None)
        waits.append(gate.until - now)
        now = gate.until
        assert gate.elapsed(now)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_failing_line_doubles_with_each_probe_that_fails() -> None:
    gate, waits = failing(Gate(), 0.0), []
    for _ in range(7):
        waits.append(gate.until)
        now = gate.until
        assert gate.elapsed(now)
        assert gate.failed(now, request=99, probe=True) is True
        gate.until -= now
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_an_answer_between_refusals_begins_the_doubling_anew() -> None:
    gate = half_open("refused")
    gate.refused(1.0, retry_after_s=None)
    assert gate.until - 1.0 == 2 * OPEN_BASE_S
    gate.elapsed(gate.until)
    assert gate.answered(probe=True) is True
    gate.refused(10.0, retry_after_s=None)
    assert gate.until - 10.0 == OPEN_BASE_S


def test_an_answer_that_only_began_does_not_begin_the_doubling_of_failures_anew() -> None:
    """Ours: a vendor whose answers all break off would be asked every second for ever."""
    gate = half_open("failing")
    gate.answered(probe=True)
    failing(gate, 10.0)
    assert gate.until - 10.0 == 2 * OPEN_BASE_S
    gate.elapsed(gate.until)
    gate.answered(probe=True)
    gate.succeeded()
    failing(gate, 20.0)
    assert gate.until - 20.0 == OPEN_BASE_S


def test_a_vendors_own_word_is_taken_and_zero_means_not_now() -> None:
    told, zero = Gate(), Gate()
    told.refused(5.0, retry_after_s=77.0)
    zero.refused(5.0, retry_after_s=0.0)
    assert (told.until, zero.until) == (82.0, 5.0 + OPEN_MIN_S)


def test_of_two_moments_the_later_one_holds() -> None:
    gate = Gate()
    gate.refused(0.0, retry_after_s=20.0)
    gate.refused(1.0, retry_after_s=2.0)
    assert gate.until == 20.0
    gate.refused(2.0, retry_after_s=30.0)
    assert gate.until == 32.0
    gate.shut_out(3.0)
    assert (gate.until, gate.cause) == (3.0 + SHUT_OUT_S, "shut_out")
    longer = Gate()
    longer.refused(0.0, retry_after_s=100.0)
    longer.shut_out(1.0)
    assert (longer.until, longer.cause) == (100.0, "shut_out")


def test_a_volley_of_refusals_is_one_refusal() -> None:
    gate = Gate()
    for _ in range(17):
        gate.refused(0.0, retry_after_s=None)
    assert gate.until == OPEN_BASE_S


def test_a_late_refusal_does_not_say_why_a_gate_is_open() -> None:
    for cause in ("failing", "shut_out"):
        gate = opened(cause)
        gate.refused(0.1, retry_after_s=60.0)
        assert (gate.state, gate.cause, gate.until) == ("open", cause, 60.1)


def test_a_key_that_is_not_taken_keeps_a_line_shut_for_thirty_seconds() -> None:
    for state in STATES:
        gate = in_state(state, "refused")
        gate.shut_out(100.0)
        assert (gate.state, gate.cause, gate.until) == ("open", "shut_out", 100.0 + SHUT_OUT_S)


def test_the_gate_opens_at_its_moment_and_not_before() -> None:
    for cause in CAUSES:
        gate = opened(cause)
        assert not gate.elapsed(gate.until - 0.001)
        assert state_of(gate) == "open"
        assert gate.elapsed(gate.until)
        assert state_of(gate) == "half_open"
