"""This file knows the tiers of complexity and the keyword rule that chooses one.

The rule stands for compatibility: measured on labelled prompts it separates hard from easy ones
no better than chance. It is honest about one thing only, very long prompts.
"""

from collections.abc import Sequence
from typing import Final, Literal

from droveway.chat import Message
from droveway.errors import BadRequestError

Tier = Literal["simple", "moderate", "complex"]

TIERS: Final[tuple[Tier, ...]] = ("simple", "moderate", "complex")
LONG_TEXT_CHARACTERS: Final = 2_000
HARD_WORDS: Final = ("analyze", "compare", "synthesize", "evaluate")
HARD_WORDS_MIN: Final = 3


def tier_of(messages: Sequence[Message], complexity: str = "auto") -> Tier:
    """Return the tier of a conversation.

    Args:
        messages: The conversation; list-shaped content counts by its text.
        complexity: A tier by name, or "auto" for the keyword rule: complex when the text is over
            2,000 characters or holds more than two of analyze, compare, synthesize, evaluate
            (each counted once, in any case), else moderate.

    Raises:
        BadRequestError: There is no such tier.
    """
    if complexity == "auto":
        texts = [message.text for message in messages]
        lowered = "\n".join(texts).lower()
        hard = sum(word in lowered for word in HARD_WORDS)
        long = sum(map(len, texts)) > LONG_TEXT_CHARACTERS
        return "complex" if long or hard >= HARD_WORDS_MIN else "moderate"
    for tier in TIERS:
        if tier == complexity:
            return tier
    raise BadRequestError(f"unknown complexity {complexity!r}; use auto, {', '.join(TIERS)}")
