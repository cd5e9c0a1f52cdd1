"""Invoices made by hand from the vendors' lists, to the last nano-unit."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from droveway.catalog.pricebook import Processing, price
from droveway.catalog.pricelists import built_in_book
from droveway.chat import Usage

# input, cached read, cache write, output
MONTHLY = (1_000_000, 2_000_000, 0, 500_000)
AT_272K = (100_000, 100_000, 72_000, 10_000)
ABOVE_272K = (100_001, 100_000, 72_000, 10_000)
AT_200K = (50_000, 100_000, 50_000, 10_000)
ABOVE_200K = (50_001, 100_000, 50_000, 10_000)
AT_100K = (40_000, 40_000, 20_000, 10_000)

Case = tuple[str, str, str, tuple[int, int, int, int], str, Processing]


def case(  # noqa: PLR0917  a row of a table, read by its columns
    model: str,
    at: str,
    tokens: tuple[int, int, int, int],
    expected: str,
    currency: str = "USD",
    processing: Processing = "standard",
) -> Case:
    return (model, at, expected, tokens, currency, processing)


FLASH, PRO, OLD_FLASH = "deepseek-flash", "deepseek-v4-pro", "deepseek-v4-flash"
CALENDAR = [
    # A Monday: peak is 09:00-12:00 and 14:00-18:00 in Beijing, 01:00-04:00 and 06:00-10:00 UTC.
    case(FLASH, "2026-11-23T00:59:59", MONTHLY, "0.456"),
    case(FLASH, "2026-11-23T01:00:00", MONTHLY, "0.912"),
    case(FLASH, "2026-11-23T03:59:59", MONTHLY, "0.912"),
    case(FLASH, "2026-11-23T03:59:59.999999", MONTHLY, "0.912"),
    case(FLASH, "2026-11-23T04:00:00", MONTHLY, "0.456"),
    case(FLASH, "2026-11-23T05:59:59", MONTHLY, "0.456"),
    case(FLASH, "2026-11-23T06:00:00", MONTHLY, "0.912"),
    case(FLASH, "2026-11-23T09:59:59", MONTHLY, "0.912"),
    case(FLASH, "2026-11-23T10:00:00", MONTHLY, "0.456"),
    case(PRO, "2026-11-23T02:00:00", MONTHLY, "3.388"),
    case(PRO, "2026-11-23T12:00:00", MONTHLY, "1.694"),
    # A Friday, the weekend after it, and the Monday morning that is still Sunday in UTC.
    case(FLASH, "2026-11-20T09:59:59", MONTHLY, "0.912"),
    case(FLASH, "2026-11-21T02:00:00", MONTHLY, "0.456"),
    case(FLASH, "2026-11-22T07:00:00", MONTHLY, "0.456"),
    case(FLASH, "2026-11-22T16:00:00", MONTHLY, "0.456"),
    # Public holidays on weekdays, the last day before and the first day after.
    case(FLASH, "2026-09-24T02:00:00", MONTHLY, "0.912"),
    case(FLASH, "2026-09-25T02:00:00", MONTHLY, "0.456"),
    case(FLASH, "2026-09-30T09:59:59", MONTHLY, "0.912"),
    case(FLASH, "2026-10-01T01:00:00", MONTHLY, "0.456"),
    case(FLASH, "2026-10-05T07:00:00", MONTHLY, "0.456"),
    case(FLASH, "2026-10-07T09:00:00", MONTHLY, "0.456"),
    case(FLASH, "2026-10-08T01:00:00", MONTHLY, "0.912"),
    case(PRO, "2026-10-02T02:00:00", MONTHLY, "1.694"),
    # Weekend days that are worked in exchange for a holiday are still no Monday to Friday.
    case(FLASH, "2026-09-20T02:00:00", MONTHLY, "0.456"),
    case(FLASH, "2026-10-10T02:00:00", MONTHLY, "0.456"),
    # No notice for 2027 yet: New Year is priced as the Friday that it is.
    case(FLASH, "2027-01-01T02:00:00", MONTHLY, "0.912"),
    # Yuan are a list of their own.
    case(FLASH, "2026-11-23T02:00:00", MONTHLY, "6.08", "CNY"),
    case(FLASH, "2026-11-23T12:00:00", MONTHLY, "3.04", "CNY"),
    case(FLASH, "2026-10-05T02:00:00", MONTHLY, "3.04", "CNY"),
    case(PRO, "2026-11-23T02:00:00", MONTHLY, "23.1", "CNY"),
    case(PRO, "2026-11-23T12:00:00", MONTHLY, "11.55", "CNY"),
]
BACK_DATED = [
    case("deepseek-chat", "2026-07-24T15:58:59", MONTHLY, "0.546"),
    # One price at every hour until 2026-08-16 16:00 UTC, also in what is peak today.
    case(OLD_FLASH, "2026-08-03T02:00:00", MONTHLY, "0.2856"),
    case(OLD_FLASH, "2026-08-16T15:59:59", MONTHLY, "0.2856"),
    case(OLD_FLASH, "2026-08-16T16:00:00", MONTHLY, "0.564"),
    case(OLD_FLASH, "2026-08-17T01:00:00", MONTHLY, "1.128"),
    # The first weekend with peak hours had them on Saturday too; the second had not.
    case(OLD_FLASH, "2026-08-22T02:00:00", MONTHLY, "1.128"),
    case(OLD_FLASH, "2026-08-23T02:00:00", MONTHLY, "0.564"),
    case(OLD_FLASH, "2026-08-29T02:00:00", MONTHLY, "0.564"),
    case(OLD_FLASH, "2026-09-09T02:00:00", MONTHLY, "1.128"),
    case(OLD_FLASH, "2026-09-10T02:00:00", MONTHLY, "0.912"),
    case(OLD_FLASH, "2026-11-23T12:00:00", MONTHLY, "0.456"),
    case("deepseek-v4-flash-vision-exp", "2026-11-23T12:00:00", MONTHLY, "0.456"),
    case(OLD_FLASH, "2026-08-03T02:00:00", MONTHLY, "2.04", "CNY"),
    case(OLD_FLASH, "2026-08-18T02:00:00", MONTHLY, "7.7", "CNY"),
    case(OLD_FLASH, "2026-08-29T02:00:00", MONTHLY, "3.85", "CNY"),
    case(PRO, "2026-08-03T02:00:00", MONTHLY, "0.87725"),
    case(PRO, "2026-08-22T02:00:00", MONTHLY, "3.388"),
    case(PRO, "2026-08-23T02:00:00", MONTHLY, "1.694"),
    case(PRO, "2026-08-03T02:00:00", MONTHLY, "6.05", "CNY"),
    case("gpt-5.6-sol", "2026-08-20T23:59:59", AT_272K, "1.3"),
    case("gpt-5.6-sol", "2026-08-21T00:00:00", AT_272K, "1"),
    case("gpt-5.6-terra", "2026-07-29T12:00:00", AT_272K, "0.65"),
    case("gpt-5.6-terra", "2026-07-30T00:00:00", AT_272K, "0.52"),
    case("gpt-5.6-luna", "2026-07-29T12:00:00", AT_272K, "0.26"),
    case("gpt-5.6-luna", "2026-11-23T12:00:00", AT_272K, "0.052"),
    case("gemini-3.8-flash", "2026-12-31T23:59:59", MONTHLY, "2.775"),
    case("gemini-3.8-flash", "2027-01-01T00:00:00", MONTHLY, "5.55"),
    case("claude-sonnet-4-5", "2026-04-01T12:00:00", AT_200K, "0.5175"),
    case("claude-sonnet-4-5", "2026-04-01T12:00:00", AT_272K, "1.425"),
]
NOON = "2026-11-23T12:00:00"
FLAT_TIERED_AND_BATCH = [
    case("gpt-4.1", NOON, MONTHLY, "7"),
    case("gpt-4.1", NOON, MONTHLY, "4", processing="batch"),
    case("gpt-4.1", NOON, (0, 0, 0, 50_000_000), "400"),
    case("gpt-6-astra", NOON, AT_272K, "2.5"),
    case("gpt-6.1-sol", NOON, AT_272K, "0.49"),
    case("gpt-6.1-terra", NOON, AT_272K, "0.245"),
    case("gpt-6-luna", NOON, AT_272K, "0.025"),
    case("gpt-6-luna", NOON, ABOVE_272K, "0.0475002"),
    case("gpt-6-luna", NOON, AT_272K, "0.0125", processing="batch"),
    case("gpt-6-luna", NOON, AT_272K, "0.0125", processing="flex"),
    case("gpt-6-luna", NOON, ABOVE_272K, "0.0237501", processing="batch"),
    case("claude-sonnet-4-5", NOON, AT_200K, "0.5175"),
    case("claude-sonnet-4.5", NOON, AT_200K, "0.5175"),
    case("claude-sonnet-4-5", NOON, AT_200K, "0.25875", processing="batch"),
    case("claude-fable-5-1", NOON, AT_200K, "1.65"),
    case("claude-opus-5-5", NOON, AT_200K, "0.67"),
    case("claude-opus-5", NOON, AT_200K, "0.8625"),
    case("claude-sonnet-5-5", NOON, AT_200K, "0.335"),
    case("claude-haiku-4-5", NOON, AT_200K, "0.1725"),
    case("claude-haiku-5-5", NOON, AT_100K, "0.0119"),
    case("claude-haiku-5-5", NOON, AT_200K, "0.08625"),
    case("claude-haiku-5-5", NOON, AT_100K, "0.00595", processing="batch"),
    case("gemini-2.5-flash", NOON, MONTHLY, "1.61"),
    case("gemini-2.5-flash", NOON, MONTHLY, "0.835", processing="batch"),
    case("gemini-2.5-flash", "2026-12-01T00:00:00", MONTHLY, "1.61"),
    case("gemini-2.5-flash", "2026-12-01T00:00:00", MONTHLY, "0.815", processing="batch"),
    case("gemini-3.5-flash-lite", NOON, MONTHLY, "1.61"),
    case("gemini-3.5-flash", NOON, MONTHLY, "6.3"),
    case("gemini-2.5-flash-lite", NOON, MONTHLY, "0.32"),
    case("gemini-2.5-pro", NOON, AT_200K, "0.2375"),
    case("gemini-2.5-pro", NOON, ABOVE_200K, "0.4250025"),
]
# Prices finer than a nano-unit a token: summed exactly, then rounded once, half to even.
ROUNDED = [
    case(FLASH, NOON, (1, 0, 0, 1), "0.00000075"),
    case(FLASH, NOON, (0, 1, 0, 0), "0.000000003"),
    case(OLD_FLASH, "2026-08-03T02:00:00", (0, 1, 0, 0), "0.000000003"),
    case(PRO, "2026-08-03T02:00:00", (0, 1, 0, 0), "0.000000004"),
    case(PRO, "2026-08-03T02:00:00", (0, 2, 0, 0), "0.000000007"),
    case(PRO, "2026-08-03T02:00:00", (0, 4, 0, 0), "0.000000014"),
    case(PRO, "2026-08-03T02:00:00", (0, 12, 0, 0), "0.000000044"),
    case(PRO, "2026-08-03T02:00:00", (0, 8, 0, 0), "0.000000029"),
    case(FLASH, NOON, (0, 0, 0, 0), "0"),
    # DeepSeek has no write price: a write is input.
    case(FLASH, NOON, (0, 0, 1_000_000, 0), "0.15"),
]
INVOICES = [*CALENDAR, *BACK_DATED, *FLAT_TIERED_AND_BATCH, *ROUNDED]


def charge(
    model: str, at: datetime, usage: Usage, *, currency: str, processing: Processing
) -> tuple[str, str]:
    row = built_in_book().find(
        None,
        model,
        at=at,
        currency=currency,
        input_tokens=usage.input_total,
        processing=processing,
    )
    money = price(usage, row)
    return money.decimal(places_min=0), money.currency


@pytest.mark.parametrize(
    ("model", "at", "expected", "tokens", "currency", "processing"),
    INVOICES,
    ids=[f"{entry[0]}-{entry[1]}-{entry[4]}-{entry[5]}-{entry[2]}" for entry in INVOICES],
)
def test_an_invoice_is_exact(
    *,
    model: str,
    at: str,
    expected: str,
    tokens: tuple[int, int, int, int],
    currency: str,
    processing: Processing,
) -> None:
    """Spec: the vendors' lists; arithmetic by hand."""
    fresh, read, written, output = tokens
    usage = Usage(input=fresh, cached_read=read, cache_write=written, output=output)
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert charge(model, moment, usage, currency=currency, processing=processing) == (
        expected,
        currency,
    )
    # The same moment told in another zone costs the same.
    elsewhere = moment.astimezone(timezone(-timedelta(hours=7)))
    assert charge(model, elsewhere, usage, currency=currency, processing=processing)[0] == expected


def test_there_are_enough_invoices() -> None:
    assert len(INVOICES) >= 60
    assert len(set(INVOICES)) == len(INVOICES)


def test_one_in_every_peak_second_of_a_week_is_priced_as_peak() -> None:
    """Vendor quirk (2026-11-15): 35 of the 168 hours of a week without holidays are peak."""
    book, monday = built_in_book(), datetime(2026, 11, 16, tzinfo=UTC)
    rows = [
        book.find(None, FLASH, at=monday + timedelta(minutes=15 * quarter))
        for quarter in range(7 * 24 * 4)
    ]
    assert sum(row.inside for row in rows) == 35 * 4
