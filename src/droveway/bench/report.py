"""This file knows how what was measured is told: exact percentiles, counts, money, comparison."""

from collections.abc import Iterable
from typing import Final

import msgspec

from droveway.bench.load import Pace
from droveway.bench.measure import nearest_rank
from droveway.bench.tally import Tally
from droveway.chat import Usage

_DIGITS: Final = 3  # microseconds, of milliseconds


class Spread(msgspec.Struct, frozen=True, kw_only=True, rename={"p99_9": "p99.9"}):
    """How a time is spread, in milliseconds.

    Attributes:
        p50: The median; as all of these by nearest rank, so it is a value that occurred.
        p90: 90 of 100 are not above it.
        p95: 95 of 100.
        p99: 99 of 100.
        p99_9: 999 of 1,000.
    """

    p50: float
    p90: float
    p95: float
    p99: float
    p99_9: float


class TargetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one server did.

    Attributes:
        url: Where it is.
        requests: How many were due in the counted time.
        ok: Answers that are whole.
        success_rate: Their part, from 0 to 1; None when there was no request.
        errors: How often each kind of failure happened.
        requests_per_s: Whole answers a second.
        output_tokens_per_s: Output tokens a second.
        first_content_ms: From sending to the first content (TTFT); None when nothing streamed,
            and of all times when there is none.
        between_content_ms: Between two pieces of content.
        answer_ms: From sending to the end of the answer.
        scheduled_ms: From when it was due to the end of the answer.
        late_ms: From when it was due to its sending: what the measuring side was late.
        usage: Tokens of the answers that told them.
        uncounted: Answers that told none.
        cost: Decimal string by the price book; None when no answer has a price, never 0.
        currency: Of the cost.
        unpriced: Answers without a price, not in the cost.
        gateway_cost: Decimal string of what a Droveway gateway said it charges, in its billing
            currency.
    """

    url: str
    requests: int
    ok: int
    success_rate: float | None
    errors: dict[str, int]
    requests_per_s: float
    output_tokens_per_s: float
    first_content_ms: Spread | None
    between_content_ms: Spread | None
    answer_ms: Spread | None
    scheduled_ms: Spread | None
    late_ms: Spread | None
    usage: Usage
    uncounted: int
    cost: str | None
    currency: str | None
    unpriced: int
    gateway_cost: str | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first server beside the second, for one time.

    Attributes:
        difference_ms: First minus second, percentile by percentile.
        ratio: First over second; None where one of the second's is 0.
    """

    difference_ms: Spread
    ratio: Spread | None


TIMES: Final = ("first_content_ms", "between_content_ms", "answer_ms", "scheduled_ms")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of a measurement.

    Attributes:
        model: What was asked for.
        stream: Whether as a stream.
        roles: How many roles took turns.
        pace: How hard and how long.
        sent: Requests that were sent, those of the warm-up among them.
        interrupted: Whether it was stopped before its end.
        own_cpu_ms_per_request: What measuring cost this process, for each request that it sent.
        targets: What each server did.
        difference: The first beside the second, by time; empty with one server.
    """

    model: str
    stream: bool
    roles: int
    pace: Pace
    sent: int
    interrupted: bool
    own_cpu_ms_per_request: float | None
    targets: list[TargetReport]
    difference: dict[str, Difference]


def target_report(url: str, tally: Tally, *, counted_from: float) -> TargetReport:
    """Make figures of one server's tally.

    Args:
        url: Where it is.
        tally: What it did.
        counted_from: When the warm-up was over; rates count from then to the last answer's end.
    """
    wall_s = tally.ended_at - counted_from
    return TargetReport(
        url=url,
        requests=tally.sent,
        ok=tally.ok,
        success_rate=round(tally.ok / tally.sent, 6) if tally.sent else None,
        errors=dict(tally.failed.most_common()),
        requests_per_s=_rate(tally.ok, wall_s),
        output_tokens_per_s=_rate(tally.usage.output, wall_s),
        first_content_ms=spread(tally.first_s),
        between_content_ms=spread(tally.gaps_s),
        answer_ms=spread(tally.answer_s),
        scheduled_ms=spread(tally.scheduled_s),
        late_ms=spread(tally.late_s),
        usage=tally.usage,
        uncounted=tally.uncounted,
        cost=None if tally.cost is None else tally.cost.decimal(),
        currency=None if tally.cost is None else tally.cost.currency,
        unpriced=tally.unpriced,
        gateway_cost=None if tally.gateway_cost is None else tally.gateway_cost.decimal(),
    )


def spread(seconds: Iterable[float]) -> Spread | None:
    """Make exact percentiles in milliseconds of times in seconds; None of no times."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return _spread(nearest_rank(ordered, each) * 1e3 for each in (500, 900, 950, 990, 999))


def differences(first: TargetReport, second: TargetReport) -> dict[str, Difference]:
    """Set the first server beside the second, for each time that both have."""
    found = {}
    for name in TIMES:
        mine, others = getattr(first, name), getattr(second, name)
        if mine is None or others is None:
            continue
        pairs = list(zip(_values(mine), _values(others), strict=True))
        found[name] = Difference(
            difference_ms=_spread(a - b for a, b in pairs),
            ratio=_spread(a / b for a, b in pairs) if all(b for _, b in pairs) else None,
        )
    return found


def _values(of: Spread) -> tuple[float, ...]:
    return tuple(getattr(of, name) for name in Spread.__struct_fields__)


def _spread(values: Iterable[float]) -> Spread:
    p50, p90, p95, p99, p99_9 = (round(each, _DIGITS) for each in values)
    return Spread(p50=p50, p90=p90, p95=p95, p99=p99, p99_9=p99_9)


def _rate(many: int, wall_s: float) -> float:
    return round(many / wall_s, 2) if wall_s > 0 else 0.0
