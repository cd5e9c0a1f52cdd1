"""The two functions that need no agent: which model, and what moving saves."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

import droveway
from droveway import BadRequestError, Money, UnpricedModelError, monthly_savings, route_to_model
from droveway.agents.turns import conversation_of
from droveway.settings import RoutingSettings, Settings

TIERS = Settings(routing=RoutingSettings(simple="s", moderate="m", complex="c"))
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_auto_is_moderate_or_complex_by_length_and_by_three_of_four_words() -> None:
    assert route_to_model("Hello.", settings=TIERS) == "m"
    assert route_to_model("a" * 2_000, settings=TIERS) == "m"
    assert route_to_model("a" * 2_001, settings=TIERS) == "c"
    assert route_to_model("Analyze, analyze, compare.", settings=TIERS) == "m"
    assert route_to_model("Analyze, compare, evaluate.", settings=TIERS) == "c"
    parts = [{"role": "user", "content": [{"type": "text", "text": "a" * 2_001}]}]
    assert route_to_model(parts, settings=TIERS) == "c"
    assert route_to_model("Hello.", "simple", settings=TIERS) == "s"
    assert route_to_model("Hello.") == "deepseek-flash"
    with pytest.raises(BadRequestError, match="complexity"):
        route_to_model("Hello.", "hard")


def test_the_flat_saving_of_fifty_million_tokens_is_exact() -> None:
    saved = monthly_savings("gpt-4.1", 50_000_000, mode="flat_output", at=AT)
    assert (saved.current_cost, saved.new_cost, saved.savings) == tuple(
        Money.parse(amount, "USD") for amount in ("400.00", "21.00", "379.00")
    )
    assert saved.percent == Decimal("94.8")
    assert any("retired" in note for note in saved.notes)
    split = monthly_savings("gpt-4.1", 50_000_000, "deepseek-flash", at=AT)
    assert split.assumptions
    with pytest.raises(UnpricedModelError):
        monthly_savings("gpt-4.1", 1, "deepseek-chatt", at=AT)
    assert monthly_savings("gpt-4.1", 1_000, "deepseek-flash").mode == "split"


def test_dicts_as_the_openai_sdk_takes_them_are_messages() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = conversation_of(
        [
            {"role": "user", "content": "a", "cache_control": {"type": "ephemeral"}},
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "r"},
            {"role": "tool", "content": "b", "tool_call_id": "1"},
        ],
        "system",
    )
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "tool"]
    assert turns[1].extra == {"cache_control": {"type": "ephemeral"}}
    assert turns[2].tool_calls[0].name == "f"
    assert turns[2].reasoning == "r"


@pytest.mark.parametrize(
    "message",
    [None, 3, [], [3], [{"content": "no role"}], [{"role": "boss", "content": "x"}],
     [{"role": "assistant", "tool_calls": [{"id": "1"}]}], {"role": "user"}],
)  # fmt: skip
def test_what_is_no_conversation_is_told_in_one_line(message: object) -> None:
    with pytest.raises(BadRequestError) as caught:
        conversation_of(message, None)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 5},
        {"retry": 3},
        {"limits": {"max_cost": "1"}},
        {"model": ["a"]},
        {"extra": {"stream": True}},
        {"api_key": "sk-x"},
        {"output_type": None},
        {"output_type": "text"},
    ],
)
def test_a_plain_mistake_is_a_plain_error_when_it_is_made(options: dict[str, object]) -> None:
    with pytest.raises(BadRequestError):
        droveway.Agent(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [1, 1.5, Decimal(1), None])
def test_money_and_numbers_do_not_mix(wrong: object) -> None:
    amount = Money.parse("1", "USD")
    with pytest.raises(TypeError):
        amount + wrong  # type: ignore[operator]
    with pytest.raises(TypeError):
        assert amount < wrong  # type: ignore[operator]
    assert sum([amount, amount], Money.zero("USD")) == Money.parse("2", "USD")
