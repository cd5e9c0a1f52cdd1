"""How a whole answer is read, and what is none."""

import json
from typing import Any

import pytest

from droveway.chat import Answer, ToolCall, Usage
from droveway.dialects.openai_chat import error_message, one_line, read_answer
from droveway.errors import ProtocolError


def body(message: Any, *, finish: Any = "stop", **around: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"id": "c-1", "model": "m-1", "choices": [choice], **around}).encode()


def read(message: Any, *, finish: Any = "stop", **around: Any) -> Answer:
    return read_answer(body(message, finish=finish, **around))


def test_an_answer_of_openai_is_read_whole() -> None:
    answer = read(
        {"role": "assistant", "content": "Hi!", "refusal": None, "annotations": []},
        usage={
            "prompt_tokens": 20,
            "completion_tokens": 9,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
        system_fingerprint="fp",
    )
    assert answer == Answer(
        text="Hi!",
        finish_reason="stop",
        usage=Usage(input=4, cached_read=16, output=9, reasoning=4),
        model="m-1",
        id="c-1",
        extra={"annotations": []},
    )


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_stands_apart_from_the_answer(field: str) -> None:
    answer = read({"role": "assistant", "content": "4", field: "2 and 2."})
    assert (answer.text, answer.reasoning, dict(answer.extra)) == ("4", "2 and 2.", {})


def test_no_reasoning_is_none_and_not_an_empty_one() -> None:
    assert read({"content": "4", "reasoning_content": ""}).reasoning is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a", "a"),
        (None, ""),
        ("", ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "image"}, {"type": "text", "text": "b"}, "stray", {"text": 3}], "b"),
        ([], ""),
    ],
)
def test_text_may_come_in_parts(content: object, text: str) -> None:
    assert read({"content": content}).text == text


def test_a_refusal_is_the_text_where_there_is_no_other() -> None:
    assert read({"content": None, "refusal": "I will not."}).text == "I will not."
    assert read({"content": "Yes.", "refusal": "I will not."}).text == "Yes."


def test_tool_calls_are_read_with_their_arguments_as_written() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x": 1'}},
        {"id": "", "function": {"name": "now", "arguments": None}},
        {"index": 5, "function": {"name": "far"}},
    ]
    answer = read({"content": None, "tool_calls": calls}, finish="tool_calls")
    assert answer.tool_calls == (
        ToolCall("a", "add", '{"x": 1'),
        ToolCall("call_1", "now", ""),
        ToolCall("call_5", "far", ""),
    )
    assert answer.finish_reason == "tool_calls"


@pytest.mark.parametrize("calls", [None, []])
def test_no_tool_calls_may_be_said_in_two_ways(calls: object) -> None:
    assert read({"content": "a", "tool_calls": calls}).tool_calls == ()


@pytest.mark.parametrize("calls", ["add", [3], [{"function": {"name": 3}}], {"a": 1}])
def test_tool_calls_that_cannot_be_read_are_no_answer(calls: object) -> None:
    with pytest.raises(ProtocolError, match="tool calls cannot be read"):
        read({"tool_calls": calls})


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("end_turn", "other"),
    ],
)
def test_a_finish_reason_becomes_one_of_five(said: str, finish: str) -> None:
    assert read({"content": "a"}, finish=said).finish_reason == finish


@pytest.mark.parametrize("reason", [None, "", "insufficient_system_resource", "error", "abort"])
def test_an_answer_that_was_broken_off_is_none(reason: str | None) -> None:
    """Vendor quirk: DeepSeek, OpenRouter, vLLM break off with status 200 (2026-11)."""
    with pytest.raises(ProtocolError, match="broke the answer off"):
        read({"content": "half"}, finish=reason)


@pytest.mark.parametrize(
    "page", [b"<!doctype html><p>Welcome", b"  \r\n<html>", b"\n\n<?xml version='1.0'?>"]
)
def test_a_page_for_people_points_at_the_base_url(page: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"HTML page; is base_url right\?"):
        read_answer(page)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"   ",
        b"null",
        b"[]",
        b"{}",
        b'"ok"',
        b'{"choices": null}',
        b'{"choices": {}}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": "hi", "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {}, "finish_reason": 1}]}',
        b'{"choices": [',
        b'{"choices": [{"message": {"content": "\xff"}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": ' + b"[" * 100_000,
        b'{"error": {"message": "no"}}',
    ],
    ids=lambda said: repr(said[:40]),
)
def test_what_is_no_chat_completion_is_a_protocol_error(said: bytes) -> None:
    """Ours: nothing a vendor sends raises anything else."""
    with pytest.raises(ProtocolError, match="no chat completion"):
        read_answer(said)


def test_an_answer_without_a_choice_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="without a choice"):
        read_answer(b'{"choices": []}')


def test_blank_lines_before_the_answer_are_no_harm() -> None:
    """Vendor quirk: DeepSeek keeps a waiting connection alive with blank lines (2026-11)."""
    assert read_answer(b"\n\n \n" + body({"content": "a"})).text == "a"


def test_a_usage_nobody_can_believe_is_none_and_the_answer_stands() -> None:
    answer = read({"content": "a"}, usage={"prompt_tokens": -1, "completion_tokens": 2})
    assert (answer.text, answer.usage) == ("a", None)


# What an error body says.


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (b'{"error":{"message":"Insufficient Balance","code":"x"}}', "Insufficient Balance"),
        (b'{"error":{"message":"","type":"overloaded_error"}}', "overloaded_error"),
        (b'{"error":{"code":429}}', "429"),
        (b'{"error":{}}', ""),
        (b'{"error":"quota"}', "quota"),
        (b'{"error":null,"message":"late"}', "late"),
        (b'{"object":"error","message":"too long","code":400}', "too long"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"message":"two\\n lines"}', "two lines"),
        (b"[1, 2]", "[1, 2]"),
        (b"upstream connect\r\n error", "upstream connect error"),
        (b"", ""),
        (b"  <html><title>502</title>", "an HTML page"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"error": "\xff"}', '{"error": "\ufffd"}'),
        ({"error": {"message": "in band"}}, "in band"),
        ({"message": "bare"}, "bare"),
        ("text", "text"),
        (None, "None"),
    ],
)  # fmt: skip
def test_an_error_body_is_told_in_one_line(said: object, line: str) -> None:
    assert one_line(error_message(said)) == line


def test_an_error_body_is_told_in_300_characters_at_most() -> None:
    assert len(one_line(error_message(b"a" * 10_000))) == 300
    assert len(one_line(error_message({"error": {"message": "a b " * 1000}}))) <= 300


def test_an_error_body_of_brackets_is_told_calmly() -> None:
    """Ours: nesting deeper than the interpreter's stack is no reason to fall over."""
    assert one_line(error_message(b"[" * 100_000)) == "[" * 300
