"""Agents, sync and async: calls, streams, tools, structured output, limits."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from droveway import (
    Agent,
    AsyncAgent,
    BadRequestError,
    DeadlineExceededError,
    Engine,
    LimitExceededError,
    Limits,
    Message,
    Money,
    OutputValidationError,
    StillClock,
    StreamTruncatedError,
    TextDelta,
    ToolError,
    ToolResult,
    UnpricedModelError,
)
from droveway.engine.bounding import bound_of
from droveway.engine.inquiry import Composed
from droveway.sandbox import Rule, Sandbox, Script, running_sandbox
from lab import INSTANT, QUICK, ask, run


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running_sandbox(profile=INSTANT, journal_bodies=True) as box:
        yield box


def body_of(box: Sandbox) -> dict[str, Any]:
    raw = box.journal[-1].body
    assert raw is not None
    decoded: dict[str, Any] = json.loads(raw)
    return decoded


def asynchronous(box: Sandbox, **options: Any) -> AsyncAgent[str]:
    return AsyncAgent(base_url=box.base_url, timeout=QUICK, **options)


def test_a_reply_tells_text_usage_cost_attempts_and_the_whole_conversation(box: Sandbox) -> None:
    async def check() -> None:
        async with asynchronous(box, instructions="Be kind.") as agent:
            reply = await agent.chat("Hello there.")
            assert reply.text == reply.output
            assert reply.finish_reason == "stop"
            assert reply.attempts == 1
            assert reply.cost is not None
            assert [turn.role for turn in reply.messages] == ["system", "user", "assistant"]
            seen = box.journal[-1]
            assert reply.usage.input_total == seen.prompt_tokens
            assert reply.usage.output == seen.completion_tokens
            report = agent.usage_report()
            assert report.total.requests == 1
            assert report.total.cost == reply.cost
            assert list(report.by_model) == ["deepseek-flash"]
            assert report.timestamp.tzinfo is not None

    run(check())


def test_a_system_prompt_keeps_the_whole_history(box: Sandbox) -> None:
    """Ours: such code once sent the first message only."""
    history = [
        Message(role="system", content="old"),
        Message(role="user", content="one"),
        Message(role="assistant", content="two"),
        Message(role="user", content="three"),
    ]

    async def check() -> None:
        async with asynchronous(box) as agent:
            await agent.chat(history, system_prompt="new")

    run(check())
    turns = [(turn["role"], turn["content"]) for turn in body_of(box)["messages"]]
    assert turns == [("system", "new"), ("user", "one"), ("assistant", "two"), ("user", "three")]


def test_a_key_with_stray_spaces_works() -> None:
    with running_sandbox(profile=INSTANT, api_keys={"sk-good"}) as box:
        with Agent(base_url=box.base_url, api_key="  sk-good\n") as agent:
            assert agent.chat("hi").text


def test_streamed_text_is_the_reply_and_the_reply_comes_after_the_end(box: Sandbox) -> None:
    async def check() -> None:
        async with asynchronous(box) as agent:
            async with agent.stream_chat("Say something.") as stream:
                with pytest.raises(BadRequestError, match="read to its end"):
                    stream.reply()
                text = "".join(
                    [event.text async for event in stream if isinstance(event, TextDelta)]
                )
            assert stream.reply().text == text
            assert stream.reply().first_token_ms is not None

    run(check())


def test_leaving_a_stream_early_closes_its_connection_and_is_in_the_report(box: Sandbox) -> None:
    async def check() -> None:
        async with asynchronous(box, model="fault-stall:3") as agent:
            async with agent.stream_chat("hi") as stream:
                await anext(stream)
            report = agent.usage_report()
            assert report.total.requests == 1
            assert report.total.failed == 1
            async with asyncio.timeout(2):
                while box.journal[-1].client_gone_at is None:
                    await asyncio.sleep(0.005)

    run(check())


def test_a_cancelled_chat_closes_its_connection(box: Sandbox) -> None:
    async def check() -> None:
        async with asynchronous(box, model="fault-slow-headers") as agent:
            before = len(box.journal)
            call = asyncio.create_task(agent.chat("hi"))
            async with asyncio.timeout(3):
                while len(box.journal) == before:
                    await asyncio.sleep(0.005)
                call.cancel()
                await asyncio.wait([call])
                assert call.cancelled()
                while box.journal[-1].client_gone_at is None:
                    await asyncio.sleep(0.005)

    run(check())


def test_a_cut_stream_raises_with_the_partial_answer_in_the_sync_agent(box: Sandbox) -> None:
    with Agent(base_url=box.base_url, model="fault-cut-event:9") as agent:
        with pytest.raises(StreamTruncatedError) as caught, agent.stream_chat("hi") as stream:
            text = ""
            for event in stream:
                text += event.text if isinstance(event, TextDelta) else ""
        assert caught.value.partial.text == text


def test_the_sync_agent_works_from_many_threads_and_shares_connections(box: Sandbox) -> None:
    connections = len({seen.connection for seen in box.journal})
    with Agent(base_url=box.base_url) as agent:
        replies: list[str] = []

        def work() -> None:
            replies.extend(agent.chat(f"call {n}").text for n in range(5))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(replies) == 40
        assert agent.usage_report().total.requests == 40
    assert len({seen.connection for seen in box.journal}) - connections <= 8


def test_the_sync_agent_works_inside_a_running_loop(box: Sandbox) -> None:
    """As in a notebook, whose cells run on a loop."""

    async def cell() -> str:
        with Agent(base_url=box.base_url) as agent:
            return agent.chat("hi").text

    assert run(cell())


def test_a_sync_agent_inside_a_tool_says_so_instead_of_waiting_for_itself(box: Sandbox) -> None:
    inner = Agent(base_url=box.base_url)

    async def nested() -> str:
        """Ask another agent."""
        return inner.chat("hi").text

    with Agent(base_url=box.base_url, model="plain", tools=[nested]) as agent:
        reply = agent.chat("Please call nested now.")
    results = [turn.text for turn in reply.messages if turn.role == "tool"]
    assert any("AsyncAgent" in text for text in results)
    inner.close()


# Tools.


def add(first: int, second: int = 1) -> int:
    """Add two numbers.

    Args:
        first: The first number.
        second: The second one.
    """
    return first + second


async def weather(city: str) -> dict[str, str]:
    """Tell the weather of a city."""
    return {"city": city, "sky": "clear"}


def test_tools_become_schemas_from_their_hints_and_docstrings(box: Sandbox) -> None:
    async def check() -> None:
        async with asynchronous(box, model="plain", tools=[add, weather]) as agent:
            await agent.chat("Nothing to do.")

    run(check())
    function = body_of(box)["tools"][0]["function"]
    assert function["name"] == "add"
    assert function["description"] == "Add two numbers."
    assert function["parameters"]["properties"]["first"] == {
        "type": "integer",
        "description": "The first number.",
    }
    assert function["parameters"]["required"] == ["first"]


@pytest.mark.parametrize("model", ["plain", "deepseek-flash"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_parallel_tool_calls_go_round_and_the_answer_quotes_their_results(
    box: Sandbox, model: str, *, stream: bool
) -> None:
    async def check() -> None:
        async with asynchronous(box, model=model, tools=[add, weather]) as agent:
            question = "Use add with 20 and 22, and weather for Oslo."
            if not stream:
                reply = await agent.chat(question)
                results = [turn for turn in reply.messages if turn.role == "tool"]
            else:
                async with agent.stream_chat(question) as events:
                    seen = [event async for event in events]
                reply = events.reply()
                results = [event for event in seen if isinstance(event, ToolResult)]  # type: ignore[misc]
            assert len(results) == 2
            assert reply.attempts == 2
            assert len(reply.request_ids) == 2
            assert (reply.cost is not None) == (model == "deepseek-flash")
            assert agent.usage_report().total.requests == 2

    run(check())
    roles = [turn["role"] for turn in body_of(box)["messages"]]
    assert roles == ["user", "assistant", "tool", "tool"]


def test_reasoning_goes_back_in_a_tool_loop_with_a_thinking_deepseek_model() -> None:
    """Vendor quirk (DeepSeek, 2026-11): without it the next round is a 400."""
    with running_sandbox(profile=INSTANT, journal_bodies=True) as box:
        with Agent(base_url=box.base_url, model="deepseek-flash", tools=[add]) as agent:
            reply = agent.chat("Use add with 1 and 2.")
            assert reply.attempts == 2
            assert body_of(box)["messages"][1]["reasoning_content"]


def test_what_goes_wrong_in_a_tool_goes_back_to_the_model(box: Sandbox) -> None:
    def divide(number: int) -> float:
        """Divide by zero."""
        return number / 0

    async def check() -> None:
        async with asynchronous(box, model="plain", tools=[divide]) as agent:
            reply = await agent.chat("Use divide with 3.")
            (result,) = [turn for turn in reply.messages if turn.role == "tool"]
            assert "ZeroDivisionError" in result.text

    run(check())


def test_tool_rounds_are_capped() -> None:
    async def check() -> None:
        from droveway.agents.output import Output
        from droveway.agents.talk import TOOL_ROUNDS_MAX, Asking, Talk
        from droveway.agents.tools import Toolbox
        from droveway.chat import Answer, ToolCall
        from droveway.clock import StillClock
        from droveway.engine.records import Row

        now = StillClock().now()
        talk = Talk(
            Asking(model="m", temperature=None, max_tokens=None, reasoning_effort=None, extra={}),
            [Message(role="user", content="hi")],
            toolbox=Toolbox([add]),
            output=Output(str),
            started_at=now,
        )
        again = Answer(tool_calls=(ToolCall("1", "add", '{"first": 1}'),))
        row = Row(id="r", at=now, asked="m", outcome="completed")
        for _ in range(TOOL_ROUNDS_MAX):
            assert len(await talk.take(again, row)) == 1
        with pytest.raises(ToolError, match="rounds"):
            await talk.take(again, row)

    run(check())


def _unhinted(number):  # type: ignore[no-untyped-def]
    return number


def _starred(*numbers: int) -> int:
    return sum(numbers)


@pytest.mark.parametrize(
    ("tools", "words"),
    [([_unhinted], "type hint"), ([_starred], "name its parameters"), ([add, add], "same name")],
)
def test_a_function_that_cannot_be_a_tool_is_refused_at_once(tools: Any, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        AsyncAgent(tools=tools)


# Structured output.


@dataclass
class Plain:
    title: str
    score: int


class Struct(msgspec.Struct):
    title: str
    tags: list[str]


class Model(pydantic.BaseModel):
    title: str
    score: int


@pytest.mark.parametrize("kind", [Plain, Struct, Model])
@pytest.mark.parametrize("model", ["plain", "deepseek-flash"])
def test_an_answer_becomes_an_object_of_the_type_asked_for(
    box: Sandbox, kind: type[Any], model: str
) -> None:
    async def check() -> None:
        agent: AsyncAgent[Any] = AsyncAgent(
            base_url=box.base_url, model=model, output_type=kind, timeout=QUICK
        )
        async with agent:
            reply = await agent.chat("Rate this.")
            assert isinstance(reply.output, kind)

    run(check())


def test_an_answer_that_does_not_fit_says_where() -> None:
    script = Script(rules=(Rule(answer='```json\n{"title": 3, "score": 1}\n```'),))
    with running_sandbox(profile=INSTANT, script=script) as box:
        agent = Agent(base_url=box.base_url, output_type=Plain)
        with agent, pytest.raises(OutputValidationError, match="title"):
            agent.chat("Rate this.")


def test_a_code_fence_around_the_json_is_taken_off() -> None:
    script = Script(rules=(Rule(answer='```json\n{"title": "x", "score": 1}\n```'),))
    with running_sandbox(profile=INSTANT, script=script) as box:
        with Agent(base_url=box.base_url, output_type=Plain) as agent:
            assert agent.chat("Rate this.").output == Plain("x", 1)


def test_a_type_without_a_schema_is_refused_at_once() -> None:
    with pytest.raises(BadRequestError, match="output_type"):
        AsyncAgent(output_type=int)


# Limits.


def test_max_requests_counts_every_round(box: Sandbox) -> None:
    async def check() -> None:
        limits = Limits(max_requests=1)
        async with asynchronous(box, model="plain", tools=[add], limits=limits) as agent:
            with pytest.raises(LimitExceededError, match="max_requests"):
                await agent.chat("Use add with 1 and 2.")

    run(check())


def test_max_cost_is_never_passed_by_any_number_of_calls_at_once(box: Sandbox) -> None:
    """Ours: what others check before a call and book after it is passed by those in between."""

    async def check() -> None:
        limit = Money.parse("0.0004", "USD")
        before = len(box.journal)
        async with asynchronous(box, max_tokens=20, limits=Limits(max_cost=limit)) as agent:
            calls = [agent.chat(f"call {n}") for n in range(60)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
            refused = [each for each in ended if isinstance(each, LimitExceededError)]
            others = [
                each
                for each in ended
                if isinstance(each, BaseException) and not isinstance(each, LimitExceededError)
            ]
            assert others == []
            assert refused
            assert len(refused) < 60
            spent = agent.usage_report().total.cost
            assert spent is not None
            assert spent <= limit
            assert len(box.journal) - before == 60 - len(refused)

    run(check())


def test_an_unpriced_model_is_refused_where_money_decides_and_unknown_elsewhere(
    box: Sandbox,
) -> None:
    async def check() -> None:
        async with asynchronous(box, model="nobody-prices-this") as agent:
            reply = await agent.chat("hi")
            assert reply.cost is None
            assert agent.usage_report().total.unpriced == 1
            before = len(box.journal)
            with pytest.raises(UnpricedModelError):
                await agent.chat("hi", limits=Limits(max_cost="1"))
            assert len(box.journal) == before

    run(check())


def test_our_own_cap_is_sent_upstream_when_the_caller_set_none(box: Sandbox) -> None:
    async def check() -> None:
        async with asynchronous(box, limits=Limits(max_cost=Decimal("0.01"))) as agent:
            await agent.chat("hi")
            assert 1_024 <= body_of(box)["max_tokens"] < 10_000
            await agent.chat("hi", limits=Limits(max_requests=9))

    run(check())


def test_a_deadline_ends_a_call_whatever_round_it_is_in(box: Sandbox) -> None:
    async def check() -> None:
        async with asynchronous(
            box, model="fault-slow-headers", limits=Limits(deadline_s=0.2)
        ) as agent:
            with pytest.raises(DeadlineExceededError, match=r"0\.2 s"):
                await agent.chat("hi")

    run(check())


@pytest.mark.parametrize("limits", [{"max_cost": "a"}, {"max_requests": -1}, {"deadline_s": 0}])
def test_limits_that_are_none_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        Limits(**limits)


def test_an_agent_without_a_base_url_runs_on_the_embedded_sandbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DEEPSEEK_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    async def check() -> None:
        async with AsyncAgent(max_tokens=5) as one, AsyncAgent(max_tokens=5) as two:
            first, second = await asyncio.gather(one.chat("hi"), two.chat("ho"))
            assert first.provider == second.provider == "sandbox"

    run(check())


def test_agents_with_one_address_share_one_engine(box: Sandbox) -> None:
    async def check() -> None:
        one, two = asynchronous(box), asynchronous(box)
        async with one, two:
            await asyncio.gather(one.chat("a"), two.chat("b"))
            assert one._the_engine() is two._the_engine()
        other = asynchronous(box, api_key="sk-another")
        async with other, one:
            assert other._the_engine() is not one._the_engine()

    run(check())


def test_a_hold_taken_before_the_peak_covers_a_call_that_starts_within_it(box: Sandbox) -> None:
    """Ours: 08:59 in Beijing on a Monday; at 09:00 DeepSeek's price doubles."""

    async def check() -> None:
        clock = StillClock(datetime(2026, 11, 23, 0, 59, tzinfo=UTC))
        async with Engine.at(box.base_url, clock=clock) as engine:
            request = Composed(ask())
            plan = engine.plan(request.model)
            late = bound_of(engine, request, plan=plan, money_decides=True, within_s=120)
            soon = bound_of(engine, request, plan=plan, money_decides=True, within_s=30)
            assert late is not None
            assert soon is not None
            assert late.output_pico == 2 * soon.output_pico

    run(check())
