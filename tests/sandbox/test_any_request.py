"""These tests know that no request, however odd, breaks the sandbox."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.sandbox import Profile
from droveway.sandbox.answer import chance_of, compose
from droveway.sandbox.asked import RefusedError, read_request
from droveway.sandbox.shapes import SchemaError, fitting
from droveway.sandbox.tokens import tokenize

QUESTION = [{"role": "user", "content": "Explain the prompt cache of a vendor"}]


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokenize(text)) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "id", "name", "function", "type", "text"]), inner
        )
    ),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {
        "model": st.just("deepseek-flash"),
        "messages": st.just(QUESTION) | st.lists(JSON, max_size=3),
    },
    optional=dict.fromkeys(
        ("tools", "tool_choice", "response_format", "thinking", "n", "max_tokens"), JSON
    ),
)


@given(FIELDS)
def test_any_json_is_answered_or_refused(fields: dict[str, Any]) -> None:
    try:
        asked = read_request(msgspec.json.encode(fields))
        said = compose(asked, chance_of(asked, 0), Profile())
    except (RefusedError, SchemaError):
        return
    assert asked.cap is None or said.size <= asked.cap


def test_a_branching_recursive_schema_is_filled_sparsely() -> None:
    node: dict[str, Any] = {"type": "object", "properties": {}}
    for name in "abcdef":
        node["properties"][name] = {"type": "array", "items": {"$ref": "#"}}
    value = fitting(node, "x", random.Random(0))
    assert set(value) == set("abcdef")
    assert len(msgspec.json.encode(value)) < 100_000


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"allOf": [{"$ref": "#"}]},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    ],
)
def test_a_schema_without_a_sane_value_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        fitting(schema, "x", random.Random(0))


@given(
    st.recursive(
        JSON | st.sampled_from(["string", "object", "array", "#/$defs/a"]),
        lambda inner: st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "items",
                    "enum",
                    "anyOf",
                    "allOf",
                    "$ref",
                    "minItems",
                    "required",
                    "minimum",
                    "maximum",
                    "multipleOf",
                    "minLength",
                    "format",
                ]
            ),
            inner,
        ),
        max_leaves=10,
    )
)
def test_any_schema_is_filled_or_refused(schema: Any) -> None:
    try:
        msgspec.json.encode(fitting(schema, "Plan 3 trips", random.Random(0)))
    except SchemaError:
        return
