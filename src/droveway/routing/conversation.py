"""This file knows by what a conversation is recognized from one request to the next.

Best by a word of the caller's own. Without one by how it opens: that stays while it grows, as long
as the system prompt does not change and the first turn is not cut off.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from droveway.chat import Content, Message

_INSTRUCTING: Final = ("system", "developer")


def named_conversation(word: str, *, key_id: str | None) -> bytes:
    """Return what stands for a conversation that its caller has named.

    Args:
        word: Its name, which only has to differ from the others of the same key.
        key_id: Whose key it came with; None without keys.
    """
    return _digest("named", key_id, word)


def opened_conversation(
    messages: Sequence[Message], *, key_id: str | None, role: str | None
) -> bytes:
    """Return what stands for a conversation by its system prompt and its first user message.

    Args:
        messages: The conversation so far.
        key_id: Whose key it came with; None without keys.
        role: The role that speaks for the caller.
    """
    return _digest("opened", key_id, role, *_opening(messages))


def goes_on(messages: Sequence[Message]) -> bool:
    """Whether something was answered in it before."""
    return any(message.role == "assistant" for message in messages)


def _opening(messages: Sequence[Message]) -> Iterator[Content]:
    for message in messages:
        if message.role in _INSTRUCTING:
            yield message.content
        elif message.role == "user":
            yield message.content
            return


def _digest(*parts: Content) -> bytes:
    # JSON keeps the parts apart, and is the same however the caller's own JSON was written.
    return blake2b(msgspec.json.encode(parts, order="sorted"), digest_size=16).digest()
