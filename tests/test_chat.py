"""The nouns of a conversation: what adds up, what is text, and what follows an answer."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.chat import NO_USAGE, Answer, Message, ToolCall, Usage, UsageSource, content_text

CALL = ToolCall("call_1", "add", "{}")
tokens = st.integers(0, 10**9)
usages = st.builds(
    Usage,
    input=tokens,
    cached_read=tokens,
    cache_write=tokens,
    output=tokens,
    reasoning=tokens,
    source=st.sampled_from(get_args(UsageSource)),
)


@given(usages, usages, usages)
def test_usages_add_up_in_any_order(one: Usage, two: Usage, three: Usage) -> None:
    assert one + two == two + one
    assert (one + two) + three == one + (two + three)
    assert one + NO_USAGE == one
    assert (one + two).input_total == one.input_total + two.input_total


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [("provider", "counted", "counted"), ("bound", "counted", "bound"), ("provider", "bound", "bound")],
)  # fmt: skip
def test_a_sum_is_as_good_as_its_weaker_part(
    one: UsageSource, other: UsageSource, both: UsageSource
) -> None:
    assert (Usage(source=one) + Usage(source=other)).source == both


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("", ""),
        ("a", "a"),
        ([], ""),
        (
            [{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": 3}, {"text": "b"}],
            "a\nb",
        ),
    ],
)
def test_content_is_text_or_the_texts_of_its_parts(content: Any, text: str) -> None:
    assert content_text(content) == text
    assert Message(role="user", content=content).text == text


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (Answer(text="a"), "a"),
        (Answer(text=""), ""),
        (Answer(tool_calls=(CALL,)), None),
        (Answer(text="a", tool_calls=(CALL,), reasoning="Hm."), "a"),
    ],
)
def test_an_answer_becomes_the_turn_that_follows(answer: Answer, content: str | None) -> None:
    assert answer.as_message() == Message(
        role="assistant", content=content, tool_calls=answer.tool_calls, reasoning=answer.reasoning
    )
