"""This file knows how a call whose caller is gone is still answered, within bounds."""

from collections.abc import Callable

from droveway.clock import Clock
from droveway.engine.dispatch import Errand
from droveway.engine.outbox import Outbox
from droveway.engine.terms import Drain


class Draining:
    """Lets an errand end for nobody, and gives it up when it takes too long or says too much.

    Args:
        drain: The bounds.
        errand: What is on its way; nothing more is sent for it.
        outbox: Where its events went; they are let go from now on.
        clock: Where time comes from.
        enough: Gives the errand up.
    """

    def __init__(
        self,
        drain: Drain,
        errand: Errand,
        *,
        outbox: Outbox,
        clock: Clock,
        enough: Callable[[], object],
    ) -> None:
        self._left = drain.tokens
        self._enough = enough
        self._told = errand.wrote
        self._alarm = clock.call_at(clock.monotonic() + drain.seconds, self._over)
        self._is_over = False
        errand.forsaken = True
        errand.attempts[-1][1].wrote = self._wrote
        outbox.forsake()

    def end(self) -> None:
        """Take note that the errand has ended."""
        self._is_over = True
        self._alarm.cancel()
        # They lead to the exchange, which keeps this: no circle shall be left.
        self._told, self._enough = None, _nothing

    def _wrote(self, tokens: int) -> None:
        if self._told is not None:
            self._told(tokens)
        self._left -= tokens
        if self._left < 0:
            self._over()

    def _over(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._enough()


def _nothing() -> None:
    """Stand in where there is nothing to give up any more."""
