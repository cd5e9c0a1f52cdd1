"""This file knows when a quantity that was watched for long has leaked: trends and their bounds.

Two ways to judge a series, each after the warm-up (the first fifth, when caches fill):

- A stock (memory, descriptors, tasks, requests in flight) must not rise. Its trend is the median of
  the slopes between all pairs of windows (Theil-Sen): up to 29 % of the windows may be wild without
  moving it. What the trend comes to over the judged time may be a share of the first third's level,
  and a constant beside. So the bound for each hour is the stricter, the longer the run: a leak of
  any size is seen if one waits, and noise is not taken for one if one does not.
- A pace (latencies, CPU) must not get worse: the median of the last third of the windows against
  that of the first third. A machine that is busy for a while moves neither.
"""

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Final, Literal

import msgspec

WARM_UP: Final = 0.2
WINDOWS_MIN: Final = 6
HOUR_S: Final = 3600.0
Point = tuple[float, float]  # seconds since the start, and the value


class Quantity(msgspec.Struct, frozen=True, kw_only=True):
    """What is watched, and what it may do.

    Attributes:
        name: Of the field of a window, too.
        title: What the table says.
        kind: A stock may not rise, a pace may not get worse, a level may not be lower.
        share: What a stock may rise by, as a share of its level; by what factor a pace may get
            worse; what share of the wanted level there must be.
        beside: What a stock may rise by besides; what a difference of paces must be to count.
        digits: Places behind the point in the table.
    """

    name: str
    title: str
    kind: Literal["stock", "pace", "level"]
    share: float
    beside: float = 0.0
    digits: int = 0


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a quantity.

    Attributes:
        title: What it is.
        first: Its value in the first window after the warm-up.
        last: And in the last one.
        slope_per_hour: The trend between them.
        found: What is held against the bound: a slope for each hour, a factor, or a level.
        bound: What that may be at most, or for a level at least.
        told: The same in words.
        ok: Whether it is kept.
    """

    title: str
    first: float
    last: float
    slope_per_hour: float
    found: float
    bound: float
    told: str
    ok: bool


QUANTITIES: Final = (
    Quantity(name="rss_mb", title="memory, MB", kind="stock", share=0.10, beside=8, digits=1),
    Quantity(name="descriptors", title="descriptors", kind="stock", share=0.05, beside=10),
    Quantity(name="tasks", title="tasks", kind="stock", share=0.05, beside=10),
    Quantity(name="in_flight", title="requests in flight", kind="stock", share=0.05, beside=10),
    Quantity(name="open", title="streams open", kind="level", share=0.95),
    Quantity(name="cpu", title="CPU, % of a core", kind="pace", share=1.5, beside=5, digits=1),
    Quantity(
        name="first_p50", title="first event, ms p50", kind="pace", share=2.0, beside=20, digits=1
    ),
    Quantity(
        name="first_p99", title="first event, ms p99", kind="pace", share=2.0, beside=50, digits=1
    ),
    Quantity(
        name="gap_p50", title="between events, ms p50", kind="pace", share=1.25, beside=10, digits=1
    ),
    Quantity(
        name="gap_p99", title="between events, ms p99", kind="pace", share=1.5, beside=50, digits=1
    ),
)


def slope_per_s(points: Sequence[Point]) -> float:
    """The median of the slopes between all pairs of points (Theil 1950, Sen 1968); 0 of one."""
    slopes = [(b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2) if t > s]
    return median(slopes) if slopes else 0.0


def warm(points: Sequence[Point]) -> Sequence[Point]:
    """The points after the warm-up."""
    return points[int(len(points) * WARM_UP) :]


def judge(quantity: Quantity, points: Sequence[Point], *, wanted: float = 0.0) -> Judged | None:
    """Hold a series against its bound.

    Args:
        quantity: What it is of.
        points: All windows that have a value, in the order of time.
        wanted: For a level, what it should be.

    Returns:
        The verdict; None where there are too few windows for one.
    """
    judged = warm(points)
    if len(judged) < WINDOWS_MIN:
        return None
    values = [value for _, value in judged]
    third = len(values) // 3
    before, after = median(values[:third]), median(values[-third:])
    per_hour = slope_per_s(judged) * HOUR_S
    if quantity.kind == "stock":
        found, bound = per_hour, allowed_per_hour(quantity, judged)
        told, ok = f"<= {bound:+,.{quantity.digits}f} /h", found <= bound
    elif quantity.kind == "pace":
        found, bound = (after / before if before else 1.0), quantity.share
        told = f"{found:.2f} <= {bound:g} times"
        ok = found <= bound or after - before <= quantity.beside
    else:
        found, bound = median(values), quantity.share * wanted
        told, ok = f">= {bound:,.0f}", found >= bound
    return Judged(
        title=quantity.title,
        first=values[0],
        last=values[-1],
        slope_per_hour=per_hour,
        found=found,
        bound=bound,
        told=told,
        ok=ok,
    )


def allowed_per_hour(quantity: Quantity, judged: Sequence[Point]) -> float:
    """What the trend of a stock may be, for the time that was judged."""
    level = median(value for _, value in judged[: max(1, len(judged) // 3)])
    hours = (judged[-1][0] - judged[0][0]) / HOUR_S
    return (quantity.share * level + quantity.beside) / hours


def visible(bound_per_hour: float, requests_per_hour: float) -> float:
    """What each request must leave behind for the trend to reach the bound."""
    return bound_per_hour / requests_per_hour if requests_per_hour else float("inf")
