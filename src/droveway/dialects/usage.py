"""This file knows the shapes in which vendors count tokens, and trusts none of them unchecked."""

from collections.abc import Mapping
from typing import Any, Final

from droveway.chat import Usage

# More than any model's context and output together; a count above it is no count.
TOKENS_MAX: Final = 100_000_000


def read_usage(raw: object) -> Usage | None:
    """Read a usage object of the chat completions shape.

    Cached tokens stand in `prompt_tokens_details.cached_tokens` (OpenAI) or
    `prompt_cache_hit_tokens` (DeepSeek); both are part of `prompt_tokens`, and ours are disjoint.

    Returns:
        The tokens by class, or None when a count is absent, negative, no whole number, too
        large, or its parts exceed their whole: then we count ourselves.
    """
    if not isinstance(raw, Mapping):
        return None
    try:
        return _read(raw)
    except _NoCountError:
        return None


class _NoCountError(ValueError):
    """What stands where a count should is none."""


def _read(raw: Mapping[str, Any]) -> Usage | None:
    prompt, output = _count(raw, "prompt_tokens"), _count(raw, "completion_tokens")
    if prompt is None or output is None:
        return None
    read = _first(_count(_part(raw, "prompt_tokens_details"), "cached_tokens"),
                  _count(raw, "prompt_cache_hit_tokens"))  # fmt: skip
    write = _first(_count(_part(raw, "prompt_tokens_details"), "cache_write_tokens"),
                   _count(raw, "cache_creation_input_tokens"))  # fmt: skip
    reasoning = _first(_count(_part(raw, "completion_tokens_details"), "reasoning_tokens"), 0)
    if read + write > prompt or reasoning > output:
        return None
    return Usage(
        input=prompt - read - write,
        cached_read=read,
        cache_write=write,
        output=output,
        reasoning=reasoning,
    )


def _part(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = raw.get(name)
    return part if isinstance(part, Mapping) else {}


def _count(raw: Mapping[str, Any], name: str) -> int | None:
    count = raw.get(name)
    if count is None:
        return None
    if type(count) is not int or not 0 <= count <= TOKENS_MAX:
        raise _NoCountError(name)
    return count


def _first(*counts: int | None) -> int:
    return next((count for count in counts if count is not None), 0)
