"""How a request is written: plainly, and with each vendor's accent."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from droveway.chat import Answer, ChatRequest, Message, Tool, ToolCall
from droveway.dialects.accents import ACCENTS, PLAIN, accent_named
from droveway.dialects.openai_chat import write_request
from droveway.errors import BadRequestError, SettingsError

HELLO = (Message(role="user", content="Hello"),)
CLOSED: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["tags", "title"],
    "additionalProperties": False,
}
ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {}})
CALL = ToolCall("call_1", "add", '{"a": 1')
every_accent = pytest.mark.parametrize("accent", sorted(ACCENTS))


def write(accent: str = "plain", *, output_cap: int | None = None, **asked: Any) -> dict[str, Any]:
    request = ChatRequest(**{"model": "asked", "messages": HELLO, **asked})
    body = write_request(
        request, model="theirs", accent=accent_named(accent), output_cap=output_cap
    )
    written = json.loads(body)
    assert isinstance(written, dict)
    return written


# What every accent writes.


@every_accent
def test_the_least_request_has_the_vendors_model_and_the_messages_only(accent: str) -> None:
    assert write(accent) == {
        "model": "theirs",
        "messages": [{"role": "user", "content": "Hello"}],
    }


@every_accent
def test_a_stream_asks_for_its_usage(accent: str) -> None:
    written = write(accent, stream=True)
    assert (written["stream"], written["stream_options"]) == (True, {"include_usage": True})


@pytest.mark.parametrize(
    "told",
    [None, {}, {"include_usage": False}, {"include_usage": None}, {"include_obfuscation": False}],
)
def test_a_stream_asks_for_its_usage_whatever_the_caller_said(told: dict[str, Any] | None) -> None:
    """Ours: without the usage there is nothing exact to settle by."""
    written = write(stream=True, extra={"stream_options": told})
    assert written["stream_options"] == {**(told or {}), "include_usage": True}


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_temperature_is_passed_on_when_given_and_never_invented(temperature: float) -> None:
    assert write(temperature=temperature)["temperature"] == temperature
    assert "temperature" not in write()


@pytest.mark.parametrize("choice", ["auto", "none", {"type": "allowed_tools"}])
@every_accent
def test_tools_are_written_as_functions(accent: str, choice: object) -> None:
    written = write(accent, tools=(ADD,), tool_choice=choice)
    assert written["tool_choice"] == choice
    assert written["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "add",
                "description": "Adds.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]


@every_accent
def test_turns_carry_calls_results_names_and_fields_we_do_not_know(accent: str) -> None:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    turns = write(
        accent,
        messages=(
            Message(role="developer", content="Be brief.", name="boss"),
            Message(role="user", content=parts, extra={"cache_control": {"type": "ephemeral"}}),
            Message(role="assistant", tool_calls=(CALL,)),
            Message(role="tool", content="", tool_call_id="call_1"),
        ),
    )["messages"]
    assert turns[0] == {"role": "developer", "content": "Be brief.", "name": "boss"}
    assert turns[1] == {"role": "user", "content": parts, "cache_control": {"type": "ephemeral"}}
    function = {"name": "add", "arguments": '{"a": 1'}
    assert turns[2]["content"] is None
    assert turns[2]["tool_calls"] == [{"id": "call_1", "type": "function", "function": function}]
    assert turns[3] == {"role": "tool", "content": "", "tool_call_id": "call_1"}


@every_accent
def test_extra_is_laid_over_everything_else(accent: str) -> None:
    extra = {
        "temperature": 0.1,
        "response_format": {"type": "text"},
        "n": 1,
        "vendor_thing": {"x": 1},
    }
    written = write(accent, temperature=0.9, output_schema=CLOSED, extra=extra)
    assert {name: written[name] for name in extra} == extra


@pytest.mark.parametrize("extra", [{"x": {1, object()}}, {"x": object()}, {"x": "\ud800"}])
def test_what_json_cannot_hold_is_the_callers_error(extra: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="cannot be written as JSON"):
        write(extra=extra)


def test_text_that_json_cannot_hold_is_the_callers_error() -> None:
    """Ours: half of a surrogate pair, as a careless cut of a string leaves it."""
    with pytest.raises(BadRequestError, match="cannot be written as JSON"):
        write(messages=(Message(role="user", content="half of a \ud83d"),))


# The output cap.


@pytest.mark.parametrize(
    ("accent", "field"),
    [("plain", "max_tokens"), ("openai", "max_completion_tokens"), ("deepseek", "max_tokens")],
)
def test_the_cap_stands_under_the_name_that_the_vendor_takes(accent: str, field: str) -> None:
    caps = {"max_tokens", "max_completion_tokens"}
    for written in (write(accent, max_tokens=7), write(accent, output_cap=7)):
        assert {name: written[name] for name in caps & written.keys()} == {field: 7}
    assert not caps & write(accent).keys()


@pytest.mark.parametrize("asked", [0, 5, 500])
def test_the_callers_cap_goes_before_ours(asked: int) -> None:
    """Spec: the caller's own cap is never shrunk, not even a cap of nothing."""
    assert write(max_tokens=asked, output_cap=100)["max_tokens"] == asked


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@every_accent
def test_a_cap_among_the_extra_fields_is_the_only_one(accent: str, field: str) -> None:
    written = write(accent, max_tokens=9, output_cap=100, extra={field: 5})
    caps = {"max_tokens", "max_completion_tokens"} & written.keys()
    assert {name: written[name] for name in caps} == {field: 5}


