"""This file knows the clocks of one attempt: connect, first token, idle and total, on one alarm."""

import math
from collections.abc import Callable

from droveway.clock import Alarm, Clock
from droveway.errors import Phase


class Watch:
    """Tells once when the present phase of an attempt has lasted too long.

    Data events only move a number; the one alarm looks at it when it goes off and sets itself
    again. So a stream costs no timer per event.

    Args:
        clock: Where time comes from.
        total_at: The moment at which every phase is over.
        expired: Told the phase that ran out, once.
    """

    __slots__ = (
        "_alarm",
        "_alarm_at",
        "_clock",
        "_deadline",
        "_expired",
        "_phase",
        "_span",
        "_total_at",
    )

    def __init__(self, clock: Clock, *, total_at: float, expired: Callable[[Phase], None]) -> None:
        self._clock = clock
        self._total_at = total_at
        self._expired = expired
        self._phase: Phase = "total"
        self._span = math.inf
        self._deadline = total_at
        self._alarm: Alarm | None = None
        self._alarm_at = math.inf

    def enter(self, phase: Phase, span_s: float) -> None:
        """Begin a phase that may last so many seconds."""
        self._phase, self._span = phase, span_s
        deadline = self._clock.monotonic() + span_s
        if self._alarm_at <= deadline and self._alarm is not None:
            self._deadline = deadline  # it goes off early enough, and will look again
        else:
            self._set(deadline)

    def touch(self) -> None:
        """Let the present phase begin anew: data came."""
        self._deadline = self._clock.monotonic() + self._span

    def suspend(self) -> None:
        """Stop all clocks but the total: it is the caller that is slow."""
        self._deadline = math.inf

    def resume(self) -> None:
        """Let the present phase begin anew after `suspend`."""
        self._set(self._clock.monotonic() + self._span)

    def stop(self) -> None:
        """Stop for good, and let go of whoever wanted to be told: the two hold each other."""
        self._cancel()
        self._expired = _nobody

    def _cancel(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set(self, deadline: float) -> None:
        self._deadline = deadline
        due = min(deadline, self._total_at)
        if self._alarm is not None and self._alarm_at <= due:
            return
        self._cancel()
        self._alarm_at = due
        self._alarm = self._clock.call_at(due, self._look)

    def _look(self) -> None:
        now = self._clock.monotonic()
        self._alarm = None
        if now >= self._total_at:
            self._expired("total")
        elif now >= self._deadline:
            self._expired(self._phase)
        else:
            self._set(self._deadline)


def _nobody(phase: Phase) -> None:
    """Stand in where nobody wants to be told any more."""
