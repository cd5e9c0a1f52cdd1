"""What models take, when they go, and where vendors are reached."""

from datetime import UTC, datetime, timedelta

import pytest

from droveway.catalog.listing import as_table_row
from droveway.catalog.models import CONCURRENCY_UNKNOWN, ModelLimits, known_models, limits
from droveway.catalog.pricelists import built_in_book
from droveway.catalog.providers import BUILT_IN


def test_deepseeks_limits_are_those_of_its_page() -> None:
    """Spec: price page of 2026-11-15: 2,500 and 500 at once, 1M context, 384K output."""
    flash, pro = limits("deepseek", "deepseek-flash"), limits("deepseek", "deepseek-v4-pro")
    assert (flash.concurrency, pro.concurrency) == (2500, 500)
    assert (flash.context_tokens, flash.output_tokens_max) == (1_000_000, 384_000)
    assert limits("deepseek", "deepseek-v4-flash") == flash
    assert flash.output_cap_field == "max_tokens"


def test_openai_takes_the_cap_under_its_newer_name() -> None:
    assert limits("openai", "gpt-6-luna").output_cap_field == "max_completion_tokens"
    assert limits("openai", "not-known-yet").output_cap_field == "max_completion_tokens"


def test_an_unknown_model_has_the_defaults() -> None:
    assert limits("acme", "road") == limits(None, "road") == ModelLimits()
    assert ModelLimits().concurrency == CONCURRENCY_UNKNOWN == 100


def test_a_model_is_found_without_its_vendor() -> None:
    assert limits(None, "deepseek-v4-pro").concurrency == 500


def test_retired_names_know_their_end_and_successor() -> None:
    end = datetime(2026, 7, 24, 15, 59, tzinfo=UTC)
    for name in ("deepseek-chat", "deepseek-reasoner"):
        told = limits("deepseek", name)
        assert (told.retired_at, told.successor, told.rerouted) == (end, "deepseek-flash", False)
        assert told.retired(end)
        assert not told.retired(end - timedelta(seconds=1))
    flash = limits("google", "gemini-2.5-flash")
    assert flash.retired_at == datetime(2026, 12, 1, tzinfo=UTC)
    assert (flash.successor, flash.rerouted) == ("gemini-3.5-flash-lite", True)
    assert not limits("openai", "gpt-4.1").retired(end)


def test_successors_and_aliases_name_models_that_exist() -> None:
    names = {name for _, name in known_models()}
    for told in known_models().values():
        assert told.successor is None or told.successor in names
        assert told.alias_of is None or told.alias_of in names


@pytest.mark.parametrize(
    ("name", "base_url", "key_variable", "prices"),
    [
        ("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", "deepseek"),
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "openai"),
        ("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "anthropic"),
        (
            "gemini",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "GEMINI_API_KEY",
            "google",
        ),
    ],
)
def test_a_provider_needs_nothing_but_its_key(
    *, name: str, base_url: str, key_variable: str, prices: str
) -> None:
    provider = BUILT_IN[name]
    assert (provider.name, provider.base_url, provider.key_variable, provider.prices) == (
        name,
        base_url,
        key_variable,
        prices,
    )
    assert provider.dialect == "openai"
    assert provider.accent == {"deepseek": "deepseek", "openai": "openai"}.get(name)
    assert provider.models


def test_a_provider_offers_no_alias_and_nothing_that_is_gone() -> None:
    assert len(BUILT_IN) == 4
    assert BUILT_IN["deepseek"].models[0] == "deepseek-flash"
    assert "deepseek-chat" not in BUILT_IN["deepseek"].models
    assert "claude-sonnet-4.5" not in BUILT_IN["anthropic"].models
    assert "gemini-2.5-flash" in BUILT_IN["gemini"].models


def test_a_row_is_shown_as_decimal_strings_per_million_tokens() -> None:
    at = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
    row = built_in_book().find(None, "deepseek-flash", at=at)
    assert as_table_row(row, at) == {
        "model": "deepseek-flash",
        "currency": "USD",
        "at": "2026-11-23T02:00:00+00:00",
        "input": "0.30",
        "cached_read": "0.006",
        "cache_write": "0.30",
        "output": "1.20",
        "row": "deepseek/deepseek-flash/2026-09-10/peak/USD",
        "source": "https://api-docs.deepseek.com/quick_start/pricing",
        "checked_on": "2026-11-15",
    }


def test_a_shown_row_says_what_else_should_be_known() -> None:
    book, new_year = built_in_book(), datetime(2027, 1, 1, 2, 0, tzinfo=UTC)
    flash = book.find(None, "deepseek-flash", at=new_year)
    assert as_table_row(flash, new_year)["note"] == (
        "holiday unknown: priced as an ordinary weekday"
    )
    long = book.find(None, "gpt-6-luna", at=new_year, input_tokens=300_000, processing="batch")
    assert as_table_row(long, new_year)["note"] == (
        "for requests above 272,000 input tokens; batch processing"
    )
    moved = book.find(None, "gemini-2.5-flash", at=new_year)
    assert "gemini-3.5-flash-lite" in str(as_table_row(moved, new_year)["note"])


def test_an_own_price_is_shown_without_a_date() -> None:
    at = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
    book = built_in_book().with_own("local/qwen", input="0.15", output="0.60", cached="0.003")
    shown = as_table_row(book.find(None, "local/qwen", at=at), at)
    assert (shown["input"], shown["cached_read"], shown["cache_write"]) == ("0.15", "0.003", "0.15")
    assert shown["checked_on"] is None
    assert shown["source"] == 'settings: [prices."local/qwen"]'
