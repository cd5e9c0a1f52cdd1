"""What the official OpenAI SDK can do with a vendor, it can do with the gateway before it.

One suite, run twice: against the sandbox itself ("direct") and through the gateway. Where the two
differ by design, the test names both.
"""

import asyncio
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from door import HI, MODEL, Way, user
from droveway.sandbox import Rule, Script
from lab import run

# Answers, whole and as streams.


def test_a_whole_answer_is_the_vendors(way: Way, client: Any) -> None:
    answer = client.chat.completions.create(
        model="deepseek-flash", messages=user("Explain the harbour crane")
    )
    (choice,) = answer.choices
    assert "harbour" in choice.message.content
    assert choice.message.reasoning_content
    assert choice.finish_reason == "stop"
    (seen,) = way.seen
    assert (answer.id, answer.model) == (seen.id, "deepseek-flash")
    assert answer.system_fingerprint == "fp_sandbox"
    assert answer.usage.prompt_tokens == seen.prompt_tokens > 0
    assert answer.usage.completion_tokens == seen.completion_tokens
    assert answer.usage.completion_tokens_details.reasoning_tokens == seen.reasoning_tokens > 0


def test_a_stream_says_what_the_whole_answer_says(way: Way, client: Any) -> None:
    asked = {"model": "deepseek-flash", "messages": user("Explain the harbour crane")}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    thoughts = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thoughts == whole.choices[0].message.reasoning_content
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert {chunk.id for chunk in chunks} == {way.seen[-1].id}
    assert all(chunk.usage is None for chunk in chunks), "usage was not asked for"


def test_the_usage_chunk_comes_last_when_it_was_asked_for(way: Way, client: Any) -> None:
    *chunks, last = client.chat.completions.create(
        model=MODEL, messages=HI, stream=True, stream_options={"include_usage": True}
    )
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert (last.choices, last.usage.completion_tokens) == ([], way.seen[-1].completion_tokens)


def test_the_stream_helper_tells_events_and_the_whole(way: Way, client: Any) -> None:
    asked = {"model": MODEL, "messages": user("Explain the harbour crane")}
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [event.delta for event in events if event.type == "content.delta"]
    (done,) = [event for event in events if event.type == "content.done"]
    assert len(deltas) > 1
    assert "".join(deltas) == done.content == final.choices[0].message.content
    assert final.usage.completion_tokens == way.seen[-1].completion_tokens
    assert final.choices[0].finish_reason == "stop"


def test_the_async_client_gets_answers_streams_and_helpers(way: Way) -> None:
    async def check() -> None:
        async with way.async_sdk() as sdk:
            asked: dict[str, Any] = {"model": MODEL, "messages": user("Explain the harbour crane")}
            whole = await sdk.chat.completions.create(**asked)
            text = whole.choices[0].message.content
            chunks = await sdk.chat.completions.create(**asked, stream=True)
            said = [chunk.choices[0].delta.content or "" async for chunk in chunks]
            assert "".join(said) == text
            async with sdk.chat.completions.stream(**asked) as stream:
                deltas = [event.delta async for event in stream if event.type == "content.delta"]
                final = await stream.get_final_completion()
            assert "".join(deltas) == final.choices[0].message.content == text

    run(check())


def test_a_cap_ends_an_answer_and_says_so(client: Any) -> None:
    for stream in (False, True):
        answer = client.chat.completions.create(
            model=MODEL, messages=HI, max_completion_tokens=3, stream=stream
        )
        reasons = [each.choices[0].finish_reason for each in (answer if stream else [answer])]
        assert reasons[-1] == "length"


# Tools and structured output.


class add(BaseModel):  # noqa: N801 the tool's name
    """Add two numbers."""

    a: int
    b: int


class Rating(BaseModel):
    title: str
    score: int


ADD = openai.pydantic_function_tool(add)
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def test_a_tool_is_called_answered_and_quoted(client: Any) -> None:
    asked = user("Call add with 2 and 3")
    first = client.chat.completions.create(model=MODEL, messages=asked, tools=[ADD])
    assert (first.choices[0].finish_reason, first.choices[0].message.content) == (
        "tool_calls",
        None,
    )
    (call,) = first.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 2, "b": 3})
    result = {"role": "tool", "tool_call_id": call.id, "content": "5 exactly"}
    talk = [*asked, first.choices[0].message, result]
    second = client.chat.completions.create(model=MODEL, messages=talk, tools=[ADD])
    assert "5 exactly" in second.choices[0].message.content


