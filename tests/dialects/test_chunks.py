"""How the chunks of a stream are read, in the shapes in which vendors send them."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.chat import (
    ChatEvent,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from droveway.dialects.openai_chat import ChunkReader, InBandError
from droveway.errors import ProtocolError

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
COUNTED = UsageUpdate(Usage(input=10, output=5))


def chunk(delta: Any = None, *, finish: Any = None, **around: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "c-1", "model": "m-1", "choices": [choice], **around}


def read(*chunks: dict[str, Any]) -> tuple[list[ChatEvent], ChunkReader]:
    reader = ChunkReader()
    events = [event for each in chunks for event in reader.read(json.dumps(each).encode())]
    return events, reader


def test_a_stream_of_openai() -> None:
    """Recorded shape: OpenAI (2026-11)."""
    events, reader = read(
        chunk({"role": "assistant", "content": "", "refusal": None}, usage=None, obfuscation="x"),
        chunk({"content": "Hel"}, usage=None),
        chunk({"content": "lo"}, usage=None),
        chunk({}, finish="stop", usage=None),
        {"id": "c-1", "model": "m-1", "choices": [], "usage": USAGE},
    )
    assert events == [TextDelta("Hel"), TextDelta("lo"), Finished("stop"), COUNTED]
    assert (reader.finished, reader.broken_off) == (True, None)
    assert (reader.id, reader.model) == ("c-1", "m-1")


def test_a_stream_of_deepseek_that_thinks() -> None:
    """Recorded shape: DeepSeek, usage on the chunk that finishes (2026-11)."""
    usage = {**USAGE, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2,
             "completion_tokens_details": {"reasoning_tokens": 3}}  # fmt: skip
    events, reader = read(
        chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
        chunk({"content": None, "reasoning_content": "Two"}),
        chunk({"content": None, "reasoning_content": " and two."}),
        chunk({"content": "4", "reasoning_content": None}),
        chunk({"content": "", "reasoning_content": None}, finish="stop", usage=usage),
    )
    assert events == [
        ReasoningDelta("Two"),
        ReasoningDelta(" and two."),
        TextDelta("4"),
        Finished("stop"),
        UsageUpdate(Usage(input=2, cached_read=8, output=5, reasoning=3)),
    ]
    assert reader.finished


def test_a_stream_of_openrouter_with_reasoning_beside_text() -> None:
    """Recorded shape: OpenRouter, `reasoning` and text in one chunk (2026-11)."""
    events, _ = read(chunk({"content": "4", "reasoning": "2+2", "reasoning_details": [{}]}))
    assert events == [ReasoningDelta("2+2"), TextDelta("4")]


def test_reasoning_said_twice_is_read_once() -> None:
    events, _ = read(chunk({"reasoning_content": "Hm.", "reasoning": "Hm."}))
    assert events == [ReasoningDelta("Hm.")]


def test_a_stream_of_azure_begins_with_no_choice_and_no_names() -> None:
    """Recorded shape: Azure's prompt filter results come first, with empty names (2026-11)."""
    events, reader = read(
        {"choices": [], "id": "", "model": "", "prompt_filter_results": [{}]},
        chunk({"content": "Hi", "role": "assistant"}),
        chunk(None, finish="stop"),
    )
    assert events == [TextDelta("Hi"), Finished("stop")]
    assert (reader.id, reader.model) == ("c-1", "m-1")


def test_a_vendor_without_an_id_still_names_its_model() -> None:
    _, reader = read({"model": "m-1", "choices": []}, {"id": "late", "choices": []})
    assert (reader.id, reader.model) == ("late", "m-1")


def test_the_first_names_stand() -> None:
    _, reader = read(chunk({}), {"id": "c-2", "model": "m-2", "choices": []})
    assert (reader.id, reader.model) == ("c-1", "m-1")


@pytest.mark.parametrize("choices", [[], None])
def test_usage_may_stand_on_a_chunk_without_choices(choices: object) -> None:
    """Vendor quirk: some hosts write null for no choices (RooCodeInc/Roo-Code#9105, 2025-11)."""
    assert read({"choices": choices, "usage": USAGE})[0] == [COUNTED]


