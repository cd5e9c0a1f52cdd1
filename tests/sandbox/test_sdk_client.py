"""These tests know how the sandbox looks to the official OpenAI SDK."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from droveway.sandbox import Profile, Sandbox, running_sandbox

INSTANT = Profile(instant=True)
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
        },
    },
}


@contextmanager
def client_of(box: Sandbox, key: str = "key") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=box.base_url, api_key=key, max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running_sandbox(profile=INSTANT, journal_bodies=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(box: Sandbox) -> Iterator[openai.OpenAI]:
    with client_of(box) as made:
        yield made


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_an_answer_speaks_of_the_question_and_is_counted(box: Sandbox, client: Any) -> None:
    answer = client.chat.completions.create(model="m", messages=user("Explain the harbour crane"))
    said = answer.choices[0]
    assert "harbour" in said.message.content
    assert said.finish_reason == "stop"
    seen = box.journal[-1]
    assert answer.id == seen.id
    assert answer.usage.prompt_tokens == seen.prompt_tokens > 0
    assert answer.usage.completion_tokens == seen.completion_tokens == seen.tokens_sent
    assert answer.usage.total_tokens == seen.prompt_tokens + seen.completion_tokens
    assert seen.body is not None
    assert json.loads(seen.body)["model"] == "m"
    assert "authorization" not in seen.headers


def test_a_chinese_question_has_a_chinese_answer(client: Any) -> None:
    answer = client.chat.completions.create(model="m", messages=user("请解释提示缓存的成本"))
    text = answer.choices[0].message.content
    assert sum("\u4e00" <= sign <= "\u9fff" for sign in text) > len(text) / 2


def test_a_stream_says_what_the_whole_answer_says(box: Sandbox, client: Any) -> None:
    asked = {"model": "deepseek-flash", "messages": user("Explain the harbour crane")}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    *with_choices, last = chunks
    deltas = [chunk.choices[0].delta for chunk in with_choices]
    assert deltas[0].role == "assistant"
    text = "".join(delta.content or "" for delta in deltas)
    thoughts = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert text == whole.choices[0].message.content
    assert thoughts == whole.choices[0].message.reasoning_content
    assert with_choices[-1].choices[0].finish_reason == "stop"
    assert (last.choices, last.usage.completion_tokens) == ([], whole.usage.completion_tokens)
    assert last.usage.completion_tokens_details.reasoning_tokens == box.journal[-1].reasoning_tokens
    assert box.journal[-1].events_sent == len(chunks) + 1  # [DONE]


def test_a_stream_tells_no_usage_unless_asked(client: Any) -> None:
    chunks = list(client.chat.completions.create(model="m", messages=user("hello"), stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("cap", [1, 2, 7, 40])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_cap_cuts_the_answer(client: Any, cap: int, name: str) -> None:
    messages = user("Call add with 1 and 2, and call get_weather for Rome")
    for more in ({}, {"tools": [ADD, WEATHER]}):
        answer = client.chat.completions.create(
            model="deepseek-flash", messages=messages, **{name: cap}, **more
        )
        assert answer.usage.completion_tokens <= cap
        assert answer.choices[0].finish_reason == "length"


def test_thinking_can_be_switched_off(client: Any) -> None:
    off = {"thinking": {"type": "disabled"}}
    answer = client.chat.completions.create(
        model="deepseek-flash", messages=user("hello"), extra_body=off
    )
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0
    assert not hasattr(answer.choices[0].message, "reasoning_content")


def test_a_tool_round_trip_quotes_the_results(client: Any) -> None:
    messages = user("Use add on 17 and 25, then get_weather for Paris in celsius")
    tools = [WEATHER, ADD]
    first = client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0]
    assert (first.finish_reason, first.message.content) == ("tool_calls", None)
    calls = first.message.tool_calls
    assert [call.function.name for call in calls] == ["add", "get_weather"]
    assert json.loads(calls[0].function.arguments) == {"a": 17, "b": 25}
    assert json.loads(calls[1].function.arguments) == {"city": "Paris", "unit": "celsius"}
    messages.append(first.message.model_dump(exclude_none=True))
    for call, result in zip(calls, ("42", "sunny"), strict=True):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    second = client.chat.completions.create(model="m", messages=messages, tools=tools).choices[0]
    assert second.finish_reason == "stop"
    assert second.message.content.startswith("The tools say: 42; sunny.")


def test_streamed_tool_calls_come_in_pieces(client: Any) -> None:
    asked: dict[str, Any] = {
        "model": "m",
        "messages": user("Use add on 17 and 25, then get_weather for Paris"),
        "tools": [WEATHER, ADD],
    }
    whole = client.chat.completions.create(**asked).choices[0].message.tool_calls
    joined: dict[int, dict[str, str]] = {}
    pieces = 0
    for chunk in client.chat.completions.create(**asked, stream=True):
        for call in chunk.choices[0].delta.tool_calls or ():
            pieces += 1
            entry = joined.setdefault(call.index, {"arguments": ""})
            if call.id:
                entry |= {"id": call.id, "name": call.function.name}
            entry["arguments"] += call.function.arguments or ""
    assert pieces > 4
    assert [joined[i] for i in range(2)] == [
        {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
        for call in whole
    ]


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("required", "add"),
        ({"type": "function", "function": {"name": "get_weather"}}, "get_weather"),
        ("none", None),
        ("auto", None),
    ],
)
def test_tool_choice_is_obeyed(client: Any, choice: Any, called: str | None) -> None:
    answer = client.chat.completions.create(
        model="m", messages=user("hello there"), tools=[ADD, WEATHER], tool_choice=choice
    )
    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ([called] if called else [])


class Step(BaseModel):
    what: str
    minutes: int


class Plan(BaseModel):
    title: str
    steps: list[Step]
    after: "Plan | None"


def test_an_output_schema_is_fitted(client: Any) -> None:
    """ours: nested, recursive and nullable, as pydantic writes it."""
    answer = client.chat.completions.parse(
        model="m", messages=user("Plan 3 trips to Rome"), response_format=Plan
    )
    plan = answer.choices[0].message.parsed
    assert plan.title == "Rome"
    assert plan.steps[0].minutes == 3


def test_json_object_is_json(client: Any) -> None:
    answer = client.chat.completions.create(
        model="m", messages=user("hello"), response_format={"type": "json_object"}
    )
    assert json.loads(answer.choices[0].message.content)["answer"]


def test_deepseek_refuses_a_forced_tool_while_thinking(client: Any) -> None:
    """Vendor quirk (2026-06)."""
    for choice in ("required", {"type": "function", "function": {"name": "add"}}):
        asked: dict[str, Any] = {"messages": user("hi"), "tools": [ADD], "tool_choice": choice}
        with pytest.raises(openai.BadRequestError, match="does not support this tool_choice"):
            client.chat.completions.create(model="deepseek-flash", **asked)
        off = {"thinking": {"type": "disabled"}}
        client.chat.completions.create(model="deepseek-flash", extra_body=off, **asked)


def test_deepseek_wants_its_reasoning_back(client: Any) -> None:
    """Vendor quirk (2026-06): an empty string is enough, a missing field is not."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "5"}
    messages = [*user("add"), turn, result]
    with pytest.raises(openai.BadRequestError, match="must be passed back to the API"):
        client.chat.completions.create(model="deepseek-v4-pro", messages=messages)
    turn["reasoning_content"] = ""
    client.chat.completions.create(model="deepseek-v4-pro", messages=messages)


