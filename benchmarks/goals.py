"""This file knows the goals of the side by side run, and when the run cannot tell."""

import statistics
from typing import Final, Literal

import msgspec

from droveway.cli import tables

SYSTEMS: Final = ("direct", "nginx", "droveway")
# figure → system → one value for each round
Figures = dict[str, dict[str, list[float]]]
# How a goal is meant: of nginx's figure, above the direct one, or by itself.
Kind = Literal["x nginx, at least", "x nginx, at most", "above direct, at most", "at most"]
LEAST: Final = "x nginx, at least"
MOST: Final = "x nginx, at most"
ADDED: Final = "above direct, at most"
# Below such a share of its core something else ran there; a load this late was not running either.
SHARE_LEAST: Final = 0.8
LATE_MOST_MS: Final = 2.0
LATE: Final = "late_p99"


class Row(msgspec.Struct, frozen=True):
    """One line of the table.

    Attributes:
        key: Under which its figures are kept.
        name: For people.
        kind: How the goal is meant.
        goal: The goal.
        digits: After the point.
        check: The check that says whether the machine was too busy for this figure; "" for none.
    """

    key: str
    name: str
    kind: Kind
    goal: float
    digits: int = 1
    check: str = ""


ROWS: Final = (
    Row("rps", "requests/s, 1 KB, 64 at once", LEAST, 0.20, 0, "core_share"),
    Row("rps_billed", "the same with billing on", LEAST, 0.12, 0, "core_share_billed"),
    Row("cpu_us", "CPU a request there, us", MOST, 5),
    Row("rps_large", "requests/s, 107 KB, 32 at once", LEAST, 0.5, 0, "core_share_large"),
    Row("chunk_cpu_ms", "CPU of 1,000 chunks, ms", MOST, 2),
    Row("latency_p50", "latency at 100/s, p50 ms", ADDED, 0.5, 2, LATE),
    Row("latency_p99", "latency at 100/s, p99 ms", ADDED, 1.5, 2, LATE),
    Row("ttft_p50", "TTFT, 200 streams, p50 ms", ADDED, 1, 2, LATE),
    Row("ttft_p99", "TTFT, 200 streams, p99 ms", ADDED, 3, 2, LATE),
    Row("idle_mb", "PSS idle, MB", "at most", 60),
    Row("open_mb", "PSS with 1,000 streams, MB", "at most", 150),
    Row("start_s", "start to first answer, s", "at most", 1, 2),
)
# Told beside the goals: whether anything else than the system measured was the limit.
CHECKS: Final = {
    "core_share": "share of core 0 that the server used at 64 at once",
    "core_share_large": "the same at 107 KB",
    "core_share_billed": "the same with billing on",
    "load_share": "share of core 1 that the load's own process used at 200 streams",
    "late_p99": "how late the load sent at 100 requests/s, p99 ms",
    "idle_rss_mb": "RSS idle, MB",
    "open_rss_mb": "RSS with 1,000 streams, MB",
}


def median(figures: Figures, key: str, name: str) -> float | None:
    """The median of the rounds; None where there are none."""
    values = figures.get(key, {}).get(name)
    return statistics.median(values) if values else None


def judged(row: Row, *, nginx: float | None, straight: float | None, ours: float) -> float | None:
    """The figure that the goal is about; None where what it needs is missing."""
    if row.kind == "at most":
        return ours
    if row.kind == "above direct, at most":
        return None if straight is None else ours - straight
    return None if not nginx else ours / nginx


def busy(figures: Figures, check: str) -> bool:
    """Tell whether others used the machine so much that a figure says nothing."""
    if not check:
        return False
    if check == LATE:
        late = [median(figures, check, name) for name in SYSTEMS]
        return any(each is not None and each > LATE_MOST_MS for each in late)
    shares = [median(figures, check, name) for name in SYSTEMS[1:]]
    return any(each is not None and each < SHARE_LEAST for each in shares)


def verdict(figures: Figures, row: Row, value: float | None) -> str:
    """Say whether a goal is met; "busy" where others used the machine too much to tell."""
    if value is None:
        return ""
    if busy(figures, row.check):
        return "busy"
    met = value >= row.goal if row.kind.endswith("at least") else value <= row.goal
    return "met" if met else "not met"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A row with its medians: of each system, the figure that is judged, and the verdict."""

    row: Row
    direct: float | None
    nginx: float | None
    droveway: float
    judged: float | None
    verdict: str


def lines(figures: Figures) -> list[Line]:
    """Make the lines of what was measured."""
    made = []
    for row in ROWS:
        straight, nginx, ours = (median(figures, row.key, name) for name in SYSTEMS)
        if ours is None:
            continue
        value = judged(row, nginx=nginx, straight=straight, ours=ours)
        made.append(
            Line(
                row=row,
                direct=straight,
                nginx=nginx,
                droveway=ours,
                judged=value,
                verdict=verdict(figures, row, value),
            )
        )
    return made


def table(figures: Figures) -> list[object]:
    """Draw the figures with their goals, and the checks that tell what to think of them."""
    drawn = tables.table("figure", *SYSTEMS, "judged", "goal", "", left=("goal", ""))
    for line in lines(figures):
        row = line.row
        found = [getattr(line, name) for name in SYSTEMS]
        cells = ["-" if each is None else f"{each:,.{row.digits}f}" for each in found]
        sign = ">=" if row.kind.endswith("at least") else "<="
        goal = f"{sign} {row.goal:g} {row.kind.partition(',')[0].removesuffix('at most')}"
        shown = "-" if line.judged is None else f"{line.judged:,.2f}"
        drawn.add_row(row.name, *cells, shown, goal, line.verdict)
    checks = tables.table("checks", *SYSTEMS)
    for key, name in CHECKS.items():
        found = [median(figures, key, each) for each in SYSTEMS]
        if any(each is not None for each in found):
            checks.add_row(name, *("-" if each is None else f"{each:,.2f}" for each in found))
    return [drawn, "", checks]
