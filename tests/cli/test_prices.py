"""`droveway prices`: for people and for programs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Call = Callable[..., Result]

PEAK = "2026-11-23T10:00:00+08:00"
OFF_PEAK = "2026-11-23T13:00:00+08:00"
KEYS = ["model", "currency", "at", "input", "cached_read", "cache_write", "output", "row", "source"]


@pytest.mark.parametrize(
    ("at", "prices"), [(PEAK, ("0.30", "0.006", "1.20")), (OFF_PEAK, ("0.15", "0.003", "0.60"))]
)
def test_show_gives_the_row_in_force_only(at: str, prices: tuple[str, ...], droveway: Call) -> None:
    """Vendor list 2026-11-15."""
    shown = droveway("prices", "show", "deepseek-flash", "--at", at, "--json")
    told = json.loads(shown.stdout)
    assert list(told)[:10] == [*KEYS, "checked_on"]
    assert (told["input"], told["cached_read"], told["output"]) == prices


def test_a_moment_without_a_zone_is_utc(droveway: Call) -> None:
    told = droveway("prices", "show", "deepseek-flash", "--at", "2026-11-23T02:00:00", "--json")
    assert json.loads(told.stdout)["row"].endswith("/peak/USD")


def test_show_says_where_the_calendar_ends(droveway: Call) -> None:
    shown = droveway("prices", "show", "deepseek-flash", "--at", "2029-11-23T10:00:00+08:00")
    assert "holiday unknown" in shown.stdout


def test_a_retired_name_is_refused_with_its_date_and_successor(droveway: Call) -> None:
    shown = droveway("prices", "show", "deepseek-chat", "--at", PEAK)
    assert shown.exit_code == 1
    assert "2026-07-24" in shown.stderr
    assert "'deepseek-flash'" in shown.stderr


def test_an_unknown_model_is_refused_and_never_priced_as_another(droveway: Call) -> None:
    shown = droveway("prices", "show", "deepseek-flsh")
    assert shown.exit_code == 1
    assert shown.stdout == ""
    assert "did you mean 'deepseek-flash'" in shown.stderr


def test_yuan_is_a_list_of_its_own(droveway: Call) -> None:
    shown = droveway(
        "prices", "show", "deepseek-flash", "--currency", "cny", "--at", PEAK, "--json"
    )
    assert json.loads(shown.stdout)["currency"] == "CNY"


def test_list_has_every_row_in_force(droveway: Call) -> None:
    told = json.loads(droveway("prices", "list", "--at", PEAK, "--json").stdout)
    models = {row["model"] for row in told}
    assert {"gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash", "deepseek-flash"} <= models
    assert "deepseek-chat" not in models
    text = droveway("prices", "list", "--at", PEAK).stdout
    assert all(model in text for model in models)
    assert max(map(len, text.splitlines())) <= 100


def test_own_prices_come_from_the_settings(droveway: Call) -> None:
    Path("own.toml").write_text('[prices."local/qwen"]\ninput = "0.15"\noutput = "0.60"\n')
    shown = droveway("prices", "show", "local/qwen", "--config", "own.toml", "--json")
    assert json.loads(shown.stdout)["output"] == "0.60"


def test_compare_prices_the_same_tokens_exactly(droveway: Call) -> None:
    """ours: 5 M fresh, 4 M cached and 1 M output tokens, by hand."""
    line = "prices compare --from gpt-4.1 --to deepseek-flash --input 9000000 --cached 4000000"
    shown = droveway(*line.split(), "--output", "1_000_000", "--at", OFF_PEAK, "--json")
    told = json.loads(shown.stdout)
    assert told["from"]["cost"] == "20.00"
    assert told["to"]["cost"] == "1.362"
    assert (told["difference"], told["percent"]) == ("18.638", "93.2")
    assert told["tokens"] == {"input": 9_000_000, "cached": 4_000_000, "output": 1_000_000}
    text = droveway(*line.split(), "--output", "1000000", "--at", OFF_PEAK).stdout
    assert "18.638" in text
    assert "off-peak" in text


def test_flat_savings_are_those_of_the_issue(droveway: Call) -> None:
    """spec: 50 M tokens, gpt-4.1 to V3.2's deepseek-chat."""
    line = "prices savings gpt-4.1 deepseek-chat --tokens 50000000 --mode flat_output"
    told = json.loads(droveway(*line.split(), "--json").stdout)
    costs = [told[key] for key in ("current_cost", "new_cost", "savings", "percent")]
    assert costs == ["400.00", "21.00", "379.00", "94.8"]
    text = droveway(*line.split()).stdout
    assert "retired" in text
    assert "94.8 %" in text


def test_split_savings_say_what_they_assume(droveway: Call) -> None:
    shown = droveway("prices", "savings", "gpt-4.1", "deepseek-flash", "--tokens", "1000000")
    assert "90% input" in " ".join(shown.stdout.split())
