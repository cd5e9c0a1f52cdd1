"""This file knows how many requests and tokens the last minute has seen, and what that leaves.

The minute slides, which is at least as strict as any window that a vendor may use. Tokens are
reserved by estimate when a request goes and corrected when it is back. Moments are seconds of any
monotonic clock.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 60.0


@dataclass(slots=True)
class Sent:
    """What was sent, how many tokens it counts for, and whether the last minute holds it."""

    at: float
    tokens: int
    recent: bool = False


class Minute:
    """The last minute of one line.

    Attributes:
        rpm: Requests in any 60 seconds at most; None for no limit.
        tpm: Tokens in any 60 seconds at most; None likewise.
    """

    __slots__ = ("_sent", "_tokens", "rpm", "tpm")

    def __init__(self, *, rpm: int | None, tpm: int | None) -> None:
        self.rpm = rpm
        self.tpm = tpm
        self._sent: deque[Sent] = deque()
        self._tokens = 0

    def note(self, sent: Sent) -> None:
        """Count what goes now, where there is a limit."""
        if self.rpm is not None or self.tpm is not None:
            sent.recent = True
            self._sent.append(sent)
            self._tokens += sent.tokens

    def correct(self, sent: Sent, tokens: int) -> None:
        """Count what a request has used in truth; one of more than a minute ago is forgotten."""
        if sent.recent:
            self._tokens += tokens - sent.tokens
            sent.tokens = tokens

    def has_room(self, now: float, tokens: int) -> bool:
        """Whether a request of so many tokens may go now."""
        if not self._sent:
            # One larger than the whole limit goes alone: the vendor shall say no, not we.
            return True
        self._forget(now)
        if self.rpm is not None and len(self._sent) >= self.rpm:
            return False
        return self.tpm is None or not self._sent or self._tokens + tokens <= self.tpm

    def frees_at(self, now: float, tokens: int) -> float:
        """Return when to ask again for so many tokens."""
        return now if self.has_room(now, tokens) else self._sent[0].at + WINDOW_S

    def _forget(self, now: float) -> None:
        # The same sum as in `frees_at`: rounded otherwise, the two would disagree for ever.
        while self._sent and self._sent[0].at + WINDOW_S <= now:
            sent = self._sent.popleft()
            sent.recent = False
            self._tokens -= sent.tokens
