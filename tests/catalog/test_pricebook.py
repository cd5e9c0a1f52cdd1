"""How a price is found, and how it is refused."""

from datetime import UTC, datetime

import pytest

from droveway.catalog.pricebook import PriceBook, price, price_bound
from droveway.catalog.pricelists import built_in_book
from droveway.chat import Usage
from droveway.errors import SettingsError, UnpricedModelError

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PEAK = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


def refusal(model: str, *, at: datetime = AT, currency: str = "USD", **more: object) -> str:
    with pytest.raises(UnpricedModelError) as caught:
        built_in_book().find(None, model, at=at, currency=currency, **more)  # type: ignore[arg-type]
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    "model", ["gpt-4", "gpt-4.1 ", "GPT-4.1", "gpt-4.1-2026", "flash", "openai/gpt-4.1", ""]
)
def test_a_model_is_found_by_its_exact_id_only(model: str) -> None:
    """Vendor quirk (2026): price maps that match parts of names bill one model as another."""
    assert "no price for" in refusal(model)


def test_an_unknown_model_is_refused_with_near_names() -> None:
    assert "did you mean 'gpt-4.1'" in refusal("gpt-4.2")
    assert "did you mean" not in refusal("zzzzzzzz")


def test_a_retired_name_is_refused_with_its_date_and_successor() -> None:
    for name in ("deepseek-chat", "deepseek-reasoner"):
        message = refusal(name)
        assert "2026-07-24 15:59 UTC" in message
        assert "'deepseek-flash'" in message


def test_the_last_row_of_a_retired_name_can_be_had() -> None:
    row = built_in_book().last_row("deepseek-chat")
    assert (row.input, row.cached_read, row.output) == (280_000, 28_000, 420_000)
    assert row.valid_to == datetime(2026, 7, 24, 15, 59, tzinfo=UTC)
    assert (
        built_in_book()
        .last_row("deepseek-v4-flash")
        .id.startswith("deepseek/deepseek-v4-flash/2026-09-10/off-peak")
    )
    with pytest.raises(UnpricedModelError):
        built_in_book().last_row("deepseek-reasoner")


def test_a_retired_name_is_priced_at_a_moment_when_it_was_sold() -> None:
    at = datetime(2026, 7, 24, 15, 58, 59, tzinfo=UTC)
    assert built_in_book().find("deepseek", "deepseek-chat", at=at).output == 420_000


def test_a_missing_list_or_way_or_date_is_refused_by_what_is_missing() -> None:
    assert "no price list in CNY, only in USD" in refusal("gpt-4.1", currency="CNY")
    assert "no batch price in USD" in refusal("deepseek-flash", processing="batch")
    early = datetime(2026, 9, 9, 23, 59, 59, tzinfo=UTC)
    assert "2026-09-09T23:59:59" in refusal("deepseek-flash", at=early)


def test_a_name_that_is_still_answered_is_not_called_retired() -> None:
    at = datetime(2026, 12, 2, tzinfo=UTC)
    assert "no price list in CNY" in refusal("gemini-2.5-flash", at=at, currency="CNY")


def test_another_vendors_list_does_not_have_the_model() -> None:
    with pytest.raises(UnpricedModelError, match=r"no price for 'gpt-4\.1'"):
        built_in_book().find("deepseek", "gpt-4.1", at=AT)


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        built_in_book().find(None, "gpt-4.1", at=AT.replace(tzinfo=None))


def test_a_look_up_takes_the_own_price_first() -> None:
    book = built_in_book().with_own("deepseek/deepseek-flash", input="1", output="2")
    row = book.lookup(provider="deepseek", prices="deepseek", model="deepseek-flash", at=PEAK)
    assert (row.id, row.input, row.cached_read) == (
        "own/deepseek/deepseek-flash/USD",
        1_000_000,
        None,
    )
    # Another provider of the same model keeps the list.
    other = book.lookup(provider="mirror", prices="deepseek", model="deepseek-flash", at=PEAK)
    assert other.id == "deepseek/deepseek-flash/2026-09-10/peak/USD"


def test_a_look_up_takes_the_providers_list_then_any_vendors() -> None:
    book = built_in_book()
    for prices in ("openai", None, "deepseek", "no-such-list"):
        row = book.lookup(provider="proxy", prices=prices, model="gpt-6-luna", at=AT)
        assert row.id == "openai/gpt-6-luna/undated/standard/USD"
    with pytest.raises(UnpricedModelError):
        book.lookup(provider="local", prices=None, model="qwen", at=AT)


