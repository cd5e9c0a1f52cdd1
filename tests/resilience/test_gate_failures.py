"""The breaker alone: what counts as five in a row, what a probe decides, and who is sent away."""

from droveway.resilience.gate import (
    FAILING_PROBE_S,
    FAILURES_IN_A_ROW,
    OPEN_BASE_S,
    OPEN_MAX_S,
    PATIENCE_S,
    PROBE_S,
    Gate,
)
from gates import CAUSES, failing, half_open, opened, state_of

# Five in a row.


def test_four_failures_in_a_row_are_an_accident_and_five_are_not() -> None:
    gate = Gate()
    for request in range(FAILURES_IN_A_ROW - 1):
        assert gate.failed(0.0, request=request, probe=False) is False
        assert state_of(gate) == "closed"
    assert gate.failed(0.0, request=9, probe=False) is False, "who waits stays until the probe"
    assert (gate.state, gate.cause, gate.until) == ("open", "failing", OPEN_BASE_S)


def test_one_request_alone_never_opens_it_and_a_second_one_does() -> None:
    """Ours: a request that breaks a vendor's parser must not keep all others from it."""
    gate = Gate()
    for _ in range(100):
        gate.failed(0.0, request=7, probe=False)
    assert state_of(gate) == "closed"
    gate.failed(0.0, request=8, probe=False)
    assert state_of(gate) == "open"


def test_a_whole_answer_ends_the_row_and_one_that_began_does_not() -> None:
    gate = Gate()
    for request in range(FAILURES_IN_A_ROW - 1):
        gate.failed(0.0, request=request, probe=False)
    gate.succeeded()
    for request in range(FAILURES_IN_A_ROW - 1):
        gate.failed(0.0, request=request, probe=False)
    assert state_of(gate) == "closed"
    gate.answered(probe=False)
    gate.failed(0.0, request=9, probe=False)
    assert state_of(gate) == "open"


def test_a_success_forgets_whose_failures_they_were() -> None:
    gate = Gate()
    gate.failed(0.0, request=1, probe=False)
    gate.succeeded()
    for _ in range(FAILURES_IN_A_ROW):
        gate.failed(0.0, request=2, probe=False)
    assert state_of(gate) == "closed"


def test_closing_forgets_the_row() -> None:
    gate = half_open("failing")
    gate.answered(probe=True)
    for request in range(FAILURES_IN_A_ROW - 1):
        gate.failed(0.0, request=request, probe=False)
    assert state_of(gate) == "closed"


def test_zero_failures_allowed_means_that_it_never_opens_for_them() -> None:
    gate = Gate(failures_max=0)
    for request in range(1_000):
        assert gate.failed(0.0, request=request, probe=False) is False
    assert state_of(gate) == "closed"
    gate.shut_out(0.0)
    gate.elapsed(gate.until)
    for request in range(1_000):
        assert gate.failed(50.0, request=request, probe=True) is False
    assert state_of(gate) == "half_open"


def test_as_many_failures_as_one_allows_open_it() -> None:
    for allowed in (2, 3, 11):
        gate = Gate(failures_max=allowed)
        for request in range(allowed - 1):
            gate.failed(0.0, request=request, probe=False)
        assert state_of(gate) == "closed"
        gate.failed(0.0, request=allowed, probe=False)
        assert state_of(gate) == "open"


def test_one_failure_allowed_still_takes_two_requests() -> None:
    gate = Gate(failures_max=1)
    gate.failed(0.0, request=1, probe=False)
    assert state_of(gate) == "closed"
    gate.failed(0.0, request=2, probe=False)
    assert state_of(gate) == "open"


# The probe.


def test_only_a_probe_of_a_failing_line_is_lost_at_its_first_failure() -> None:
    for cause in CAUSES:
        gate = half_open(cause)
        lost = gate.failed(gate.until, request=99, probe=True)
        assert lost is (cause == "failing")
        assert state_of(gate) == ("open" if lost else "half_open")


def test_probes_of_another_cause_that_fail_five_times_make_it_a_failing_line() -> None:
    for cause in ("refused", "shut_out"):
        gate = half_open(cause)
        now = gate.until
        for request in range(FAILURES_IN_A_ROW):
            assert state_of(gate) == "half_open"
            assert gate.failed(now, request=request, probe=True) is False
        assert (gate.state, gate.cause, gate.until) == ("open", "failing", now + OPEN_BASE_S)


def test_what_comes_back_from_before_decides_nothing_while_a_probe_is_out() -> None:
    for cause in CAUSES:
        gate = half_open(cause)
        assert gate.answered(probe=False) is False
        for request in range(3 * FAILURES_IN_A_ROW):
            assert gate.failed(gate.until, request=request, probe=False) is False
        assert (gate.state, gate.cause) == ("half_open", cause)


def test_failures_of_an_open_line_do_not_move_its_moment() -> None:
    for cause in CAUSES:
        gate = opened(cause)
        until = gate.until
        for request in range(3 * FAILURES_IN_A_ROW):
            gate.failed(0.5, request=request, probe=False)
        assert (gate.state, gate.cause, gate.until) == ("open", cause, until)


def test_a_silent_probe_passes_and_may_take_longer_where_it_must_connect() -> None:
    for cause in CAUSES:
        gate = half_open(cause)
        assert gate.probe_s == (FAILING_PROBE_S if cause == "failing" else PROBE_S)
        gate.passed()
        assert (gate.state, gate.cause) == ("closed", None)


# Who is sent away.


def test_who_comes_to_a_refusing_line_waits_however_long_it_takes() -> None:
    gate = Gate()
    gate.refused(0.0, retry_after_s=120.0)
    assert not gate.sends_away(0.0)


def test_who_comes_to_a_failing_line_waits_for_a_probe_that_is_near() -> None:
    gate, now = failing(Gate(), 0.0), 0.0
    for open_s in (1.0, 2.0, 4.0):
        assert gate.until - now == open_s
        assert not gate.sends_away(now)
        now = gate.until
        gate.elapsed(now)
        assert not gate.sends_away(now), "the probe decides"
        gate.failed(now, request=99, probe=True)
    assert gate.until - now == 8.0
    assert gate.sends_away(now)
    assert gate.sends_away(gate.until - PATIENCE_S - 0.001)
    assert not gate.sends_away(gate.until - PATIENCE_S)
    assert OPEN_MAX_S > PATIENCE_S


def test_who_comes_to_a_line_that_is_shut_out_goes_until_the_moment_has_come() -> None:
    gate = opened("shut_out")
    assert gate.sends_away(0.0)
    assert gate.sends_away(gate.until - 0.001)
    assert not gate.sends_away(gate.until)
    gate.elapsed(gate.until)
    assert not gate.sends_away(gate.until)
    gate.answered(probe=True)
    assert not gate.sends_away(gate.until)
