"""From times to figures: milliseconds, rates, and one server beside another."""

import msgspec
import pytest

from droveway.bench.report import Spread, differences, spread, target_report
from droveway.bench.tally import Tally
from droveway.catalog.pricelists import built_in_book
from droveway.clock import StillClock
from droveway.engine.assembly import provider_at

URL = "http://127.0.0.1:1/v1"


def tally(*answers_s: float, ended_at: float = 12.0) -> Tally:
    made = Tally(provider_at(URL, None), model="m", book=built_in_book(), clock=StillClock())
    made.ok = len(answers_s)
    made.answer_s.extend(answers_s)
    made.ended_at = ended_at
    return made


def test_a_spread_is_exact_milliseconds() -> None:
    found = spread(i / 1000 for i in range(1000, 0, -1))
    assert found == Spread(p50=500.0, p90=900.0, p95=950.0, p99=990.0, p99_9=999.0)
    assert msgspec.to_builtins(found)["p99.9"] == 999.0


def test_no_times_have_no_spread() -> None:
    assert spread([]) is None


def test_rates_count_from_the_end_of_the_warm_up_to_the_last_answer() -> None:
    told = target_report(URL, tally(*[0.1] * 30), counted_from=2.0)
    assert (told.requests_per_s, told.success_rate) == (3.0, 1.0)


def test_nothing_measured_has_no_rate_of_success() -> None:
    told = target_report(URL, tally(ended_at=0.0), counted_from=2.0)
    assert (told.requests_per_s, told.success_rate, told.cost) == (0.0, None, None)


def test_the_difference_is_the_first_minus_the_second() -> None:
    first = target_report(URL, tally(0.003), counted_from=0.0)
    second = target_report(URL, tally(0.002), counted_from=0.0)
    (each,) = differences(first, second).values()
    assert each.difference_ms.p50 == pytest.approx(1.0)
    assert each.ratio is not None
    assert each.ratio.p99_9 == pytest.approx(1.5)


def test_a_ratio_to_nothing_is_none() -> None:
    first = target_report(URL, tally(0.003), counted_from=0.0)
    second = target_report(URL, tally(0.0), counted_from=0.0)
    assert differences(first, second)["answer_ms"].ratio is None