def test_a_look_up_follows_the_size_of_the_request() -> None:
    book = built_in_book()
    row = book.lookup(
        provider="openai", prices="openai", model="gpt-6-luna", at=AT, input_tokens=272_001
    )
    assert row.id == "openai/gpt-6-luna/undated/over-272000/USD"
    with pytest.raises(ValueError, match="find the row again"):
        price(Usage(input=272_000), row)
    with pytest.raises(ValueError, match="find the row again"):
        price(Usage(input=272_000, cache_write=1), book.find(None, "gpt-6-luna", at=AT))


def test_an_own_price_is_not_replaced_by_a_list_in_another_currency() -> None:
    """Ours: who overrules a list does not want its prices in another currency either."""
    book = built_in_book().with_own("deepseek/deepseek-flash", input="1", output="2")
    with pytest.raises(UnpricedModelError, match="is in USD, and CNY is asked for"):
        book.lookup(
            provider="deepseek", prices="deepseek", model="deepseek-flash", at=AT, currency="CNY"
        )


def test_an_own_price_is_a_row_like_others() -> None:
    old = built_in_book()
    book = old.with_own(
        "local/team/qwen", input="0.15", output="0.60", cached="0.003", cache_write="0.2"
    )
    row = book.find(None, "local/team/qwen", at=AT)
    assert (row.vendor, row.model, row.currency) == ("local", "team/qwen", "USD")
    usage = Usage(input=1_000_000, cached_read=1_000_000, cache_write=1_000_000, output=1_000_000)
    assert price(usage, row).decimal() == "0.953"
    assert row in book.rows
    assert row in book.rows_in_force(AT, "USD")
    assert "local/team/qwen" in book.models
    assert "local/team/qwen" not in old.models
    assert book.lookup(provider="local", prices=None, model="team/qwen", at=AT) is row


@pytest.mark.parametrize("name", ["qwen", "/qwen", "local/", ""])
def test_an_own_price_needs_a_provider_and_a_model(name: str) -> None:
    with pytest.raises(SettingsError, match="PROVIDER/MODEL"):
        PriceBook([]).with_own(name, input="1", output="1")


@pytest.mark.parametrize("bad", ["", "-1", "1e3", "0.0000001", "0,15"])
def test_an_own_price_is_a_plain_decimal_string(bad: str) -> None:
    with pytest.raises(SettingsError, match=r'prices\."local/qwen"'):
        PriceBook([]).with_own("local/qwen", input=bad, output="1")


def test_an_own_price_needs_a_currency() -> None:
    with pytest.raises(SettingsError, match="no currency code"):
        PriceBook([]).with_own("local/qwen", input="1", output="1", currency="dollars")


def test_a_free_own_price_is_free_and_not_unknown() -> None:
    row = (
        PriceBook([]).with_own("local/qwen", input="0", output="0").find(None, "local/qwen", at=AT)
    )
    assert price(Usage(input=10**6, output=10**6), row).nano == 0
    assert price_bound(10**6, 10**6, row).nano == 0


def test_a_bound_takes_the_dearest_class_of_input() -> None:
    book = built_in_book()
    # Anthropic's write costs more than its input; DeepSeek has none.
    assert price_bound(100, 10, book.find(None, "claude-sonnet-4-5", at=AT)).decimal() == "0.000525"
    assert price_bound(100, 10, book.find(None, "deepseek-flash", at=AT)).decimal() == "0.000021"


def test_no_usage_costs_more_than_its_bound() -> None:
    for row in built_in_book().rows:
        size = (row.input_above or 0) + 3
        bound = price_bound(size, 7, row)
        for usage in (
            Usage(input=size, output=7),
            Usage(cached_read=size, output=7),
            Usage(cache_write=size, output=7),
            Usage(input=1, cached_read=1, cache_write=size - 2, output=6),
        ):
            assert price(usage, row) <= bound


def test_rows_in_force_are_one_a_model_and_tier() -> None:
    rows = built_in_book().rows_in_force(PEAK, "USD")
    keys = [(row.vendor, row.model, row.input_above) for row in rows]
    assert len(set(keys)) == len(keys)
    assert "deepseek/deepseek-flash/2026-09-10/peak/USD" in [row.id for row in rows]
    assert {row.model for row in built_in_book().rows_in_force(AT, "CNY")} == {
        "deepseek-flash",
        "deepseek-v4-flash",
        "deepseek-v4-flash-vision-exp",
        "deepseek-v4-pro",
    }
    batch = built_in_book().rows_in_force(AT, "USD", processing="batch")
    assert {row.processing for row in batch} == {"batch"}