def test_usage_may_stand_on_a_chunk_that_has_no_choices_at_all() -> None:
    assert read({"id": "c", "usage": USAGE})[0] == [COUNTED]


def test_usage_may_stand_on_a_chunk_with_a_choice() -> None:
    """Vendor quirk: BerriAI/litellm#36168 (2026)."""
    events, _ = read(chunk({}, finish="stop"), chunk({}, usage=USAGE))
    assert events == [Finished("stop"), COUNTED]


def test_usage_on_every_chunk_is_told_each_time() -> None:
    """A later count replaces an earlier one; who meters decides."""
    more = {**USAGE, "completion_tokens": 6}
    events, _ = read(chunk({"content": "a"}, usage=USAGE), chunk({"content": "b"}, usage=more))
    assert events == [
        TextDelta("a"), COUNTED, TextDelta("b"), UsageUpdate(Usage(input=10, output=6))
    ]  # fmt: skip


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 1}, {"prompt_tokens": -1}, 3, "x"])
def test_no_usage_is_no_event(usage: object) -> None:
    assert read(chunk({"content": "a"}, usage=usage))[0] == [TextDelta("a")]


def test_a_chunk_with_a_role_only_says_nothing() -> None:
    events, reader = read(chunk({"role": "assistant"}), chunk({}), chunk({"content": ""}))
    assert (events, reader.finished) == ([], False)


@pytest.mark.parametrize("delta", [None, {}])
def test_a_finish_may_come_without_a_delta(delta: object) -> None:
    reader = ChunkReader()
    data = json.dumps({"choices": [{"delta": delta, "finish_reason": "length"}]}).encode()
    assert reader.read(data) == [Finished("length")]


def test_text_and_finish_may_share_a_chunk() -> None:
    events, _ = read(chunk({"content": "all"}, finish="stop", usage=USAGE))
    assert events == [TextDelta("all"), Finished("stop"), COUNTED]


def test_a_refusal_is_text() -> None:
    assert read(chunk({"refusal": "No."}))[0] == [TextDelta("No.")]


# Finish markers.


def test_an_empty_finish_reason_is_none() -> None:
    """Vendor quirk: "" for null on every chunk (sgl-project/sglang#3912, 2025-02)."""
    events, reader = read(chunk({"content": "a"}, finish=""), chunk({"content": "b"}, finish=""))
    assert (events, reader.finished) == ([TextDelta("a"), TextDelta("b")], False)
    assert (reader.broken_off, read(chunk(finish="stop"))[1].finished) == (None, True)


@pytest.mark.parametrize("reason", ["insufficient_system_resource", "error", "abort"])
def test_an_answer_broken_off_is_not_finished(reason: str) -> None:
    """Vendor quirk: a reason that says that the vendor gave up (2026-11)."""
    events, reader = read(chunk({"content": "half"}), chunk({}, finish=reason))
    assert events == [TextDelta("half")]
    assert (reader.finished, reader.broken_off) == (False, reason)


def test_a_second_finish_marker_is_not_told() -> None:
    events, _ = read(chunk({}, finish="tool_calls"), chunk({}, finish="stop"))
    assert events == [Finished("tool_calls")]


@pytest.mark.parametrize(
    ("said", "finish"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("eos", "other"),
     ("function_call", "tool_calls"), ("content_filter", "content_filter")],
)  # fmt: skip
def test_a_finish_reason_becomes_one_of_five(said: str, finish: str) -> None:
    assert [event.reason for event in read(chunk({}, finish=said))[0]] == [finish]  # type: ignore[union-attr]


def test_other_choices_than_the_first_are_not_read() -> None:
    other = {"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}
    events, reader = read({"choices": [other]}, chunk({"content": "a"}))
    assert (events, reader.finished) == ([TextDelta("a")], False)


# Tool calls.


def piece(**fields: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [fields]})


def test_a_tool_call_comes_in_pieces() -> None:
    events, _ = read(
        piece(index=0, id="a", type="function", function={"name": "add", "arguments": ""}),
        piece(index=0, function={"arguments": '{"x":'}),
        piece(index=0, id="", function={"name": "", "arguments": "1}"}),
        piece(index=1, id="b", function={"name": "now", "arguments": None}),
    )
    assert events == [
        ToolCallDelta(0, "a", "add", ""),
        ToolCallDelta(0, None, None, '{"x":'),
        ToolCallDelta(0, None, None, "1}"),
        ToolCallDelta(1, "b", "now", ""),
    ]


