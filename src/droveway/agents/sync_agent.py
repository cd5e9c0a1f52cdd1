"""This file knows the synchronous agent: the asynchronous one, through the portal."""

from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Generic, Self, Unpack

from droveway.agents.agent import AgentOptions, AsyncAgent
from droveway.agents.answer_type import T
from droveway.agents.conversation import AgentEvent
from droveway.agents.conversation import ReplyStream as AsyncReplyStream
from droveway.agents.limits import Limits
from droveway.agents.portal import PORTAL
from droveway.agents.reply import Reply, UsageReport
from droveway.agents.turns import Turns
from droveway.errors import BadRequestError
from droveway.settings import Timeout


class Agent(Generic[T]):
    """An agent for code without `await`.

    Args:
        name: What it is called in reports.
        output_type: str, or a dataclass, msgspec struct or pydantic model that `reply.output` is.
        options: base_url, api_key, model, instructions, tools, temperature, max_tokens,
            reasoning_effort, extra, retry, timeout, limits, engine, role: see `AsyncAgent`.

    It works from many threads at once and inside a running event loop, such as a notebook's.
    """

    def __init__(
        self,
        name: str = "agent",
        *,
        output_type: type[T] = str,  # type: ignore[assignment] # the default of T
        **options: Unpack[AgentOptions],
    ) -> None:
        self._agent: AsyncAgent[T] = AsyncAgent(name, output_type=output_type, **options)

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self._agent.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def chat(
        self,
        message: Turns,
        *,
        system_prompt: str | None = None,
        model: str | None = None,
        limits: Limits | None = None,
        timeout: Timeout | None = None,
    ) -> Reply[T]:
        """Ask, and wait for the whole answer; see `AsyncAgent.chat`."""
        return PORTAL.run(
            self._agent.chat(
                message, system_prompt=system_prompt, model=model, limits=limits, timeout=timeout
            )
        )

    def stream_chat(
        self,
        message: Turns,
        *,
        system_prompt: str | None = None,
        model: str | None = None,
        limits: Limits | None = None,
        timeout: Timeout | None = None,
    ) -> "ReplyStream[T]":
        """Ask, and iterate over what comes: a context manager; see `AsyncAgent.stream_chat`."""

        async def open_stream() -> AsyncReplyStream[T]:
            return await self._agent.stream_chat(
                message, system_prompt=system_prompt, model=model, limits=limits, timeout=timeout
            ).__aenter__()

        return ReplyStream(open_stream)

    def usage_report(self) -> UsageReport:
        """Return what this agent has used so far."""
        return self._agent.usage_report()

    def close(self) -> None:
        """Let the shared engine go."""
        PORTAL.run(self._agent.aclose())


class ReplyStream(Generic[T]):
    """What comes of a call, as it comes: `with` it, iterate, then ask for `reply()`."""

    def __init__(self, open_stream: Callable[[], Coroutine[Any, Any, AsyncReplyStream[T]]]) -> None:
        self._open_stream = open_stream
        self._stream: AsyncReplyStream[T] | None = None

    def __enter__(self) -> Self:
        self._stream = PORTAL.run(self._open_stream())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        PORTAL.run(self._opened().__aexit__(kind, error, trace))

    def __iter__(self) -> Iterator[AgentEvent]:
        return self

    def __next__(self) -> AgentEvent:
        event = PORTAL.run(_next_or_none(self._opened()))
        if event is None:
            raise StopIteration
        return event

    def reply(self) -> Reply[T]:
        """Return the whole reply, after the end.

        Raises:
            BadRequestError: The stream has not been read to its end.
        """
        return self._opened().reply()

    def _opened(self) -> AsyncReplyStream[T]:
        if self._stream is None:
            raise BadRequestError("open the stream first: `with agent.stream_chat(…) as stream`")
        return self._stream


async def _next_or_none(stream: AsyncReplyStream[Any]) -> AgentEvent | None:
    # A StopAsyncIteration cannot travel through a future.
    return await anext(stream, None)
