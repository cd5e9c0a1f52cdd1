"""A vendor's bill beside our journal: nothing is unexplained but what was made so."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bills import AT, billed, deepseeks, kept, wide, worked
from droveway.chat import Usage
from droveway.engine.journal_store import StoredJournal
from droveway.engine.reconciling import Comparison, compare, providers_known, vendors_name
from droveway.engine.records import AttemptEntry, Row
from droveway.engine.vendor_cells import count, number
from droveway.engine.vendor_export import Export, Wishes, read_export
from droveway.errors import BadRequestError
from droveway.money import Money
from droveway.storage import Store
from lab import run

BEIJING = timezone(timedelta(hours=8))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "a.db") as made:
        yield made


def read(tmp_path: Path, *texts: str | bytes, **wishes: Any) -> Export:
    paths = []
    for number_, text in enumerate(texts):
        path = tmp_path / f"part-{number_}.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        paths.append(path)
    return read_export(paths, Wishes(**wishes))


def compared(store: Store, export: Export, **span: Any) -> Comparison:
    return compare(export, store, provider="deepseek", **span)


def usd(text: str) -> Money:
    return Money.parse(text, "USD")


def odd(found: Comparison) -> list[tuple[datetime | None, str | None, str]]:
    """Where something is unexplained, and how much."""
    return [
        (line.start, line.model, line.unexplained.decimal())
        for line in found.lines
        if line.unexplained.nano
    ]


def keep(store: Store, *rows: Row) -> None:
    async def work() -> None:
        journal = StoredJournal(store)
        for each in rows:
            journal.append(each)
        await journal.aclose()

    run(work())


# The engine's journal beside the bill of who has answered it.


def test_the_bill_of_what_was_answered_is_explained_to_the_last_digit(
    store: Store, tmp_path: Path
) -> None:
    """ours: retries, streams, caches, peak prices; by hours, models, and exactly."""
    rows = billed(run(worked(store)))
    assert any(row["hit"] for row in rows)
    assert len({row["prices"] for row in rows}) == 4
    found = compared(store, read(tmp_path, wide(rows)))
    assert found.by == "hour"
    assert len(found.lines) == len(rows) == 60
    assert all(line.ours == line.theirs for line in found.lines)
    assert found.total.ours == found.total.theirs
    assert found.total.ours.cost.nano > 0
    assert (found.guessed, found.unpriced, found.elsewhere) == (0, 0, ())


def test_deepseeks_two_files_by_days_of_beijing_are_explained_as_well(
    store: Store, tmp_path: Path
) -> None:
    """Vendor quirk (2026-09): quantities and costs are apart, in days of +08:00."""
    amounts, costs = deepseeks(billed(run(worked(store))))
    for parts in ((amounts, costs), (costs, amounts)):
        found = compared(store, read(tmp_path, *parts))
        assert found.by == "day"
        assert [line.start for line in found.lines[::2]] == [
            datetime(2026, 11, 23, tzinfo=BEIJING),
            datetime(2026, 11, 24, tzinfo=BEIJING),
        ]
        assert all(line.ours == line.theirs for line in found.lines)


def test_quantities_alone_have_a_cost_by_their_prices(store: Store, tmp_path: Path) -> None:
    amounts, costs = deepseeks(billed(run(worked(store, hours=5))))
    found = compared(store, read(tmp_path, amounts, currency="USD"))
    assert all(line.ours == line.theirs for line in found.lines)
    only_costs = compared(store, read(tmp_path, costs))
    assert only_costs.total.theirs.requests is None
    assert only_costs.total.theirs.input is None
    assert not odd(only_costs)


def test_one_answer_that_is_not_on_the_bill_shows_as_exactly_that(
    store: Store, tmp_path: Path
) -> None:
    rows = billed(run(worked(store, hours=6)))
    gone = rows.pop(4)
    found = compared(store, read(tmp_path, wide(rows)))
    nano = int(gone["cost"] * 10**9)
    where = gone["at"].replace(minute=0)
    assert odd(found) == [(where, gone["model"], Money(-nano, "USD").decimal())]
    assert found.total.unexplained == Money(-nano, "USD")
    (line,) = [line for line in found.lines if line.unexplained.nano]
    assert (line.ours.requests, line.theirs.requests) == (1, 0)


def test_one_answer_that_is_billed_twice_shows_as_exactly_that(
    store: Store, tmp_path: Path
) -> None:
    rows = billed(run(worked(store, hours=6)))
    twice = rows[7]
    found = compared(store, read(tmp_path, wide([*rows, twice])))
    (line,) = [line for line in found.lines if line.ours != line.theirs]
    assert line.unexplained == Money(int(twice["cost"] * 10**9), "USD")
    assert (line.start, line.model) == (twice["at"].replace(minute=0), twice["model"])
    assert (line.ours.requests, line.theirs.requests) == (1, 2)
    assert found.total.unexplained == line.unexplained


def test_one_cost_that_was_changed_shows_as_exactly_that(store: Store, tmp_path: Path) -> None:
    rows = billed(run(worked(store, hours=6)))
    rows[3]["cost"] += Decimal("0.0000123")
    found = compared(store, read(tmp_path, wide(rows)))
    assert odd(found) == [(rows[3]["at"].replace(minute=0), rows[3]["model"], "0.0000123")]
    assert found.total.unexplained == usd("0.0000123")


def test_a_day_on_which_the_vendor_says_nothing_is_shown_where_it_is_asked_for(
    store: Store, tmp_path: Path
) -> None:
    rows = billed(run(worked(store)))
    today = [row for row in rows if row["at"].day == 23]
    export = read(tmp_path, wide(today), by="day")
    assert not odd(compared(store, export))
    found = compared(store, export, end=AT + timedelta(days=2))
    assert [line.start for line in found.lines if line.unexplained.nano] == [
        datetime(2026, 11, 24, tzinfo=UTC)
    ] * 2
    later = compared(store, export, start=datetime(2026, 11, 24, tzinfo=UTC),
                     end=AT + timedelta(days=2))  # fmt: skip
    assert later.total.theirs.cost == Money.zero("USD")
    assert all(line.start == datetime(2026, 11, 24, tzinfo=UTC) for line in later.lines)


def test_an_export_without_models_is_compared_over_all_of_them(
    store: Store, tmp_path: Path
) -> None:
    rows = billed(run(worked(store, hours=4)))
    total = sum(row["cost"] for row in rows)
    export = read(tmp_path, f"date,amount_value,amount_currency\n2026-11-23,{total},usd\n")
    found = compared(store, export)
    (line,) = found.lines
    assert (line.model, line.ours.requests, line.unexplained) == (None, 8, Money.zero("USD"))


def test_a_name_that_its_vendor_answers_with_another_model_is_that_model(
    store: Store, tmp_path: Path
) -> None:
    """Vendor quirk (2026-11): Google answers gemini-2.5-flash with another from December on."""
    keep(store, kept(model="claude-sonnet-4.5", cost=usd("0.5")))
    bill = "date,model,cost,currency\n2026-11-23,claude-sonnet-4-5-20250929,0.5,USD\n"
    found = compared(store, read(tmp_path, bill))
    assert [(line.model, line.unexplained.nano) for line in found.lines] == [
        ("claude-sonnet-4-5", 0)
    ]
    assert vendors_name("gemini-2.5-flash", AT) == "gemini-2.5-flash"
    assert vendors_name("gemini-2.5-flash", AT + timedelta(days=30)) == "gemini-3.5-flash-lite"
    assert vendors_name("nobody-knows-2026-11-23", AT) == "nobody-knows-2026-11-23"


# What the journal cannot say exactly is said to be so.


BILL = "date,model,cost,currency,requests\n2026-11-23,deepseek-flash,1.00,USD,1\n"


def test_given_up_attempts_count_and_are_called_estimates(store: Store, tmp_path: Path) -> None:
    """ours: the row of a request that was given up has a cost and no tokens."""
    keep(
        store,
        kept(cost=usd("0.75")),
        kept(1, usage=None, own_cost=usd("0.25"), outcome="cancelled"),
    )
    found = compared(store, read(tmp_path, BILL))
    assert found.total.unexplained == Money.zero("USD")
    assert (found.guessed, found.guessed_cost) == (1, usd("0.25"))
    assert found.total.ours.requests == 2


def test_every_attempt_counts_at_its_own_provider_and_time(store: Store, tmp_path: Path) -> None:
    def entry(provider: str, cost: str, **fields: Any) -> AttemptEntry:
        told = {"at": AT, "outcome": "failed", "usage": Usage(input=1), **fields}
        return AttemptEntry(provider=provider, model="deepseek-flash", cost=usd(cost), **told)

    late = AT + timedelta(days=1)
    keep(store, kept(own_cost=usd("1.11"), attempts=(
        entry("deepseek", "1.00"), entry("elsewhere", "0.10"), entry("deepseek", "0.01", at=late),
        entry("deepseek", "0.05", usage=None),
    )))  # fmt: skip
    found = compared(store, read(tmp_path, BILL))
    assert found.total.ours.cost == usd("1.05")
    tomorrow = compared(store, read(tmp_path, BILL.replace("23", "24")))
    assert tomorrow.total.ours.cost == usd("0.01")
    assert providers_known(store) == ["deepseek", "elsewhere"]


def test_the_bill_of_one_account_is_compared_with_what_that_one_was_asked(
    store: Store, tmp_path: Path
) -> None:
    told: dict[str, Any] = {"provider": "deepseek", "model": "deepseek-flash", "at": AT}
    keep(
        store,
        kept(1, cost=usd("0.75"), account=1),
        kept(2, cost=usd("0.20"), account=2),
        kept(3, own_cost=usd("0.12"), attempts=(
            AttemptEntry(**told, account=2, outcome="failed", cost=usd("0.10")),
            AttemptEntry(**told, account=1, outcome="completed", cost=usd("0.02")),
        )),
    )  # fmt: skip
    bill = read(tmp_path, BILL)
    costs = [compared(store, bill, account=each).total.ours.cost for each in (1, 2, 3, None)]
    assert costs == [usd("0.77"), usd("0.30"), usd("0"), usd("1.07")]


def test_a_request_that_was_refused_is_on_no_bill(store: Store, tmp_path: Path) -> None:
    keep(store, kept(usage=None, outcome="failed"), kept(1, cost=usd("1")))
    assert compared(store, read(tmp_path, BILL)).total.ours.requests == 1


def test_money_in_another_currency_explains_nothing_and_is_said(
    store: Store, tmp_path: Path
) -> None:
    keep(store, kept(cost=Money.parse("1", "CNY")), kept(1))
    found = compared(store, read(tmp_path, BILL))
    assert found.total.unexplained == usd("1")
    assert found.elsewhere == (Money.parse("1", "CNY"),)
    assert found.unpriced == 1
    assert found.oldest == AT


# Files as people save them.


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + BILL,
        BILL.replace("\n", "\r\n"),
        BILL.replace(",", ";"),
        BILL.replace(",", ";").replace("1.00", "1,00"),
        BILL.replace(",", "\t"),
        BILL.replace("date", "DATE").replace("cost", "Cost (USD)"),
        "\n\n" + BILL.replace("\n", "\n\n") + ",,,,\n",
        BILL.replace("1.00", '"1.00"').replace("2026-11-23", "20261123"),
        BILL.replace("1.00", "0.9999999999").replace("2026-11-23", "1795392000"),
        BILL.replace("1.00", "1.0000000000000000000000000000"),
        BILL.replace("1.00", "1E+0"),
        BILL.replace("1.00,USD,1", "1.00,USD,1.0"),
        BILL + "2026-11-23,,,,\n",
    ],
)
def test_a_file_is_taken_as_people_save_it(text: str, store: Store, tmp_path: Path) -> None:
    keep(store, kept(cost=usd("1")))
    found = compared(store, read(tmp_path, text))
    assert abs(found.total.unexplained.nano) <= 1
    assert found.total.theirs.requests == 1
    assert len(found.lines) == 1


def test_utf_16_is_read_as_well(tmp_path: Path) -> None:
    assert read(tmp_path, BILL.replace(",", "\t").encode("utf-16")).rows == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "part-0.csv: it is empty"),
        (b"\n \n", "part-0.csv: it is empty"),
        (b"PK\x03\x04rest", "part-0.csv is a ZIP archive"),
        (BILL.replace("date", "colour"), "line 1: none of the columns"),
        (BILL.replace("requests", "cost"), "line 1: two columns are called 'cost'"),
        (BILL.replace("1.00", "much"), "line 2: 'much' is no number"),
        (BILL.replace("1.00", "NaN"), "line 2: 'NaN' is no number"),
        (BILL.replace("1.00", "1e999"), "line 2: '1e999' is no number"),
        (BILL.replace("1.00", "1e99"), "line 2: '1e99' is larger or finer"),
        (BILL.replace("1.00", '"1,234"'), "line 2: '1,234' may be a thousand times"),
        (BILL.replace(",", ";").replace("1.00", "1.234"), "line 2: '1.234' may be a thousand"),
        (BILL.replace("1.00", "1,234.50"), "line 2: there are 6 cells under 5 columns"),
        (BILL.replace(",USD,1", ""), "line 2: there are 3 cells under 5 columns"),
        (BILL.replace(",USD,1\n", ",USD,1.5\n"), "line 2: '1.5' is no whole number"),
        (BILL.replace(",USD,1\n", ",USD,-1\n"), "line 2: '-1' is no whole number"),
        (BILL.replace("2026-11-23", "11/23/2026"), "line 2: '11/23/2026' is no moment"),
        (BILL.replace("2026-11-23", "0001-01-01"), "line 2: '0001-01-01' is no moment"),
        (BILL.replace("2026-11-23", "9" * 13), "line 2: '9999999999999' is no moment"),
        (BILL + "Total,,1.00,USD,1\n", "line 3: 'Total' is no moment"),
        (BILL.replace("USD", "EURO"), "line 2: 'EURO' is no currency code"),
        (BILL + "2026-11-23,m,1,CNY,1\n", "line 3: it is in CNY, and rows before it are in USD"),
        (BILL + '2026-11-23,"m,1,USD,1\n' + "x" * 140_000, "field larger than field limit"),
        (BILL + "x" * 1_100_000, "longer than 1,048,576 characters"),
        (BILL.encode() + b"\xff\xfe", "is no UTF-8"),
        (BILL.replace("cost", "colour"), "the export tells no cost"),
        (BILL.replace("currency", "colour"), "does not say its currency"),
        (BILL.splitlines()[0], "has no rows"),
        (BILL.replace("1.00", "1" * 15), "more money than there is"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_that_says_where(
    text: str | bytes, said: str, *, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(BadRequestError) as caught:
        compared(store, read(tmp_path, text))
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert len(message) < 400


@given(st.text(alphabet="0123456789.,;-+eE \"'\n\t\ufeffaUSDT:Z\0\r", max_size=200))
def test_no_text_of_any_kind_is_more_than_a_refusal(text: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        try:
            read(Path(place), f"date,cost,currency\n{text}\n")
        except BadRequestError as error:
            assert "\n" not in str(error)


def test_offsets_that_change_need_a_zone(tmp_path: Path) -> None:
    bill = (
        "start_time_iso,end_time_iso,cost,currency\n"
        "2026-10-24T00:00:00+02:00,2026-10-25T00:00:00+02:00,1,USD\n"
        "2026-10-25T00:00:00+02:00,2026-10-26T00:00:00+01:00,1,USD\n"
        "2026-10-26T00:00:00+01:00,2026-10-27T00:00:00+01:00,1,USD\n"
    )
    with pytest.raises(BadRequestError, match=r"line 4: .* has another offset"):
        read(tmp_path, bill)
    zone = ZoneInfo("Europe/Berlin")
    export = read(tmp_path, bill, zone=zone)
    assert (export.by, len(export.sums)) == ("day", 3)


def test_days_are_not_hours_and_hours_may_be_days(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match=r"line 2 tells of a whole day: --by day"):
        read(tmp_path, BILL, by="hour")
    hours = "start_time,end_time,cost,currency\n1795392000,1795395600,1,USD\n"
    assert read(tmp_path, hours).by == "hour"
    assert read(tmp_path, hours, by="day").by == "day"


def test_a_column_can_be_named(tmp_path: Path) -> None:
    bill = "Tag,Betrag\n2026-11-23,2.50\n"
    columns = {"moment": "Tag", "cost": "betrag"}
    export = read(tmp_path, bill, columns=columns, currency="USD")
    assert [sums.cost for sums in export.sums.values()] == [Decimal("2.50")]
    with pytest.raises(BadRequestError, match="there is no column 'Preis' for 'cost'"):
        read(tmp_path, BILL, columns={"cost": "Preis"})


def test_one_currency_of_several_can_be_chosen(tmp_path: Path) -> None:
    bill = BILL + "2026-11-23,m,7,CNY,1\n"
    export = read(tmp_path, bill, currency="CNY")
    assert ([sums.cost for sums in export.sums.values()], export.left_out) == ([Decimal(7)], 1)


ANTHROPIC = """\
usage_date_utc,model_version,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,\
usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,cost_usd
2026-11-23,m,1,2,3,4,5,1.5
"""
DEEPSEEK = """\
utc_date,model,type,price,amount
2026-11-23,m,input_cache_miss_tokens,0.15,6
2026-11-23,m,input_cache_hit_tokens,0,4
2026-11-23,m,output_tokens,0.12,5
2026-11-23,m,request_count,,3
2026-11-23,m,search,0,9
"""


@pytest.mark.parametrize(
    "text",
    [
        ANTHROPIC,
        DEEPSEEK,
        "date,model,prompt_tokens,cached_tokens,completion_tokens,cost\n2026-11-23,m,10,4,5,1.5\n",
    ],
)  # fmt: skip
def test_the_columns_of_known_vendors_mean_what_they_say(text: str, tmp_path: Path) -> None:
    export = read(tmp_path, text, currency="USD")
    (sums,) = export.sums.values()
    assert (sums.input, sums.cached, sums.output, sums.cost) == (10, 4, 5, Decimal("1.5"))
    assert export.kinds == (("search",) if "search" in text else ())


# Numbers.


@given(
    told=st.decimals(allow_nan=False, min_value=-(10**12), max_value=10**12, places=16),
    semicolons=st.booleans(),
)
def test_a_number_is_read_exactly_however_its_thousands_are_parted(
    *, told: Decimal, semicolons: bool
) -> None:
    plain, english = f"{told:f}", f"{told:,f}"
    continental = english.translate(str.maketrans(",.", ".,"))
    for text in (plain, english, continental, plain.replace(".", ",")):
        assert number(f" {text} ", semicolons=semicolons) == told


@given(st.integers(0, 10**14))
def test_a_count_is_read_whatever_parts_its_thousands(many: int) -> None:
    assert count(f"{many:,}", semicolons=False) == many
    assert count(f"{many}.0", semicolons=False) == many
