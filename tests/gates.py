"""This file knows how tests get a breaker in a given state."""

from typing import get_args

from droveway.resilience.gate import FAILURES_IN_A_ROW, Cause, Gate, State

CAUSES: tuple[Cause, ...] = get_args(Cause)


def failing(gate: Gate, now: float) -> Gate:
    """Let five of five requests fail."""
    for request in range(FAILURES_IN_A_ROW):
        gate.failed(now, request=request, probe=False)
    return gate


def opened(cause: Cause, *, gate: Gate | None = None) -> Gate:
    """A gate that was opened at 0 for one of the three causes."""
    gate = gate or Gate()
    if cause == "refused":
        gate.refused(0.0, retry_after_s=None)
    elif cause == "failing":
        failing(gate, 0.0)
    else:
        gate.shut_out(0.0)
    assert (gate.state, gate.cause) == ("open", cause)
    return gate


def half_open(cause: Cause) -> Gate:
    gate = opened(cause)
    assert gate.elapsed(gate.until)
    return gate


def state_of(gate: Gate) -> State:
    """The state as it is now: a type checker takes an attribute for what it was."""
    return gate.state
