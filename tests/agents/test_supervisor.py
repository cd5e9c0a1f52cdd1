"""The supervisor: one outcome for each role, whatever happens to any of them."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from droveway import (
    AgentSupervisor,
    BadRequestError,
    Limits,
    Outcome,
    RetryPolicy,
    Role,
    SettingsError,
    Task,
    TextDelta,
    Timeout,
    UnknownRoleError,
)
from droveway.agents.roles import built_in_roles, load_roles, relevant_roles
from droveway.sandbox import Rule, Sandbox, Script, running_sandbox
from lab import INSTANT, QUICK, run

NAMES = [
    "customer_support", "technical_writer", "code_reviewer", "data_analyst",
    "marketing_copywriter", "qa_tester", "devops_engineer", "product_manager",
    "security_auditor", "ux_researcher", "seo_specialist", "legal_review",
    "financial_analyst", "hr_assistant", "sales_agent", "content_curator", "api_integrator",
]  # fmt: skip
ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running_sandbox(profile=INSTANT) as box:
        yield box


def roles(**models: str) -> dict[str, Role]:
    return {
        name: Role(title=name, instructions=f"You are {name}.", model=model)
        for name, model in models.items()
    }


def supervisor(box: Sandbox, given: dict[str, Role] | None = None, **more: Any) -> AgentSupervisor:
    options = {"timeout": QUICK, "retry": ONCE, "model": "deepseek-flash", **more}
    return AgentSupervisor(given, base_url=box.base_url, **options)


def test_the_seventeen_roles_are_there_in_their_order() -> None:
    assert list(built_in_roles()) == NAMES


def test_a_query_goes_to_three_roles_by_default_and_to_those_it_is_for() -> None:
    chosen = relevant_roles("Please review this pull request and its unit tests", built_in_roles())
    assert len(chosen) == 3
    assert "code_reviewer" in chosen


def test_every_role_has_an_outcome_in_the_order_it_was_named(box: Sandbox) -> None:
    async def check() -> None:
        async with supervisor(box) as sup:
            asked = list(reversed(NAMES))
            result = await sup.route_request("What do you do?", asked)
            assert list(result.outcomes) == asked
            assert len(result.ok) == 17
            assert result.total.requests == 17
            assert result.total.cost == sum_cost(result.outcomes.values())
            report = sup.usage_report()
            assert report.total == result.total
            assert set(report.by_role) == set(NAMES)

    run(check())


def sum_cost(outcomes: Any) -> Any:
    costs = [outcome.spending.cost for outcome in outcomes]
    total = costs[0]
    for cost in costs[1:]:
        total += cost
    return total


def test_an_unknown_role_fails_by_name_before_anything_is_sent(box: Sandbox) -> None:
    async def check() -> None:
        before = len(box.journal)
        async with supervisor(box) as sup:
            with pytest.raises(UnknownRoleError, match="'cook'"):
                await sup.route_request("hi", ["legal_review", "cook"])
            with pytest.raises(UnknownRoleError, match="'cook'"):
                sup.stream("hi", ["cook"])
            with pytest.raises(BadRequestError, match="empty"):
                await sup.route_request("hi", [])
        assert len(box.journal) == before

    run(check())


def test_one_failure_never_kills_the_others(box: Sandbox) -> None:
    given = roles(good="plain", broken="fault-500", cut="fault-cut-event:2", mute="fault-stall:0")

    async def check() -> None:
        async with supervisor(box, given) as sup:
            result = await sup.route_request("hi", list(given))
            statuses = {role: outcome.status for role, outcome in result.outcomes.items()}
            assert statuses == {"good": "ok", "broken": "failed", "cut": "failed", "mute": "failed"}
            assert result.outcomes["good"].reply is not None
            assert result.outcomes["broken"].error is not None
            assert [outcome.role for outcome in result.not_ok] == ["broken", "cut", "mute"]

    run(check())


def test_fail_fast_stops_the_rest_at_the_first_failure(box: Sandbox) -> None:
    given = roles(slow="fault-slow-headers", broken="fault-500", late="plain")
    patient = Timeout(connect_s=2, first_token_s=20, idle_s=20, total_s=20)

    async def check() -> None:
        async with supervisor(box, given, timeout=patient) as sup:
            result = await sup.route_request("hi", list(given), on_error="fail_fast", concurrency=2)
            statuses = [outcome.status for outcome in result.outcomes.values()]
            assert statuses[:2] == ["cancelled", "failed"]
            assert statuses[2] in {"skipped", "cancelled"}

    run(check())


def test_a_quorum_stops_the_rest_when_enough_have_answered_or_cannot(box: Sandbox) -> None:
    patient = Timeout(connect_s=2, first_token_s=20, idle_s=20, total_s=20)

    async def check() -> None:
        given = roles(one="plain", two="plain", slow="fault-slow-headers")
        async with supervisor(box, given, timeout=patient) as sup:
            result = await sup.route_request("hi", list(given), on_error="quorum", quorum=2)
            assert [outcome.status for outcome in result.outcomes.values()] == [
                "ok",
                "ok",
                "cancelled",
            ]
        given = roles(one="fault-500", two="fault-500", slow="fault-slow-headers")
        async with supervisor(box, given, timeout=patient) as sup:
            result = await sup.route_request("hi", list(given), on_error="quorum", quorum=2)
            assert [outcome.status for outcome in result.outcomes.values()] == [
                "failed",
                "failed",
                "cancelled",
            ]

    run(check())


def test_streams_are_interleaved_tagged_and_numbered_without_gaps(box: Sandbox) -> None:
    async def check() -> None:
        given = roles(one="fault-slow-tokens:0.005", two="fault-slow-tokens:0.005", bad="fault-500")
        async with supervisor(box, given) as sup:
            async with sup.stream("hi", list(given)) as stream:
                events = [event async for event in stream]
            result = stream.result()
        by_role: dict[str, list[Any]] = {name: [] for name in given}
        for event in events:
            by_role[event.role].append(event)
        for role, own in by_role.items():
            assert [event.sequence for event in own] == list(range(len(own)))
            assert isinstance(own[-1].event, Outcome)
            assert own[-1].event == result.outcomes[role]
        order = [event.role for event in events if isinstance(event.event, TextDelta)]
        turns = sum(first != second for first, second in pairwise(order))
        assert turns > 4, "two streams of equal pace must be interleaved"

    run(check())


def test_leaving_a_stream_of_roles_early_stops_all_of_them(box: Sandbox) -> None:
    async def check() -> None:
        given = roles(one="fault-stall:3", two="fault-stall:3")
        async with supervisor(box, given) as sup:
            async with sup.stream("hi", list(given)) as stream:
                async for _ in stream:
                    break
            assert sup.usage_report().total.requests == 2
            async with asyncio.timeout(2):
                while any(seen.client_gone_at is None for seen in box.journal[-2:]):
                    await asyncio.sleep(0.005)

    run(check())


def test_a_cancelled_supervisor_call_stops_its_roles(box: Sandbox) -> None:
    async def check() -> None:
        given = roles(one="fault-slow-headers", two="fault-slow-headers")
        async with supervisor(box, given) as sup:
            call = asyncio.create_task(sup.route_request("hi", list(given)))
            before = len(box.journal)
            while len(box.journal) < before + 2:
                await asyncio.sleep(0.005)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled()
            assert sup.usage_report().total.requests == 2

    run(check())


def test_a_budget_of_the_supervisor_binds_all_roles_together(box: Sandbox) -> None:
    async def check() -> None:
        limits = Limits(max_cost="0.0003")
        async with supervisor(box, limits=limits, max_tokens=20) as sup:
            result = await sup.route_request("hi", NAMES)
            statuses = {outcome.status for outcome in result.outcomes.values()}
            assert "skipped" in statuses
            assert result.total.cost is None or result.total.cost <= limits.cost()  # type: ignore[operator]

    run(check())


# Workflows.


def test_tasks_without_a_role_go_round_and_every_task_has_a_result(box: Sandbox) -> None:
    async def check() -> None:
        async with supervisor(box) as sup:
            tasks = [Task(id=str(n), query=f"task {n}") for n in range(40)]
            flow = sup.run_parallel_workflow(tasks, concurrency=8)
            results = [result async for result in flow]
        assert sorted(int(result.task.id) for result in results) == list(range(40))
        assert {result.outcome.status for result in results} == {"ok"}
        assert {result.outcome.role for result in results} == set(NAMES)
        assert flow.spending.requests == 40

    run(check())


def test_turns_are_one_conversation(box: Sandbox) -> None:
    async def check() -> None:
        async with supervisor(box) as sup:
            task = Task(id="1", role="data_analyst", turns=("First.", "Second.", "Third."))
            (result,) = [each async for each in sup.run_parallel_workflow([task])]
            assert len(result.outcome.replies) == 3
            conversation = [turn.role for turn in result.outcome.replies[-1].messages]
            assert conversation == ["system", *["user", "assistant"] * 3]

    run(check())


def test_never_more_tasks_at_once_than_concurrency() -> None:
    with running_sandbox(profile=INSTANT) as box:

        async def check() -> None:
            async with supervisor(box) as sup:
                tasks = [Task(id=str(n), query="hi") for n in range(30)]
                async for _ in sup.run_parallel_workflow(tasks, concurrency=3):
                    pass

        run(check())
        moments = [
            moment
            for seen in box.journal
            for moment in ((seen.began_at, 1), (seen.ended_at or 0, -1))
        ]
        most = now = 0
        for _, step in sorted(moments):
            now += step
            most = max(most, now)
        assert most <= 3


def test_leaving_a_workflow_early_stops_what_is_on_its_way() -> None:
    script = Script(rules=(Rule(contains="slow", fault="slow-headers"),))
    with running_sandbox(profile=INSTANT, script=script) as box:

        async def check() -> None:
            async with supervisor(box) as sup:
                tasks = [Task(id="fast", query="hi"), Task(id="late", query="slow")]
                async with asyncio.timeout(5):
                    flow = sup.run_parallel_workflow(tasks, concurrency=2)
                    iterator = aiter(flow)
                    first = await anext(iterator)
                    await iterator.aclose()  # type: ignore[attr-defined]
                assert first.task.id == "fast"
                assert sup.usage_report().total.requests == 2

        run(check())


@pytest.mark.parametrize("fields", [{}, {"query": "a", "turns": ("b",)}, {"query": ""}])
def test_a_task_has_exactly_one_kind_of_content(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="exactly one"):
        Task(id="x", **fields)


def test_users_replace_and_add_roles(tmp_path: Path) -> None:
    file = tmp_path / "roles.toml"
    file.write_text(
        '[roles.cook]\ntitle = "Cook"\ninstructions = "Cook."\n'
        '[roles.legal_review]\ntitle = "Ours"\ninstructions = "Other."\n',
        encoding="utf-8",
    )
    loaded = load_roles(file)
    assert len(loaded) == 18
    assert loaded["legal_review"].instructions == "Other."
    file.write_text("[roles.cook]\ntitle = 3\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="cannot be used"):
        load_roles(file)