# Thinking.


@pytest.mark.parametrize(
    ("effort", "told"),
    [
        (None, {}),
        ("none", {"thinking": {"type": "disabled"}}),
        ("minimal", {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
        ("low", {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
        ("medium", {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        ("high", {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        ("xhigh", {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        ("max", {"thinking": {"type": "enabled"}, "reasoning_effort": "max"}),
        ("ultra", {"thinking": {"type": "enabled"}, "reasoning_effort": "ultra"}),
    ],
)
def test_deepseek_has_a_switch_for_thinking(effort: str | None, told: dict[str, Any]) -> None:
    """Vendor quirk: DeepSeek, guides/thinking_mode (2026-11)."""
    written = write("deepseek", reasoning_effort=effort)
    assert {
        name: written[name] for name in ("thinking", "reasoning_effort") if name in written
    } == told


@pytest.mark.parametrize("effort", [None, "none", "minimal", "medium", "xhigh", "max"])
@pytest.mark.parametrize("accent", ["plain", "openai"])
def test_other_vendors_take_the_effort_as_it_is(accent: str, effort: str | None) -> None:
    written = write(accent, reasoning_effort=effort)
    assert written.get("reasoning_effort") == effort
    assert "thinking" not in written


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_deepseek_cannot_think_when_it_must_use_a_tool(choice: object) -> None:
    """Vendor quirk: 400 "Thinking mode does not support this tool_choice" (2026-11)."""
    assert write("deepseek", tools=(ADD,), tool_choice=choice)["thinking"] == {"type": "disabled"}
    told = {"thinking": {"type": "enabled"}}
    assert write("deepseek", tools=(ADD,), tool_choice=choice, extra=told)["thinking"] == {
        "type": "enabled"
    }
    assert "thinking" not in write("plain", tools=(ADD,), tool_choice=choice)


# Reasoning that goes back with the history.

HISTORY = (
    Message(role="user", content="1"),
    Message(role="assistant", content="one", reasoning="Thought."),
    Message(role="user", content="2"),
    Message(role="assistant", tool_calls=(CALL,), reasoning="Tool!"),
    Message(role="tool", content="3", tool_call_id="call_1"),
    Message(role="assistant", content="three"),
    Message(role="user", content="4"),
)


def replayed(turns: list[dict[str, Any]]) -> list[str | None]:
    return [turn.get("reasoning_content") for turn in turns if turn["role"] == "assistant"]


def test_deepseek_gets_all_reasoning_back_once_tools_are_used() -> None:
    """Vendor quirk: all or nothing over the history; an empty one is taken (2026-11)."""
    turns = write("deepseek", messages=HISTORY)["messages"]
    assert replayed(turns) == ["Thought.", "Tool!", ""]
    assert not any("reasoning_content" in turn for turn in turns if turn["role"] != "assistant")


def test_deepseek_gets_all_reasoning_back_when_tools_are_offered() -> None:
    """Vendor quirk: "with tools", used or not; treated as unstable, so always replayed (2026-11)."""
    turns = write("deepseek", messages=HISTORY[:3], tools=(ADD,))["messages"]
    assert replayed(turns) == ["Thought."]


def test_deepseek_gets_no_reasoning_back_without_tools() -> None:
    assert replayed(write("deepseek", messages=HISTORY[:3])["messages"]) == [None]


@pytest.mark.parametrize("accent", ["plain", "openai"])
def test_other_vendors_never_get_reasoning_back(accent: str) -> None:
    assert replayed(write(accent, messages=HISTORY, tools=(ADD,))["messages"]) == [None] * 3


def test_an_answer_put_into_the_history_carries_its_reasoning_and_calls() -> None:
    answer = Answer(reasoning="Hm.", tool_calls=(CALL,), finish_reason="tool_calls")
    turn = write("deepseek", messages=(*HELLO, answer.as_message()))["messages"][1]
    assert (turn["content"], turn["reasoning_content"]) == (None, "Hm.")


# Output that fits a schema.


@pytest.mark.parametrize("accent", ["plain", "openai"])
def test_a_schema_goes_as_a_response_format(accent: str) -> None:
    written = write(accent, output_schema=CLOSED, output_name="rating")
    assert written["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "rating", "schema": CLOSED, "strict": True},
    }
    assert len(written["messages"]) == 1


def test_deepseek_gets_the_schema_as_an_instruction() -> None:
    """Vendor quirk: only `json_object`, and the word JSON must stand in the prompt (2026-11)."""
    written = write("deepseek", output_schema=CLOSED)
    assert written["response_format"] == {"type": "json_object"}
    first, second = written["messages"]
    assert first["role"] == "system"
    assert "JSON" in first["content"]
    assert json.loads(first["content"][first["content"].index("{") :]) == CLOSED
    assert second == {"role": "user", "content": "Hello"}


def field(schema: object, **around: Any) -> dict[str, Any]:
    """An object that is closed but for its one field, perhaps."""
    return {
        "type": "object",
        "properties": {"one": schema},
        "required": ["one"],
        "additionalProperties": False,
        **around,
    }


@pytest.mark.parametrize(
    "schema",
    [
        CLOSED,
        field({"type": "string"}),
        field({"enum": ["a", "b"]}),
        field({"const": 1}),
        field({"anyOf": [{"type": "string"}, {"type": "null"}]}),
        field({"type": "array", "items": field({"type": "number"})}),
        field({"type": ["string", "null"]}),
        field({"$ref": "#/$defs/T"}, **{"$defs": {"T": field({"type": "integer"})}}),
        {"type": "object", "additionalProperties": False},
        # A field may be called as a keyword of the language is.
        {**field({"type": "string"}), "properties": {"properties": {"type": "string"}},
         "required": ["properties"]},
        field({"type": "string", "default": {"properties": {}}}),
    ],
)  # fmt: skip
def test_a_closed_schema_is_decoded_strictly(schema: dict[str, Any]) -> None:
    told = write(output_schema=schema)["response_format"]["json_schema"]
    assert told["strict"] is True


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {**CLOSED, "additionalProperties": True},
        {**CLOSED, "required": ["title"]},
        {name: CLOSED[name] for name in CLOSED if name != "required"},
        field({"type": "object", "additionalProperties": {"type": "integer"}}),
        field({"type": ["object", "null"]}),
        field({"type": "array", "items": {"type": "object"}}),
        field({"type": "array", "items": True}),
        field({"anyOf": [{"type": "null"}, {"type": "object"}]}),
        field({"oneOf": [{"type": "null"}, {"type": "string"}]}),
        field({"$ref": "#/$defs/T"}, **{"$defs": {"T": {"type": "object"}}}),
        field({"title": "Anything"}),
        field(True),
        field({"properties": {"properties": True}}),
    ],
)
def test_an_open_schema_is_not_decoded_strictly(schema: dict[str, Any]) -> None:
    """Vendor quirk: `strict` with an optional or unnamed field is a 400 (OpenAI, 2026-11)."""
    told = write(output_schema=schema)["response_format"]["json_schema"]
    assert told["strict"] is False
    assert told["schema"] == schema


# Accents by name.


def test_accents_are_found_by_name_and_none_is_plain() -> None:
    assert accent_named(None) is PLAIN
    assert {name: accent_named(name).name for name in ACCENTS} == {name: name for name in ACCENTS}


def test_an_unknown_accent_names_the_known_ones() -> None:
    with pytest.raises(
        SettingsError, match="unknown accent 'bavarian'; known are deepseek, openai"
    ):
        accent_named("bavarian")
