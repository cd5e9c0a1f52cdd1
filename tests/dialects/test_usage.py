"""The shapes in which vendors count tokens, and what is no count."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.chat import Usage
from droveway.dialects.usage import TOKENS_MAX, read_usage

PLAIN: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 5}
NO_COUNTS: list[Any] = [-1, TOKENS_MAX + 1, 2**70, 1.0, 1.5, float("nan"), "5", True, [5], {}]


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (PLAIN, Usage(input=10, output=5)),
        ({**PLAIN, "prompt_tokens_details": None, "completion_tokens_details": None},
         Usage(input=10, output=5)),
        ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 4}},
         Usage(input=6, cached_read=4, output=5)),
        ({**PLAIN, "prompt_tokens_details": {"cached_tokens": None}},
         Usage(input=10, output=5)),
        ({**PLAIN, "prompt_cache_hit_tokens": 10, "prompt_cache_miss_tokens": 0},
         Usage(input=0, cached_read=10, output=5)),
        ({**PLAIN, "prompt_cache_hit_tokens": 4, "prompt_tokens_details": {"cached_tokens": 4}},
         Usage(input=6, cached_read=4, output=5)),
        ({**PLAIN, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3}},
         Usage(input=3, cached_read=4, cache_write=3, output=5)),
        ({**PLAIN, "cache_creation_input_tokens": 3}, Usage(input=7, cache_write=3, output=5)),
        ({**PLAIN, "completion_tokens_details": {"reasoning_tokens": 5}},
         Usage(input=10, output=5, reasoning=5)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
        ({"prompt_tokens": TOKENS_MAX, "completion_tokens": TOKENS_MAX},
         Usage(input=TOKENS_MAX, output=TOKENS_MAX)),
    ],
)  # fmt: skip
def test_vendors_count_in_these_shapes(raw: dict[str, Any], usage: Usage) -> None:
    """Vendor quirk: OpenAI, DeepSeek and OpenRouter name the cached tokens differently (2026-11)."""
    assert read_usage(raw) == usage


@pytest.mark.parametrize("count", [None, *NO_COUNTS])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_without_both_totals_there_is_no_usage(name: str, count: object) -> None:
    assert read_usage({**PLAIN, name: count}) is None
    assert read_usage({key: PLAIN[key] for key in PLAIN if key != name}) is None


@pytest.mark.parametrize("count", NO_COUNTS)
@pytest.mark.parametrize(
    "path",
    [
        ("prompt_tokens_details", "cached_tokens"),
        ("prompt_tokens_details", "cache_write_tokens"),
        ("completion_tokens_details", "reasoning_tokens"),
        ("prompt_cache_hit_tokens",),
        ("cache_creation_input_tokens",),
    ],
)
def test_a_part_that_is_no_count_spoils_the_whole(path: tuple[str, ...], count: object) -> None:
    """Ours: a cached count that cannot be read is not a count of zero, which costs 50 times more."""
    value = count
    for name in reversed(path[1:]):
        value = {name: value}
    assert read_usage({**PLAIN, path[0]: value}) is None


@pytest.mark.parametrize(
    "parts",
    [
        {"prompt_tokens_details": {"cached_tokens": 11}},
        {"prompt_cache_hit_tokens": 11},
        {"prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 5}},
        {"completion_tokens_details": {"reasoning_tokens": 6}},
    ],
)
def test_parts_that_exceed_their_whole_are_no_usage(parts: dict[str, Any]) -> None:
    assert read_usage({**PLAIN, **parts}) is None


@pytest.mark.parametrize("raw", [None, 3, "x", [], [PLAIN], {}, True])
def test_what_is_no_object_is_no_usage(raw: object) -> None:
    assert read_usage(raw) is None


counts = st.none() | st.integers(-5, 200) | st.floats(0, 50) | st.booleans() | st.text(max_size=2)
usages = st.fixed_dictionaries(
    {"prompt_tokens": counts, "completion_tokens": counts},
    optional={
        "prompt_cache_hit_tokens": counts,
        "cache_creation_input_tokens": counts,
        "prompt_tokens_details": st.dictionaries(
            st.sampled_from(["cached_tokens", "cache_write_tokens"]), counts
        ),
        "completion_tokens_details": st.dictionaries(st.just("reasoning_tokens"), counts),
    },
)


@given(usages)
def test_a_usage_that_is_read_adds_up(raw: dict[str, Any]) -> None:
    usage = read_usage(raw)
    if usage is None:
        return
    assert usage.input_total == raw["prompt_tokens"]
    assert usage.output == raw["completion_tokens"]
    assert min(usage.input, usage.cached_read, usage.cache_write, usage.output) >= 0
    assert 0 <= usage.reasoning <= usage.output
    assert usage.source == "provider"
