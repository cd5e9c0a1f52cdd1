"""This file knows how many requests of one line may be in flight: a window that learns its size.

Theory of operation
-------------------
A vendor admits so many requests at once, and mostly does not say how many. The window begins at
its ceiling, narrows when a request is refused and widens while good answers come. A refusal tells
more than "too many": those that are in flight beside it were let in. Their number is the *roof*,
and the window is remembered against it.

All refused requests that were sent before the window last narrowed are one *volley*. The first one
narrows the window, each further one only corrects how many were let in:

    of a volley           the window becomes
    some were let in      0.9 × roof; but one refusal takes half of it at most, two take three
                          quarters at most, and a volley takes seven eighths at most
    none was let in       half, once until a good answer comes: the vendor refuses everything, so
                          it does not count what is in flight, and the cool-down is the remedy

Each good answer widens it, if as many are in flight as may be; one that nobody fills stays as
it is. Where it stands against the roof decides by how much:

    where                 how                                        a round trip of W answers
    no roof, or below     + 1 an answer, as far as 0.9 × roof        doubles the window
      0.9 × roof
    to the roof, and 1    evenly, in patience × max(8, W) answers    is one of 1 to 16
    beyond                + (W - roof) / W an answer                 doubles the way from the roof

Patience begins at 1. It doubles with each volley that finds the roof where it was, and begins anew
when the roof has moved: what is known well is asked rarely, and a chance refusal costs little.
So a fixed roof is struck once in 16 round trips, or in 128 answers where these are longer.

Nothing here waits or reads a clock. Moments are seconds of any monotonic clock.
"""

import math
from typing import Final, NamedTuple

FLOOR: Final = 1
# What is left below the roof after a refusal.
KEPT: Final = 0.9
# A chance refusal beside one long answer shall not leave a window of one.
CUTS_MAX: Final = 3
CUT_MAX: Final = 2.0**CUTS_MAX
# A roof that moved by less has not moved.
SAME_ROOF: Final = 0.1
PATIENCE_MAX: Final = 16
# A round trip of a tiny window is too few answers to risk a refusal for.
ROUND_TRIP_MIN: Final = 8


class _Known(NamedTuple):
    """What was known before a volley."""

    size: float
    roof: int | None
    patience: int
    in_the_dark: bool


class Window:
    """How many may be in flight, between a floor and a ceiling.

    Args:
        ceiling: The most there may be; a fresh window is as wide.
        floor: The least there may be; with 1 somebody may always go when nobody is out.

    Attributes:
        places: Requests in flight at most, as of now.
        roof: How many were let in when one more was refused; None when that is not known.
    """

    __slots__ = (
        "_before",
        "_ceiling",
        "_floor",
        "_in_the_dark",
        "_let_in",
        "_narrowed_at",
        "_patience",
        "_refused",
        "_size",
        "places",
        "roof",
    )

    def __init__(self, ceiling: int, *, floor: int = FLOOR) -> None:
        self._ceiling = ceiling
        self._floor = min(floor, ceiling)
        self._size = float(ceiling)
        self.places = ceiling
        self.roof: int | None = None
        self._patience = 1
        # The volley that narrowed it last, and what was known before it.
        self._narrowed_at = -math.inf
        self._before: _Known | None = None
        self._refused = 0
        self._let_in = 0
        # Whether everything was refused and no good answer came since.
        self._in_the_dark = False

    def answered(self, *, full: bool) -> None:
        """Note a good answer.

        Args:
            full: Whether as many were in flight as may be.
        """
        self._in_the_dark = False
        if full and self._size < self._ceiling:
            self._before = None
            self._resize(self._size + self._step())

    def refused(self, now: float, *, sent_at: float, let_in: int) -> None:
        """Note that a request was refused.

        Args:
            now: The moment.
            sent_at: When it was sent.
            let_in: Requests in flight beside it.
        """
        if sent_at > self._narrowed_at:
            self._narrowed_at = now
            self._before = _Known(self._size, self.roof, self._patience, self._in_the_dark)
            self._refused, self._let_in = 0, let_in + 1
        if self._before is None:
            return  # the window has grown since its volley: it comes too late to say anything
        self._refused += 1
        self._let_in = max(0, self._let_in - 1)
        self._narrow(self._before)

    def _narrow(self, before: _Known) -> None:
        if not self._let_in:
            self.roof, self._patience = before.roof, before.patience
            self._resize(before.size if before.in_the_dark else before.size / 2)
            self._in_the_dark = True
            return
        let_in, roof = self._let_in, before.roof
        same = roof is not None and abs(let_in - roof) <= max(1.0, SAME_ROOF * roof)
        self.roof = let_in
        self._patience = min(2 * before.patience, PATIENCE_MAX) if same else 1
        cut = CUT_MAX if self._refused >= CUTS_MAX else 2.0**self._refused
        self._resize(min(before.size, max(KEPT * let_in, before.size / cut)))

    def _step(self) -> float:
        """Return by how much the next good answer widens it."""
        roof, size = self.roof, self._size
        if roof is None:
            return 1.0
        if size < KEPT * roof:
            return min(1.0, KEPT * roof - size)
        if size < roof + 1:
            way = roof + 1 - KEPT * roof
            return way / (self._patience * max(ROUND_TRIP_MIN, size))
        return (size - roof) / size

    def _resize(self, size: float) -> None:
        self._size = max(float(self._floor), min(float(self._ceiling), size))
        self.places = int(self._size)
