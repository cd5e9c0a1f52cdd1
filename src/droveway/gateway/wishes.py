"""This file knows what a caller may wish for beside the body: the `x-droveway-…` headers."""

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from droveway.errors import BadRequestError
from droveway.resilience.fair_queue import PRIORITIES, Priority

DEADLINE_MAX_S: Final = 86_400.0
ROLE_SIGNS_MAX: Final = 100
_OURS: Final = b"x-droveway-"
_LENGTH: Final = len(_OURS)
_PRIORITIES: Final[Mapping[str, Priority]] = {each: each for each in PRIORITIES}


class Wishes(NamedTuple):
    """What a caller wishes for one request.

    Attributes:
        priority: How urgent it is.
        deadline_s: After how many seconds its answer is of no use; None for as the settings say.
        attempts_max: How often vendors may be asked; None likewise.
        conversation: The caller's own name for the conversation.
        role: The role that speaks; a key that has one of its own speaks by that.
    """

    priority: Priority = "normal"
    deadline_s: float | None = None
    attempts_max: int | None = None
    conversation: str | None = None
    role: str | None = None


NONE: Final = Wishes()


def wishes_of(headers: Iterable[tuple[bytes, bytes]]) -> Wishes:
    """Read the wishes of a request.

    Raises:
        BadRequestError: One cannot be read: to serve it as if it were not there would be worse.
    """
    # A slice, for a call for each header would be the most of what this costs.
    told = {name: value for name, value in headers if name[:_LENGTH] == _OURS}
    if not told:
        return NONE
    words = {name: value.decode("latin-1").strip() for name, value in told.items()}
    return Wishes(
        priority=_priority(words.get(b"x-droveway-priority", "")),
        deadline_s=_deadline_s(words.get(b"x-droveway-deadline-s", "")),
        attempts_max=_attempts(words.get(b"x-droveway-attempts-max", "")),
        conversation=words.get(b"x-droveway-conversation") or None,
        role=_role(words.get(b"x-droveway-role", "")),
    )


def _priority(word: str) -> Priority:
    if not word:
        return "normal"
    if word.lower() not in _PRIORITIES:
        raise BadRequestError(f"x-droveway-priority is {', '.join(PRIORITIES)}, not {word[:40]!r}")
    return _PRIORITIES[word.lower()]


def _deadline_s(word: str) -> float | None:
    if not word:
        return None
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= DEADLINE_MAX_S:
        raise BadRequestError(
            "x-droveway-deadline-s is a number of seconds above 0 and at most a day, such as 30, "
            f"not {word[:40]!r}"
        )
    return seconds


def _attempts(word: str) -> int | None:
    if not word:
        return None
    if not (word.isascii() and word.isdigit() and 1 <= len(word) <= 3) or int(word) < 1:
        raise BadRequestError(f"x-droveway-attempts-max is 1 to 999, not {word[:40]!r}")
    return int(word)


def _role(word: str) -> str | None:
    if len(word) > ROLE_SIGNS_MAX or not word.isprintable():
        raise BadRequestError(f"x-droveway-role is up to {ROLE_SIGNS_MAX} signs on one line")
    return word or None