@pytest.mark.parametrize("model", [MODEL, "deepseek-flash"])
def test_streamed_tools_make_the_same_round_trip(client: Any, model: str) -> None:
    asked = user("Call add with 2 and 3, then get_weather for Rome")
    tools = [ADD, WEATHER]
    calls: dict[int, dict[str, str]] = {}
    thoughts = ""
    for chunk in client.chat.completions.create(
        model=model, messages=asked, tools=tools, stream=True
    ):
        thoughts += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
        for delta in chunk.choices[0].delta.tool_calls or ():
            call = calls.setdefault(delta.index, {"id": "", "name": "", "arguments": ""})
            call["id"] += delta.id or ""
            call["name"] += delta.function.name or ""
            call["arguments"] += delta.function.arguments or ""
    told = [(call["name"], json.loads(call["arguments"])) for call in calls.values()]
    assert told == [("add", {"a": 2, "b": 3}), ("get_weather", {"city": "Rome"})]
    turn = {
        "role": "assistant",
        "content": None,
        "reasoning_content": thoughts,
        "tool_calls": [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in calls.values()
        ],
    }
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": said}
        for call, said in zip(calls.values(), ("5 exactly", "sunny"), strict=True)
    ]
    chunks = client.chat.completions.create(
        model=model, messages=[*asked, turn, *results], tools=tools, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "5 exactly; sunny" in text


def test_the_stream_helper_parses_tool_arguments(client: Any) -> None:
    asked = {"model": MODEL, "messages": user("Call add with 2 and 3"), "tools": [ADD]}
    with client.chat.completions.stream(**asked) as stream:
        events = list(stream)
    (done,) = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert done.parsed_arguments == add(a=2, b=3)
    pieces = [e for e in events if e.type == "tool_calls.function.arguments.delta"]
    assert len(pieces) > 1


def test_a_forced_tool_and_one_at_a_time_are_asked_for(way: Way, client: Any) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=user("Call add with 2 and 3, then get_weather for Rome"),
        tools=[ADD, WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    assert len(answer.choices[0].message.tool_calls) == 1
    assert (way.body["tool_choice"], way.body["parallel_tool_calls"]) == ("required", False)


def test_an_answer_is_parsed_into_a_pydantic_model(client: Any) -> None:
    asked = {"model": MODEL, "messages": user('Rate "The Drover" with 8')}
    parsed = client.chat.completions.parse(**asked, response_format=Rating)
    assert isinstance(parsed.choices[0].message.parsed, Rating)
    with client.chat.completions.stream(**asked, response_format=Rating) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == parsed.choices[0].message.parsed
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**asked, response_format=Rating, max_tokens=2)


# What a request carries.

CARRIED: dict[str, Any] = {
    "n": 1,
    "logprobs": True,
    "top_logprobs": 3,
    "seed": 7,
    "metadata": {"run": "17"},
    "reasoning_effort": "low",
    "stop": ["END", "\n\n"],
    "temperature": 0.25,
    "top_p": 0.5,
    "presence_penalty": -0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "user": "drover",
    "store": False,
    "service_tier": "flex",
    "verbosity": "low",
    "prompt_cache_key": "herd",
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_every_field_arrives_as_it_was_sent(way: Way, client: Any, *, stream: bool) -> None:
    extra = {"thinking": {"type": "disabled"}, "top_k": 40, "x": [None, 1.5, {"y": "ü"}]}
    got = client.chat.completions.create(
        model=MODEL, messages=HI, extra_body=extra, stream=stream, **CARRIED
    )
    if stream:
        assert list(got)[-1].choices[0].finish_reason == "stop"
    expected = {"model": MODEL, "messages": HI, **CARRIED, **extra}
    if stream:
        expected["stream"] = True
        if way.through:  # the one wish of the gateway's own: it meters
            expected["stream_options"] = {"include_usage": True}
    told = way.body
    if not stream:
        told.pop("stream", None)
    assert told == expected


def test_a_stop_word_may_be_one_string(way: Way, client: Any) -> None:
    client.chat.completions.create(model=MODEL, messages=HI, stop="END")
    assert way.body["stop"] == "END"


def test_what_the_vendor_refuses_is_told_in_its_words(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="'n' must be 1"):
        client.chat.completions.create(model=MODEL, messages=HI, n=2)


def test_extra_headers_and_a_query_do_no_harm(client: Any) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HI, extra_headers={"x-mine": "1"}, extra_query={"version": "2026"}
    )
    assert answer.choices[0].message.content


def test_an_image_travels_as_it_is(way: Way, client: Any) -> None:
    url = "data:image/png;base64," + "iVBORw0KGgo" * 4000
    parts = [
        {"type": "text", "text": "What is this harbour?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}]
    )
    assert answer.usage.prompt_tokens > 256
    assert way.body["messages"][0]["content"] == parts


def test_all_the_worlds_signs_come_and_go(way: Way, client: Any) -> None:
    text = "船坞 🚢👩‍👩‍👧 ü \u2028 \u0000 \ufeff עברית \\u0041 \U0010ffff"
    way.door.box.direct(Script(rules=(Rule(contains="船坞", answer=text),)))
    asked = {"model": MODEL, "messages": user(text)}
    whole = client.chat.completions.create(**asked)
    chunks = client.chat.completions.create(**asked, stream=True)
    assert whole.choices[0].message.content == text
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert way.body["messages"] == asked["messages"]
    way.door.box.direct(Script())


def test_a_big_prompt_arrives_whole(way: Way, client: Any) -> None:
    text = "word " * 21_400
    answer = client.chat.completions.create(model=MODEL, messages=user(text))
    assert len(way.seen[-1].body or b"") > 107_000
    assert way.body["messages"] == user(text)
    assert answer.usage.prompt_tokens > 21_000


def test_raw_and_streaming_responses_show_the_head(way: Way, client: Any) -> None:
    got = client.chat.completions.with_raw_response.create(model=MODEL, messages=HI)
    assert got.http_response.status_code == 200
    assert got.parse().choices[0].message.content
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HI, stream=True)
    assert raw.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert list(raw.parse())[-1].choices[0].finish_reason == "stop"
    with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HI) as live:
        assert json.loads(b"".join(live.iter_bytes()))["choices"]
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=HI, stream=True
    ) as live:
        lines = [line for line in live.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    own = ["x-droveway-request-id", "x-droveway-cost"]
    assert [name in got.headers for name in own] == ([True, False] if way.through else [False] * 2)


def test_models_are_listed_and_shown(way: Way, client: Any) -> None:
    names = [model.id for model in client.models.list()]
    assert "auto" in names if way.through else "deepseek-flash" in names
    assert client.models.retrieve(names[0]).id == names[0]


# Embeddings.


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_embeddings_are_the_vendors(way: Way, client: Any, encoding: str | None) -> None:
    told: dict[str, Any] = {} if encoding is None else {"encoding_format": encoding}
    asked: dict[str, Any] = {"model": "text-embedding-3-small", "dimensions": 8}
    for given in ("crane", ["crane", "box"], [1, 2, 3], [[1, 2], [3]]):
        got = client.embeddings.create(input=given, **asked, **told)
        with Way(way.door, through=False).sdk() as vendor:
            assert got.data == vendor.embeddings.create(input=given, **asked, **told).data
        assert got.usage.total_tokens == way.seen[-1].prompt_tokens
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="text-embedding-3-small", input="", **told)
    with pytest.raises(openai.RateLimitError):
        client.embeddings.create(model="fault-429-ms:1", input="crane", **told)


# A crowd.


def test_a_hundred_requests_at_once_each_get_their_own_answer(way: Way) -> None:
    async def check() -> None:
        async with way.async_sdk() as sdk:

            async def one(i: int) -> tuple[str, str]:
                word = "drove" + "".join(chr(ord("a") + int(digit)) for digit in f"{i:03}")
                asked: dict[str, Any] = {"model": MODEL, "messages": user(f"Explain the {word}")}
                if i % 2:
                    whole = await sdk.chat.completions.create(**asked)
                    text = whole.choices[0].message.content or ""
                    return whole.id, text if word in text else ""
                stream = await sdk.chat.completions.create(**asked, stream=True)
                chunks = [chunk async for chunk in stream]
                assert chunks[-1].choices[0].finish_reason == "stop"
                text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
                return chunks[0].id, text if word in text else ""

            answers = await asyncio.gather(*(one(i) for i in range(100)))
            assert len({name for name, _ in answers}) == 100
            assert all(text for _, text in answers)

    run(check())
    assert len(way.seen) == 100
    assert all(seen.ended_at and not seen.client_gone for seen in way.seen)
