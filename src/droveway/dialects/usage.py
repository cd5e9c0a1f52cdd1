"""This file knows the shapes in which vendors count tokens, and trusts none of them unchecked."""

from typing import Any, Final

from droveway.chat import Usage

# More than any model's context and output together; a count above it is no count.
TOKENS_MAX: Final = 100_000_000
_NOTHING: Final[dict[str, Any]] = {}


def read_usage(raw: object) -> Usage | None:
    """Read a usage object of the chat completions shape.

    Cached tokens stand in `prompt_tokens_details.cached_tokens` (OpenAI) or
    `prompt_cache_hit_tokens` (DeepSeek); both are part of `prompt_tokens`, and ours are disjoint.

    Returns:
        The tokens by class, or None when a count is absent, negative, no whole number, too
        large, or its parts exceed their whole: then we count ourselves.
    """
    if not isinstance(raw, dict):
        return None
    get = raw.get
    details, writing = get("prompt_tokens_details"), get("completion_tokens_details")
    detail = details.get if isinstance(details, dict) else _NOTHING.get
    wrote = writing.get if isinstance(writing, dict) else _NOTHING.get
    counts = (
        get("prompt_tokens"),
        get("completion_tokens"),
        detail("cached_tokens"),
        get("prompt_cache_hit_tokens"),
        detail("cache_write_tokens"),
        get("cache_creation_input_tokens"),
        wrote("reasoning_tokens"),
    )
    for count in counts:
        if count is not None and (type(count) is not int or not 0 <= count <= TOKENS_MAX):
            return None
    return _usage(*counts)


def _usage(  # noqa: PLR0917 - the places are those of `counts`
    prompt: int | None,
    output: int | None,
    cached: int | None,
    hit: int | None,
    written: int | None,
    creation: int | None,
    reasoning: int | None,
) -> Usage | None:
    if prompt is None or output is None:
        return None
    read = (cached if cached is not None else hit) or 0
    write = (written if written is not None else creation) or 0
    if read + write > prompt or (reasoning or 0) > output:
        return None
    return Usage(
        input=prompt - read - write,
        cached_read=read,
        cache_write=write,
        output=output,
        reasoning=reasoning or 0,
    )
