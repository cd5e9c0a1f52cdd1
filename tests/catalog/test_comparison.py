"""What a move saves, and what is said about how that was reckoned."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import permutations

import pytest

from droveway.catalog.comparison import Mode, Savings, compare, monthly_savings
from droveway.catalog.pricelists import built_in_book
from droveway.errors import UnpricedModelError

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PEAK = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
MONTH = 50_000_000
# What 50 M tokens cost: all at the output price; 45 M input of which 70% cached, and 5 M output.
FLAT = {
    "gpt-4.1": "400",
    "claude-sonnet-4.5": "750",
    "gemini-2.5-flash": "125",
    "deepseek-chat": "21",
}
SPLIT = {
    "gpt-4.1": "82.75",
    "claude-sonnet-4.5": "135.075",
    "gemini-2.5-flash": "17.495",
    "deepseek-chat": "6.762",
}


def figures(saved: Savings) -> tuple[str, str, str, str]:
    return (
        saved.current_cost.decimal(),
        saved.new_cost.decimal(),
        saved.savings.decimal(),
        str(saved.percent),
    )


def test_the_flat_calculation_gives_the_known_figures() -> None:
    """Spec: 50 M tokens from gpt-4.1 to deepseek-chat, all at the output price."""
    saved = monthly_savings("gpt-4.1", MONTH, mode="flat_output", at=AT)
    assert figures(saved) == ("400.00", "21.00", "379.00", "94.8")
    assert any("retired on 2026-07-24" in note for note in saved.notes)
    assert "output price" in saved.assumptions
    assert saved.mode == "flat_output"
    assert saved.new_row.id == "deepseek/deepseek-chat/undated/standard/USD"


@pytest.mark.parametrize("mode", ["split", "flat_output"])
@pytest.mark.parametrize(("current", "new"), list(permutations(FLAT, 2)))
def test_each_pair_is_reckoned_both_ways(current: str, new: str, mode: Mode) -> None:
    """Spec: list prices; totals by hand."""
    saved = monthly_savings(current, MONTH, new, mode=mode, at=AT)
    costs = FLAT if mode == "flat_output" else SPLIT
    before, after = Decimal(costs[current]), Decimal(costs[new])
    assert Decimal(saved.current_cost.decimal()) == before
    assert Decimal(saved.new_cost.decimal()) == after
    assert Decimal(saved.savings.decimal()) == before - after
    assert saved.percent == ((before - after) / before * 100).quantize(Decimal("0.1"))
    assert (saved.current_row.model, saved.new_row.model) == (current, new)
    assert any("retired" in note for note in saved.notes) is ("deepseek-chat" in (current, new))


def test_split_is_the_default_and_says_what_it_assumes() -> None:
    saved = monthly_savings("gpt-4.1", MONTH, "deepseek-flash", at=AT)
    assert saved.mode == "split"
    assert saved.assumptions.startswith("90% input, 70% of it read from the cache")
    assert saved.current_cost.decimal() == "82.75"
    assert saved.new_cost.decimal() == "5.1195"
    assert any("off-peak" in note for note in saved.notes)
    assert any("thinks" in note for note in saved.notes)


def test_the_hour_decides_what_deepseek_costs() -> None:
    saved = monthly_savings("gpt-4.1", MONTH, "deepseek-v4-pro", at=PEAK)
    assert saved.new_cost.decimal() == "39.006"
    assert any("this is its peak price" in note for note in saved.notes)


def test_thinking_is_no_news_between_two_that_think() -> None:
    saved = monthly_savings("deepseek-v4-pro", MONTH, "deepseek-flash", at=AT)
    assert not any("thinks" in note for note in saved.notes)


def test_a_name_that_was_not_retired_yet_has_no_such_note() -> None:
    before = datetime(2026, 7, 1, 12, tzinfo=UTC)
    saved = monthly_savings("gpt-4.1", MONTH, mode="flat_output", at=before)
    assert saved.new_cost.decimal() == "21.00"
    assert not any("retired" in note for note in saved.notes)


def test_dearer_is_a_negative_saving() -> None:
    saved = monthly_savings("gemini-2.5-flash", MONTH, "gpt-4.1", mode="flat_output", at=AT)
    assert figures(saved) == ("125.00", "400.00", "-275.00", "-220.0")


def test_nothing_saves_nothing() -> None:
    modes: tuple[Mode, ...] = ("split", "flat_output")
    for mode in modes:
        saved = monthly_savings("gpt-4.1", 0, mode=mode, at=AT)
        assert figures(saved) == ("0.00", "0.00", "0.00", "0.0")


@pytest.mark.parametrize("tokens", [1, 7, 99, 101])
def test_no_token_is_lost_in_the_split(tokens: int) -> None:
    """Ours: at equal prices for every class, a month costs its tokens."""
    book = built_in_book().with_own("flat/rate", input="1", output="1")
    saved = monthly_savings("flat/rate", tokens, "flat/rate", at=AT, book=book)
    assert saved.current_cost.nano == tokens * 1000
    assert saved.savings.nano == 0


@pytest.mark.parametrize("unknown", ["gpt-4", "claude-sonnet", "deepseek"])
def test_an_unknown_model_is_refused_with_near_names(unknown: str) -> None:
    for pair in ((unknown, "gpt-4.1"), ("gpt-4.1", unknown)):
        with pytest.raises(UnpricedModelError, match="did you mean"):
            monthly_savings(pair[0], MONTH, pair[1], at=AT)


def test_a_retired_name_without_a_last_price_is_refused() -> None:
    with pytest.raises(UnpricedModelError):
        monthly_savings("gpt-4.1", MONTH, "deepseek-reasoner", at=AT)


@pytest.mark.parametrize("tokens", [-1, 1.5, "50", True, None])
def test_tokens_are_a_whole_number(tokens: object) -> None:
    with pytest.raises(ValueError, match="whole number"):
        monthly_savings("gpt-4.1", tokens, at=AT)  # type: ignore[arg-type]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="flat_output"):
        monthly_savings("gpt-4.1", 1, at=AT, mode="guess")  # type: ignore[arg-type]


def test_a_comparison_prices_the_same_tokens_twice() -> None:
    compared = compare(
        built_in_book(),
        from_model="gpt-4.1",
        to_model="deepseek-flash",
        input_tokens=3_000_000,
        cached_tokens=2_000_000,
        output_tokens=500_000,
        at=PEAK,
    )
    assert compared.from_cost.decimal() == "7.00"
    assert compared.to_cost.decimal() == "0.912"
    assert compared.difference.decimal() == "6.088"
    assert compared.percent == Decimal("87.0")
    assert compared.from_row.id == "openai/gpt-4.1/undated/standard/USD"
    assert compared.to_row.id == "deepseek/deepseek-flash/2026-09-10/peak/USD"


def test_a_comparison_in_yuan_uses_the_lists_in_yuan() -> None:
    compared = compare(
        built_in_book(),
        from_model="deepseek-v4-pro",
        to_model="deepseek-flash",
        input_tokens=1_000_000,
        cached_tokens=0,
        output_tokens=0,
        at=AT,
        currency="CNY",
    )
    assert str(compared.difference) == "3.50 CNY"


@pytest.mark.parametrize(
    ("inputs", "cached", "written", "output"),
    [(1, 2, 0, 0), (1, 1, 1, 0), (1, -1, 0, 0), (0, 0, 0, -1)],
)
def test_counts_that_cannot_be_are_refused(
    *, inputs: int, cached: int, written: int, output: int
) -> None:
    with pytest.raises(ValueError, match="part of the input"):
        compare(
            built_in_book(),
            from_model="gpt-4.1",
            to_model="gpt-4.1",
            input_tokens=inputs,
            cached_tokens=cached,
            cache_write_tokens=written,
            output_tokens=output,
            at=AT,
        )
