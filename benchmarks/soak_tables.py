"""This file knows what a soak has found, and how that is shown."""

import msgspec

from droveway.cli import tables
from soak_answer import ENDS
from soak_verdict import HOUR_S, QUANTITIES, Judged, Point, visible, warm
from soak_windows import Window, series


class Check(msgspec.Struct, frozen=True):
    """Something that must be so in the end."""

    title: str
    found: str
    ok: bool


class Soaked(msgspec.Struct, kw_only=True):
    """What came of it.

    Attributes:
        minutes: How long streams were held open.
        streams: How many were to be open.
        rows: Quantities against their bounds.
        checks: What must be so in the end.
        ends: How the requests of each kind ended.
        odd: The first streams without a visible end.
        windows: Every sample.
    """

    minutes: float
    streams: int
    rows: list[Judged]
    checks: list[Check]
    ends: dict[str, dict[str, int]]
    odd: list[str]
    windows: list[Window]

    @property
    def ok(self) -> bool:
        """Whether everything is as it must be; no trend at all is not."""
        return bool(self.rows) and all(r.ok for r in self.rows) and all(c.ok for c in self.checks)


def show(soaked: Soaked) -> None:
    """Print the tables."""
    trends = tables.table("quantity", "first", "last", "slope /h", "bound", "verdict",
                          left=("verdict",))  # fmt: skip
    digits = {each.title: each.digits for each in QUANTITIES}
    for row in soaked.rows:
        first, last, slope = (
            f"{value:,.{digits[row.title]}f}" for value in (row.first, row.last, row.slope_per_hour)
        )
        trends.add_row(row.title, first, last, slope, row.told, _verdict(ok=row.ok))
    checks = tables.table("in the end", "found", "verdict", left=("found", "verdict"))
    for check in soaked.checks:
        checks.add_row(check.title, check.found, _verdict(ok=check.ok))
    ends = tables.table("requests", "asked", *ENDS, tight=True)
    for kind, counts in soaked.ends.items():
        cells = [f"{counts[end]:,}" if end in counts else "" for end in ENDS]
        ends.add_row(kind, f"{sum(counts.values()):,}", *cells)
    asked = sum(sum(counts.values()) for counts in soaked.ends.values())
    rate = asked / (60 * soaked.minutes) if soaked.minutes else 0.0
    print(f"{soaked.streams:,} streams for {soaked.minutes:.1f} min, {asked:,} requests "
          f"({rate:.1f}/s), {len(soaked.windows)} windows\n")  # fmt: skip
    tables.show(trends, checks, ends)
    for line in soaked.odd:
        print(line)
    if not soaked.rows:
        print("too few windows for a trend")
    print(_seen(soaked))


def _seen(soaked: Soaked) -> str:
    """What leak this run could see, in words."""
    bounds = {row.title: row.bound for row in soaked.rows}
    points: list[Point] = series(soaked.windows, "asked")
    judged = warm(points)
    titles = {each.name: each.title for each in QUANTITIES}
    if titles["rss_mb"] not in bounds or len(judged) < 2:
        return "no leak could be seen"
    (began, first), (ended, last) = judged[0], judged[-1]
    per_hour = (last - first) / (ended - began) * HOUR_S
    memory = visible(bounds[titles["rss_mb"]], per_hour) * 2**20
    tasks = visible(bounds[titles["tasks"]], per_hour)
    return (
        f"a leak of {memory:,.0f} bytes a request, or of a task every {1 / tasks:,.0f} requests, "
        "would have broken a bound; at rest, a single task would"
    )


def _verdict(*, ok: bool) -> str:
    return "ok" if ok else "NOT"
