"""The table that says how a stream ended: complete, and never kind to a fragment."""

import re
from itertools import product
from typing import get_args

import pytest

from droveway.dialects import ending
from droveway.dialects.ending import TABLE, Ending, Outcome, Signal, end_of, outcome_of

SIGNALS: tuple[Signal, ...] = get_args(Signal)
ENDINGS: tuple[Ending, ...] = get_args(Ending)


def test_every_signal_has_an_ending_with_and_without_the_marker() -> None:
    assert set(TABLE) == set(product(SIGNALS, (True, False)))
    assert set(TABLE.values()) == set(ENDINGS)


def test_every_ending_is_exactly_one_outcome() -> None:
    assert {outcome_of(each) for each in ENDINGS} == set(get_args(Outcome))
    assert [each for each in ENDINGS if outcome_of(each) == "completed"] == ["completed"]
    assert [each for each in ENDINGS if outcome_of(each) == "cancelled"] == ["cancelled"]


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_stream_without_its_marker_is_never_complete(signal: Signal) -> None:
    assert outcome_of(end_of(signal, finished=False)) != "completed"


@pytest.mark.parametrize("signal", ["done", "body_end", "broken", "idle"])
def test_a_stream_with_its_marker_is_complete_whatever_carried_it(signal: Signal) -> None:
    """Spec: `finish_reason` without `[DONE]` is complete."""
    assert end_of(signal, finished=True) == "completed"


@pytest.mark.parametrize("finished", [True, False])
def test_an_answer_taken_back_is_failed_and_one_left_is_cancelled(*, finished: bool) -> None:
    assert outcome_of(end_of("error_event", finished=finished)) == "failed"
    assert outcome_of(end_of("malformed", finished=finished)) == "failed"
    assert outcome_of(end_of("cancelled", finished=finished)) == "cancelled"


def test_the_theory_of_operation_draws_the_table_as_it_is() -> None:
    drawn = {}
    for line in (ending.__doc__ or "").splitlines():
        row = re.fullmatch(r" {4}(\w+)(?: \([^)]*\))? +(\w+)(?: +(\w+)|, seen or not.*)", line)
        if row is not None and row[1] in SIGNALS:
            drawn[row[1], True] = row[2]
            drawn[row[1], False] = row[3] or row[2]
    assert drawn == TABLE
