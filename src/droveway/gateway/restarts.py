"""This file knows when a worker that died is started again, and when no more."""

from collections import deque
from typing import Final

PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 30.0
# A worker that has served for so long was in order, and its end is the first one again.
STEADY_S: Final = 60.0
EARLY_ENDS_MAX: Final = 5
EARLY_SPAN_S: Final = 60.0


class Restarts:
    """How long one worker pauses before its next start, and when enough is enough."""

    def __init__(self) -> None:
        self._pause_s = PAUSE_FIRST_S
        self._early: deque[float] = deque(maxlen=EARLY_ENDS_MAX)

    def pause_s(self, now: float, *, ready_at: float | None) -> float | None:
        """Return how long to wait after an end.

        Args:
            now: When it ended.
            ready_at: Since when it had served; None where it never did.

        Returns:
            Seconds; None where it ended too often, too soon, without ever having served.
        """
        if ready_at is None:
            self._early.append(now)
            if len(self._early) == EARLY_ENDS_MAX and now - self._early[0] <= EARLY_SPAN_S:
                return None
        else:
            self._early.clear()
            if now - ready_at >= STEADY_S:
                self._pause_s = PAUSE_FIRST_S
        pause_s = self._pause_s
        self._pause_s = min(2.0 * pause_s, PAUSE_MAX_S)
        return pause_s
