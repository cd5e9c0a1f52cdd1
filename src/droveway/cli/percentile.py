"""This file knows what a percentile is: nearest-rank, always a value that occurred."""

from collections.abc import Sequence


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the smallest value that at least so many percent of all values do not exceed.

    Args:
        values: In any order.
        percent: From 1 to 100.

    Returns:
        One of the values; None when there is none.

    Raises:
        ValueError: There is no such percentile.
    """
    if not 1 <= percent <= 100:
        raise ValueError(f"a percentile is from 1 to 100, not {percent}")
    if not values:
        return None
    rank = -(-percent * len(values) // 100)
    return sorted(values)[rank - 1]
