"""Every row of the package's price lists, checked one by one and against each other."""

import re
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import combinations

import msgspec
import pytest

from droveway.catalog.models import known_models
from droveway.catalog.pricelists import PriceListTable, built_in_book, expand
from droveway.catalog.pricerow import PriceRow
from droveway.catalog.providers import BUILT_IN

ROWS = built_in_book().rows
each_row = pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
LIST = """
vendor = "acme"
source = "https://acme.example/prices"
checked_on = 2026-11-23
[windows.day]
offset = "+08:00"
weekdays = ["mon"]
spans = [["09:00", "12:00"]]
[rules.batch]
processing = "batch"
inputs = "0.5"
output = "0.5"
[[rows]]
models = ["road"]
input = "1"
output = "2"
"""


def lists() -> dict[tuple[str, str, str, str], list[PriceRow]]:
    found: dict[tuple[str, str, str, str], list[PriceRow]] = defaultdict(list)
    for row in ROWS:
        found[row.vendor, row.model, row.currency, row.processing].append(row)
    return found


@each_row
def test_a_row_has_a_source_and_a_date(row: PriceRow) -> None:
    assert re.fullmatch(r"https://[a-z0-9.-]+/\S+", row.source)
    assert row.checked_on is not None
    assert date(2026, 10, 1) <= row.checked_on <= date(2026, 11, 23)


@each_row
def test_a_row_is_named_after_what_it_says(row: PriceRow) -> None:
    vendor, model, since, label, currency = row.id.split("/")
    assert (vendor, model, currency) == (row.vendor, row.model, row.currency)
    assert since == (row.valid_from.date().isoformat() if row.valid_from else "undated")
    assert ("peak" in label.split("+")) is (row.window is not None and row.inside)
    assert ("off-peak" in label.split("+")) is (row.window is not None and not row.inside)
    assert (row.processing in label.split("+")) is (
        row.processing != "standard" or label == "standard"
    )
    assert (f"over-{row.input_above}" in label) is (row.input_above is not None)


@each_row
def test_a_row_is_plausible(row: PriceRow) -> None:
    """Ours: reading from a cache is never dearer than not; output is never cheaper than input."""
    assert 0 < row.input <= row.output
    assert row.cached_read is None or 0 < row.cached_read < row.input
    assert row.cache_write is None or row.input < row.cache_write < row.output
    assert all(
        moment is None or moment.utcoffset() == timedelta(0)
        for moment in (row.valid_from, row.valid_to)
    )
    assert not (row.valid_from and row.valid_to) or row.valid_from < row.valid_to
    assert (row.vendor, row.model) in known_models()


def test_a_row_of_its_own_date_and_source_keeps_them() -> None:
    known = {row.id: (row.checked_on, row.source) for row in ROWS}
    assert known["openai/gpt-6.1-terra/undated/standard/USD"][0] == date(2026, 10, 26)
    assert known["openai/gpt-6-luna/undated/standard/USD"][0] == date(2026, 10, 14)
    assert "zh-cn" in known["deepseek/deepseek-flash/2026-09-10/peak/CNY"][1]


def test_row_ids_are_unique() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)


def test_a_model_id_belongs_to_one_vendor() -> None:
    """Ours: the look-up without a vendor relies on it."""
    vendors = defaultdict(set)
    for row in ROWS:
        vendors[row.model].add(row.vendor)
    assert {model: found for model, found in vendors.items() if len(found) > 1} == {}


def test_no_two_rows_of_a_list_hold_at_once() -> None:
    """Ours: rows with the same side of the same window never meet in time and size."""
    end_of_time = datetime(9999, 1, 1, tzinfo=UTC)
    beginning = datetime(1, 1, 1, tzinfo=UTC)

    def meet(one: PriceRow, other: PriceRow) -> bool:
        in_time = (one.valid_from or beginning) < (other.valid_to or end_of_time) and (
            other.valid_from or beginning
        ) < (one.valid_to or end_of_time)
        in_size = (one.input_above or 0) < (other.input_up_to or 10**12) and (
            other.input_above or 0
        ) < (one.input_up_to or 10**12)
        two_sides = one.window is not None and one.window == other.window
        return in_time and in_size and not (two_sides and one.inside is not other.inside)

    pairs = [pair for rows in lists().values() for pair in combinations(rows, 2)]
    assert [(one.id, other.id) for one, other in pairs if meet(one, other)] == []


def test_exactly_one_row_holds_at_every_moment_from_the_first_on() -> None:
    """Ours: probed at every border of every list, a second before it, and across a week."""
    for rows in lists().values():
        borders = {moment for row in rows for moment in (row.valid_from, row.valid_to) if moment}
        probes = {border + timedelta(seconds=step) for border in borders for step in (-1, 0, 1)}
        probes |= {datetime(2026, 11, 16, tzinfo=UTC) + timedelta(hours=n) for n in range(168)}
        starts = [row.valid_from for row in rows]
        first = None if None in starts else min(start for start in starts if start)
        ends = [row.valid_to for row in rows]
        last = None if None in ends else max(end for end in ends if end)
        for at in probes:
            sold = (first is None or at >= first) and (last is None or at < last)
            for size in (0, 1, 100_000, 100_001, 200_000, 200_001, 272_000, 272_001, 10**6):
                held = [row.id for row in rows if row.in_force(at) and row.fits(size)]
                assert len(held) == (1 if sold else 0), (at, size, held)


def test_every_model_that_can_be_bought_has_a_price_now() -> None:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    priced = {(row.vendor, row.model) for row in built_in_book().rows_in_force(at, "USD")}
    gone = {key for key, told in known_models().items() if told.retired(at) and not told.rerouted}
    assert priced == set(known_models()) - gone


def test_each_provider_serves_the_models_of_its_list() -> None:
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    for provider in BUILT_IN.values():
        priced = {
            row.model
            for row in built_in_book().rows_in_force(at, "USD")
            if row.vendor == provider.prices
        }
        aliases = {name for (_, name), told in known_models().items() if told.alias_of}
        assert set(provider.models) == priced - aliases


@pytest.mark.parametrize(
    ("instead", "message"),
    [
        (('window = "day"',), "named together"),
        (('side = "peak"',), "named together"),
        (('window = "night"', 'side = "peak"'), "night"),
        (('derive = ["flex"]',), "flex"),
        (('cached_read = "0.000001"', 'derive = ["batch"]'), "finer than a price"),
        (('cached_read = "cheap"',), "decimal string"),
    ],
)
def test_a_list_that_contradicts_itself_is_refused(instead: tuple[str, ...], message: str) -> None:
    written = msgspec.toml.decode(LIST + "\n".join(instead), type=PriceListTable)
    with pytest.raises((ValueError, KeyError), match=message):
        list(expand(written))


def test_a_list_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="cached"):
        msgspec.toml.decode(LIST + 'cached = "1"', type=PriceListTable)
