"""Flat prices against genai-prices, which knows them from elsewhere."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price

from droveway.catalog.pricebook import price
from droveway.catalog.pricelists import built_in_book
from droveway.chat import Usage

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)  # off-peak in Beijing
SIZES = [(1_000, 0, 0, 100), (60_000, 30_000, 0, 4_000), (9_999, 80_001, 0, 777)]
TIERED_SIZES = [(272_000, 0, 0, 10), (272_001, 0, 0, 10), (200_000, 100_000, 1, 5_000)]
TIERED = ("gpt-6", "gpt-5.6", "claude-haiku-5-5", "gemini-2.5-pro", "gemini-3.1-pro")
# Names that genai-prices does not list: an older id that DeepSeek bills as Flash.
ROWS = [
    row
    for row in built_in_book().rows_in_force(AT, "USD")
    if row.input_above is None and row.model != "deepseek-v4-flash-vision-exp"
]


@pytest.mark.parametrize("model", [row.model for row in ROWS])
def test_prices_agree_with_the_oracle(model: str) -> None:
    """Spec: genai-prices 0.2.3 for the same tokens at the same off-peak moment."""
    row = built_in_book().find(None, model, at=AT)
    sizes = [*SIZES, *(TIERED_SIZES if model.startswith(TIERED) else [])]
    for fresh, read, written, output in sizes:
        ours = Usage(
            input=fresh,
            cached_read=read,
            cache_write=written if row.cache_write is not None else 0,
            output=output,
        )
        theirs = TheirUsage(
            input_tokens=ours.input_total,
            cache_read_tokens=ours.cached_read or None,
            cache_write_tokens=ours.cache_write or None,
            output_tokens=ours.output,
        )
        told = calc_price(
            theirs, model, provider_id=row.vendor, genai_request_timestamp=AT
        ).total_price
        found = built_in_book().find(None, model, at=AT, input_tokens=ours.input_total)
        exact = Decimal(price(ours, found).nano).scaleb(-9)
        assert abs(exact - told) <= Decimal("0.0000000005")


def test_the_oracle_bills_a_weekend_as_peak_and_we_do_not() -> None:
    """Vendor quirk (2026-11-15): why the book is our own."""
    saturday = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
    theirs = calc_price(
        TheirUsage(input_tokens=1_000_000, output_tokens=0),
        "deepseek-flash",
        provider_id="deepseek",
        genai_request_timestamp=saturday,
    ).total_price
    row = built_in_book().find(None, "deepseek-flash", at=saturday)
    assert price(Usage(input=1_000_000), row).decimal() == "0.15"
    assert theirs == Decimal("0.30")
