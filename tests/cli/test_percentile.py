"""Nearest-rank percentiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.cli.percentile import percentile


@pytest.mark.parametrize(
    ("percent", "value"), [(5, 15), (30, 20), (40, 20), (50, 35), (95, 50), (100, 50)]
)
def test_nearest_rank_of_five_values(percent: int, value: int) -> None:
    """spec: the textbook example of the method."""
    assert percentile([35, 20, 15, 50, 40], percent) == value


def test_of_nothing_there_is_none() -> None:
    assert percentile([], 50) is None


@pytest.mark.parametrize("percent", [0, 101, -1])
def test_a_percentile_is_from_1_to_100(percent: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 100"):
        percentile([1.0], percent)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_it_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[float], percent: int
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)