def test_an_index_used_again_keeps_the_new_id() -> None:
    """Vendor quirk: hosts that number every call 0; only the id tells them apart (2026-11)."""
    events, _ = read(
        piece(index=0, id="a", function={"name": "add", "arguments": "{}"}),
        piece(index=0, id="b", function={"name": "add", "arguments": "{}"}),
    )
    assert [event.id for event in events if isinstance(event, ToolCallDelta)] == ["a", "b"]


def test_calls_without_an_index_are_numbered_by_their_place() -> None:
    """Vendor quirk: whole calls in one chunk, unnumbered (Gemini's endpoint, 2026-11)."""
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in "ab"]
    events, _ = read(chunk({"tool_calls": calls}))
    assert events == [ToolCallDelta(0, "a", "a", "{}"), ToolCallDelta(1, "b", "b", "{}")]


def test_a_call_without_its_function_is_a_piece_without_words() -> None:
    assert read(piece(index=2, id="a"))[0] == [ToolCallDelta(2, "a", None, "")]


@pytest.mark.parametrize("calls", [None, []])
def test_no_calls_are_no_event(calls: object) -> None:
    assert read(chunk({"tool_calls": calls, "content": "a"}))[0] == [TextDelta("a")]


# What is no chunk.


@pytest.mark.parametrize(
    "said", [{"message": "overloaded", "code": 429}, "overloaded", {"type": "server_error"}]
)
def test_an_error_object_inside_a_stream_is_told(said: object) -> None:
    none: dict[str, Any] = {}
    around: dict[str, Any]
    for around in (none, {"choices": []}, {"choices": None}, chunk({}, finish="error")):
        with pytest.raises(InBandError) as caught:
            read({**around, "error": said})
        assert caught.value.body == said


def test_an_error_that_is_null_is_none() -> None:
    assert read(chunk({"content": "a"}, error=None))[0] == [TextDelta("a")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"hello",
        b'{"choices": [{"delta": {"content": "\xff"}}]}',
        b'{"choices": [{"delta": {"content": "\\ud800"}}]}',
        b'{"usage": ' + b"[" * 100_000,
        b'{"unknown": ' + b'{"a":' * 100_000,
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_no_object_is_a_decode_error_and_nothing_else(data: bytes) -> None:
    reader = ChunkReader()
    with pytest.raises(msgspec.DecodeError):
        reader.read(data)
    assert reader.read(json.dumps(chunk({"content": "a"})).encode()) == [TextDelta("a")]


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices": 3}',
        b'{"choices": [3]}',
        b'{"choices": [{"delta": "a"}]}',
        b'{"choices": [{"delta": {"content": 3}}]}',
    ],
)
def test_an_object_that_is_no_chunk_is_not_passed_over(data: bytes) -> None:
    """Ours: text of the answer may be in it, and would be missing without a word."""
    with pytest.raises(ProtocolError, match="cannot be read"):
        ChunkReader().read(data)


@pytest.mark.parametrize(
    "fields",
    [{"id": 7}, {"model": ["m"]}, {"choices": [{"index": None, "delta": {"content": "a"}}]}],
)
def test_odd_names_and_an_absent_index_do_not_cost_the_text(fields: dict[str, object]) -> None:
    said = {"choices": [{"index": 0, "delta": {"content": "a"}}], **fields}
    assert ChunkReader().read(json.dumps(said).encode()) == [TextDelta("a")]


def test_text_in_parts_is_text_in_a_stream_too() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ChunkReader().read(json.dumps(chunk({"content": parts})).encode()) == [TextDelta("ab")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["id", "model", "choices", "usage", "error", "index", "delta", "finish_reason",
             "content", "tool_calls", "function", "name", "prompt_tokens", "completion_tokens"]
        ), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(json_values | st.fixed_dictionaries({"choices": st.lists(json_values, max_size=2)}))
def test_any_json_is_read_or_refused_in_one_of_the_two_ways(said: object) -> None:
    try:
        read(said)  # type: ignore[arg-type]
    except (msgspec.DecodeError, ProtocolError, InBandError):
        return