def test_models_are_listed_and_any_is_known(client: Any) -> None:
    names = {model.id for model in client.models.list()}
    assert {"deepseek-flash", "fault-cut-event"} <= names
    assert client.models.retrieve("whatever/you-like").id == "whatever/you-like"


def test_only_known_keys_are_served() -> None:
    with running_sandbox(profile=INSTANT, api_keys={"good"}) as box:
        with client_of(box, "good") as client:
            client.chat.completions.create(model="m", messages=user("hi"))
        with client_of(box, "bad") as client, pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model="m", messages=user("hi"))
        assert caught.value.code == "invalid_api_key"
        assert [seen.status for seen in box.journal] == [200, 401]


def test_the_sdk_takes_a_stream_without_a_finish_for_complete(client: Any) -> None:
    """Vendor quirk (openai 3.54): why the product must not trust a clean end."""
    stream = client.chat.completions.create(
        model="fault-end-without-finish", messages=user("hi"), stream=True
    )
    assert all(chunk.choices[0].finish_reason is None for chunk in stream)


def test_many_streams_run_at_once() -> None:
    profile = Profile(first_token_s=0.01, token_s=0.001, answer_tokens=20)

    async def run() -> None:
        async with (
            Sandbox(profile=profile) as box,
            openai.AsyncOpenAI(base_url=box.base_url, api_key="k", max_retries=0) as client,
        ):

            async def one(i: int) -> int:
                stream = await client.chat.completions.create(
                    model="m", messages=user(f"Tell story {i}"), stream=True
                )
                return len([chunk async for chunk in stream])

            async with asyncio.timeout(10):
                counts = await asyncio.gather(*(one(i) for i in range(17)))
            assert sum(counts) + 17 == sum(seen.events_sent for seen in box.journal)
            assert all(seen.ended_at and not seen.client_gone for seen in box.journal)

    in_loop(run)


def in_loop(run: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await run()

    asyncio.run(bounded())
