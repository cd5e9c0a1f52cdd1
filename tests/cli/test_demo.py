"""`droveway demo`: the main job, small."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import Result

from droveway.agents.roles import built_in_roles
from droveway.catalog.pricelists import built_in_book
from droveway.chat import Usage
from droveway.cli.demo import demo_tasks
from droveway.cli.demo_provider import misbehaving
from droveway.cli.same_tokens import both_sides, elsewhere
from droveway.clock import SystemClock

Call = Callable[..., Result]


def test_there_are_enough_tasks_and_each_role_has_its_share_in_turn() -> None:
    tasks = demo_tasks()
    assert len(tasks) >= 170
    assert [task.role for task in tasks[:17]] == list(built_in_roles())
    assert {task.role for task in tasks[17:34]} == set(built_in_roles())


def test_the_demo_ends_with_an_outcome_for_every_task_and_the_bill(droveway: Call) -> None:
    shown = droveway("demo", "--tasks", "34", "--json", "demo.json")
    assert shown.exit_code == 0
    told = json.loads(Path("demo.json").read_text())
    roles, totals = told["roles"], told["totals"]
    assert [role["role"] for role in roles] == list(built_in_roles())
    assert totals["tasks"] == sum(role["tasks"] for role in roles) == 34
    assert totals["ok"] + totals["failed"] == 34
    assert totals["ok_at_first_asking"] <= totals["ok"]
    assert Decimal(totals["cost"]) == sum(Decimal(role["cost"]) for role in roles)
    assert {"cached_read", "input", "output", "reasoning"} <= set(totals["tokens"])
    assert sum(fault["times"] for fault in totals["faults"]) > 0
    models = {(each["model"], each["hours"]) for each in totals["same_tokens_on"]}
    assert {("gpt-4.1", None), ("deepseek-flash", "peak"), ("deepseek-flash", "off-peak")} <= models
    assert all(role["role"] in shown.stdout for role in roles)
    assert max(map(len, shown.stdout.splitlines())) <= 100


def test_without_faults_every_task_is_answered_at_once(droveway: Call) -> None:
    shown = droveway("demo", "--tasks", "17", "--no-faults", "--json", "demo.json")
    assert shown.exit_code == 0
    totals = json.loads(Path("demo.json").read_text())["totals"]
    assert (totals["ok"], totals["failed"], totals["asked_again"]) == (17, 0, 0)
    assert totals["attempts"] == totals["requests"]
    assert totals["faults"] == []
    assert totals["success_rate"] == 1.0


def test_live_without_a_key_says_which_to_set(droveway: Call) -> None:
    shown = droveway("demo", "--live")
    assert shown.exit_code == 2
    assert "DEEPSEEK_API_KEY" in shown.stderr


def test_every_misdeed_is_one_the_sandbox_knows() -> None:
    """A rule with an unknown fault is refused when it is made."""
    assert misbehaving(1, faults=True) is not None


def test_the_same_tokens_elsewhere_are_priced_by_the_book() -> None:
    """spec: one million tokens in and out are the list prices themselves."""
    at = SystemClock().now()
    million = Usage(input=1_000_000, output=1_000_000)
    costs = {(each.model, each.hours): each.cost.decimal() for each in
             elsewhere(million, built_in_book(), at=at)}  # fmt: skip
    assert costs["gpt-4.1", None] == "10.00"
    assert costs["claude-sonnet-4.5", None] == "18.00"
    assert costs["deepseek-flash", "peak"] == "1.50"
    assert costs["deepseek-flash", "off-peak"] == "0.75"
    assert len(both_sides(built_in_book(), "deepseek-flash", at=at)) == 2


@pytest.mark.parametrize("place", ["/dev/full", "."])
def test_an_account_that_cannot_be_written_is_told(place: str, droveway: Call) -> None:
    shown = droveway("demo", "--tasks", "1", "--no-faults", "--json", place)
    assert shown.exit_code in {1, 2}
    assert shown.stderr.splitlines()[-1].startswith("error: ")
