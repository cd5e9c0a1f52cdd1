"""This file knows one piece of work of one role: it always ends as exactly one outcome."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from droveway.agents.agent import AsyncAgent, Own
from droveway.agents.conversation import Conversation
from droveway.agents.outcomes import Outcome, Status
from droveway.agents.reply import Reply, Tally
from droveway.chat import Message
from droveway.errors import CancelledCallError, DrovewayError, LimitExceededError

LOG: Final = logging.getLogger("droveway.agents")
Converse = Callable[[Conversation[Any]], Awaitable[Reply[Any]]]


class Work:
    """One role's work on one conversation.

    Args:
        role: Who works.
        agent: The role's agent.
        opening: The conversation to answer.
        later: Further user's messages, each sent after the reply to the last.
        own: What its calls set for themselves.
        converse: How each call is run.
    """

    def __init__(
        self,
        role: str,
        agent: AsyncAgent[Any],
        opening: Sequence[Message],
        *,
        later: Sequence[str] = (),
        own: Own,
        converse: Converse = Conversation.streamed,
    ) -> None:
        self.role = role
        self._agent = agent
        self._opening = opening
        self._later = later
        self._own = own
        self._converse = converse
        self._call: Conversation[Any] | None = None
        self._replies: list[Reply[Any]] = []

    async def run(self, room: asyncio.Semaphore) -> Outcome:
        """Work, as soon as there is room; being cancelled is an outcome too."""
        tally = Tally()
        error: DrovewayError | None = None
        try:
            async with room:
                await self._turns(tally)
        except asyncio.CancelledError:
            error = CancelledCallError(f"the work of {self.role!r} was stopped")
        except DrovewayError as raised:
            error = raised
        except Exception as raised:  # a role's task is a door: it records
            LOG.exception("role %s failed inside", self.role)
            error = DrovewayError(
                f"{self.role!r} failed inside ({type(raised).__name__}: {raised})"
            )
        if self._call is not None:
            await self._call.settled()
        return Outcome(
            role=self.role,
            status=_status(error, begun=tally.total.attempts > 0),
            replies=tuple(self._replies),
            error=error,
            spending=tally.total,
        )

    async def _turns(self, tally: Tally) -> None:
        messages = list(self._opening)
        for turn in (None, *self._later):
            if turn is not None:
                messages.append(Message(role="user", content=turn))
            self._call = self._agent.conversation(messages, self._own, tally=tally)
            reply = await self._converse(self._call)
            self._replies.append(reply)
            messages = list(reply.messages)


def _status(error: DrovewayError | None, *, begun: bool) -> Status:
    if error is None:
        return "ok"
    if isinstance(error, LimitExceededError) and not begun:
        return "skipped"
    if isinstance(error, CancelledCallError):
        return "cancelled" if begun else "skipped"
    return "failed"
