"""This file knows how the sandbox counts tokens, and which prompts it has seen before.

Its tokenizer is its own and simple: a Chinese, Japanese or Korean character is one token, a word
one per eight letters, a number one per three digits. The pieces joined are the text again.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

CACHE_BLOCK: Final = 64  # DeepSeek caches prompts in blocks of 64 tokens
_BLOCKS_MAX: Final = 100_000
_IMAGE_TOKENS: Final = 256
_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
    r"| ?[A-Za-z\u00c0-\u024f\u0370-\u052f]{1,8}| ?\d{1,3}|\s+|.",
    re.DOTALL,
)


def tokenize(text: str) -> list[str]:
    """Cut text into tokens; joined, they are the text."""
    return _TOKEN.findall(text)


def content_text(content: Any) -> str:  # noqa: ANN401 JSON as a caller sent it
    """Return the text of a message's content, be it a string or parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part["text"]) for part in parts if "text" in part)


def prompt_tokens(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> list[str]:
    """Cut a whole prompt into tokens, tools first, so that a longer talk has the same beginning."""
    tokens = tokenize(msgspec.json.encode(tools).decode()) if tools else []
    for message in messages:
        tokens.append(f"<{message['role']}>")
        content = message.get("content")
        tokens += tokenize(content_text(content))
        if isinstance(content, list):
            images = [part for part in content if part.get("type") == "image_url"]
            for image in images:
                tokens += [f"<image {hash(str(image))}>"] * _IMAGE_TOKENS
        for call in message.get("tool_calls") or ():
            tokens += tokenize(msgspec.json.encode(call).decode())
        tokens.append("<end>")
    return tokens


class PrefixCache:
    """The prompt cache of a vendor: remembers prefixes, block by block, for each key and model."""

    def __init__(self) -> None:
        self._blocks: dict[int, None] = {}

    def read_and_keep(self, owner: tuple[str, str], tokens: Sequence[str]) -> int:
        """Count the tokens of this prompt that were cached, and cache its whole blocks.

        Args:
            owner: API key and model; caches are not shared between them.
            tokens: The prompt.

        Returns:
            Cached tokens: a multiple of 64, at most the prompt's.
        """
        known = list(_chain(owner, tokens))
        hits = next((i for i, block in enumerate(known) if block not in self._blocks), len(known))
        for block in known:
            self._blocks.pop(block, None)
            self._blocks[block] = None
        while len(self._blocks) > _BLOCKS_MAX:
            del self._blocks[next(iter(self._blocks))]
        return hits * CACHE_BLOCK

    def forget(self) -> None:
        """Empty the cache."""
        self._blocks.clear()


def _chain(owner: tuple[str, str], tokens: Sequence[str]) -> Iterable[int]:
    """Name each whole block by everything up to its end."""
    link = hash(owner)
    for end in range(CACHE_BLOCK, len(tokens) + 1, CACHE_BLOCK):
        link = hash((link, *tokens[end - CACHE_BLOCK : end]))
        yield link
