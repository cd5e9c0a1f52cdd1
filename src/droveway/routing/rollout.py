"""This file knows which conversations of a role have moved to another model, and which not yet.

Every conversation draws a number once and for all, by its hash. Those below the share have moved: a
share that grows only adds some, so that nobody is moved back by it.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

Arm = Literal["new", "old"]

WHOLE: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The phased move of one role.

    Attributes:
        role: Whose requests move. Each role draws numbers of its own.
        to: The model they move to.
        share: How many conversations of a million have moved.
    """

    role: str
    to: str
    share: int


def arm_of(rollout: Rollout, conversation: bytes) -> Arm:
    """Return on which side of the move a conversation is.

    Args:
        rollout: The move of its role.
        conversation: What is the same in every request of the conversation.
    """
    return "new" if _number(rollout.role, conversation) < rollout.share else "old"


def _number(role: str, conversation: bytes) -> int:
    drawn = blake2b(digest_size=16, person=b"rollout")
    drawn.update(blake2b(role.encode(), digest_size=16).digest())
    drawn.update(conversation)
    return int.from_bytes(drawn.digest()) % WHOLE
