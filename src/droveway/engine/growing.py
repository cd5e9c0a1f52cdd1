"""This file knows how the hold of a stream grows with it, instead of being the most at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from droveway.errors import DrovewayError

# Extending takes a commit; the tokens that come meanwhile are covered by what is left of the hold.
NEARLY: Final = 0.9


class Growing:
    """Watches what a stream has written, and extends its hold before that is used up.

    Args:
        tokens: Output tokens that the hold covers.
        extend: Extends it; returns the tokens that it covers then, or raises what the caller of
            the stream is told.
        give_up: Told why the stream must end, where the hold cannot be extended.
        loop: The engine's event loop.
    """

    def __init__(
        self,
        tokens: int,
        *,
        extend: Callable[[], Awaitable[int]],
        give_up: Callable[[DrovewayError], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._covered = tokens
        self._extend = extend
        self._give_up = give_up
        self._loop = loop
        self._written = 0
        self._task: asyncio.Task[None] | None = None
        self._refusal: DrovewayError | None = None

    def wrote(self, tokens: int) -> None:
        """Take note of output tokens, as far as they can be counted while they come."""
        self._written += tokens
        if self._refusal is not None:
            if self._written >= self._covered:
                self._give_up(self._refusal)
        elif self._task is None and self._written >= self._covered * NEARLY:
            self._task = self._loop.create_task(self._grow(), name="growing hold")

    async def ended(self) -> None:
        """Wait for an extension that is on its way: nothing of it shall come after the end."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _grow(self) -> None:
        try:
            self._covered = await self._extend()
        except DrovewayError as error:
            error.forget_trace()
            self._refusal = error  # what is held is still paid for; the end comes after it
        else:
            self._task = None
