"""This file knows how a call of an agent runs, whole or as a stream."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Generic, Self

import msgspec

from droveway.agents.answer_type import T
from droveway.agents.reply import Reply, Tally
from droveway.agents.talk import Talk
from droveway.agents.tools import ToolResult
from droveway.engine.engine import Engine
from droveway.engine.exchange import Exchange
from droveway.engine.outbox import StreamEvent
from droveway.engine.records import Row
from droveway.engine.terms import Terms
from droveway.errors import APITimeoutError, BadRequestError, DeadlineExceededError

AgentEvent = StreamEvent | ToolResult


class Conversation(Generic[T]):
    """One call of an agent on its way.

    Args:
        engine: Where its requests go.
        talk: The books of the conversation.
        terms: The terms of every request.
        tallies: Where every request is added up, answered or not.
        deadline_s: Seconds for all rounds together; None for no bound but the clocks'.
    """

    def __init__(
        self,
        engine: Engine,
        talk: Talk[T],
        *,
        terms: Terms,
        tallies: Sequence[Tally],
        deadline_s: float | None,
    ) -> None:
        self._engine = engine
        self._talk = talk
        self._terms = terms
        self._tallies = tallies
        self._deadline_s = math.inf if deadline_s is None else deadline_s
        self._until = engine.clock.monotonic() + self._deadline_s
        self._exchange: Exchange | None = None

    async def whole(self) -> Reply[T]:
        """Run all rounds and return the reply.

        Raises:
            DrovewayError: There is no answer.
        """
        try:
            while await self._round():
                pass
        except APITimeoutError as error:
            self._refuse_late(error)
            raise
        return self._talk.reply()

    async def events(self) -> AsyncIterator[AgentEvent]:
        """Run all rounds and give out what happens."""
        more = True
        try:
            while more:
                exchange = await self._begin(stream=True)
                while (event := await exchange.outbox.take()) is not None:
                    yield event
                results = await self._take(exchange)
                for result in results:
                    yield result
                more = bool(results)
        except APITimeoutError as error:
            self._refuse_late(error)
            raise
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Close the connection of a request that nobody waits for."""
        if self._exchange is not None:
            self._exchange.give_up()

    async def settled(self) -> None:
        """Wait until the last request is settled and added up."""
        if self._exchange is not None:
            await asyncio.wait([self._exchange.task])

    def reply(self) -> Reply[T]:
        """Return the reply after the last round."""
        return self._talk.reply()

    async def streamed(self) -> Reply[T]:
        """Run all rounds as streams and return the reply.

        A stream is timed from token to token, and a cut in it is noticed; so work that nobody
        watches runs better as one, too.
        """
        async for _ in self.events():
            pass
        return self._talk.reply()

    async def _round(self) -> bool:
        exchange = await self._begin(stream=False)
        try:
            await asyncio.shield(exchange.task)
        except asyncio.CancelledError:
            exchange.give_up()
            raise
        return bool(await self._take(exchange))

    async def _begin(self, *, stream: bool) -> Exchange:
        self._refuse_late(None)
        request = self._talk.request(stream=stream)
        self._exchange = await self._engine.begin(request, self._terms_now())
        self._exchange.on_row = self._count
        return self._exchange

    def _count(self, row: Row) -> None:
        for tally in self._tallies:
            tally.add(row)

    async def _take(self, exchange: Exchange) -> list[ToolResult]:
        await asyncio.wait([exchange.task])
        if exchange.error is not None:
            raise exchange.error
        assert exchange.answer is not None, "a settled exchange has an answer or an error"
        assert exchange.row is not None, "a settled exchange has its row"
        return await self._talk.take(exchange.answer, exchange.row)

    def _terms_now(self) -> Terms:
        left = self._until - self._engine.clock.monotonic()
        if left >= self._terms.timeout.total_s:
            return self._terms
        timeout = msgspec.structs.replace(self._terms.timeout, total_s=left)
        return msgspec.structs.replace(self._terms, timeout=timeout)

    def _refuse_late(self, error: APITimeoutError | None) -> None:
        """Call it the deadline's fault when it is.

        Raises:
            DeadlineExceededError: The deadline has passed.
        """
        if self._engine.clock.monotonic() >= self._until:
            raise DeadlineExceededError(
                f"the deadline of {self._deadline_s:g} s passed; allow more time",
                attempts=self._talk.attempts + (error.attempts if error is not None else 0),
            ) from error


class ReplyStream(Generic[T]):
    """What comes of a call, as it comes: `async with` it, iterate, then ask for `reply()`.

    Leaving the block before the end closes the vendor's connection and settles what came.
    """

    def __init__(self, conversation: Conversation[T]) -> None:
        self._conversation = conversation
        self._events: AsyncIterator[AgentEvent] | None = None
        self._ended = False

    async def __aenter__(self) -> Self:
        self._events = self._conversation.events()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._conversation.give_up()
        if kind is None or not issubclass(kind, asyncio.CancelledError):
            await self._conversation.settled()

    def __aiter__(self) -> AsyncIterator[AgentEvent]:
        return self

    async def __anext__(self) -> AgentEvent:
        if self._events is None:
            raise BadRequestError("open the stream first: `async with agent.stream_chat(…) as s`")
        try:
            return await anext(self._events)
        except StopAsyncIteration:
            self._ended = True
            raise

    def reply(self) -> Reply[T]:
        """Return the whole reply.

        Raises:
            BadRequestError: The stream has not been read to its end.
        """
        if not self._ended:
            raise BadRequestError("the reply is there when the stream was read to its end")
        return self._conversation.reply()
