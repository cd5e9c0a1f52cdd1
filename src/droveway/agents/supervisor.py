"""This file knows the supervisor: one query to many roles, many tasks to many roles.

Every role works in a task of its own; whatever happens to one ends as its outcome and, unless
asked otherwise, touches no other.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from droveway.agents.agent import DEFAULT_MODEL, AsyncAgent, Own
from droveway.agents.conversation import AgentEvent, Conversation
from droveway.agents.crew import Crew, OnError
from droveway.agents.limits import Limits, allowance_of
from droveway.agents.outcomes import Outcome, RunResult, sum_of
from droveway.agents.reply import Reply, Tally, UsageReport
from droveway.agents.roles import Role, built_in_roles, known_roles, relevant_roles
from droveway.agents.work import Converse, Work
from droveway.agents.workflow import CONCURRENCY, Task, Workflow
from droveway.chat import Message
from droveway.clock import SystemClock
from droveway.engine.engine import Engine
from droveway.errors import BadRequestError
from droveway.resilience.retry import RetryPolicy
from droveway.settings import Timeout

EVENTS_BUFFERED: Final = 256


class RoleEvent(msgspec.Struct, frozen=True):
    """Something that happened to one role.

    Attributes:
        role: The role.
        sequence: Counts the events of that role from 0, without gaps.
        event: A piece of its answer, or its `Outcome`, which is its last event.
    """

    role: str
    sequence: int
    event: AgentEvent | Outcome


class AgentSupervisor:
    """Seventeen agents, or the user's own, under one roof: `async with` it.

    Args:
        roles: The roles by name; the seventeen built-in ones without it.
        base_url: As for an agent.
        api_key: As for an agent.
        model: The model of every role that has none of its own.
        max_tokens: Cap of output tokens of every call.
        retry: As for an agent.
        timeout: As for an agent.
        limits: What all roles together may spend in the supervisor's life; `deadline_s` holds
            for each role's call.
        engine: The engine to run on, instead of a shared one.
    """

    def __init__(
        self,
        roles: Mapping[str, Role] | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        model: str = DEFAULT_MODEL,
        max_tokens: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: Timeout | None = None,
        limits: Limits | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.roles = dict(built_in_roles() if roles is None else roles)
        if not self.roles:
            raise BadRequestError("a supervisor needs at least one role")
        self._agents: dict[str, AsyncAgent[str]] = {
            name: AsyncAgent(
                name,
                role=name,
                base_url=base_url,
                api_key=api_key,
                model=role.model or model,
                instructions=role.instructions,
                max_tokens=max_tokens,
                retry=retry,
                timeout=timeout,
                engine=engine,
            )
            for name, role in self.roles.items()
        }
        self._limits = limits
        allowance = allowance_of(limits)
        self._also = () if allowance is None else (allowance,)
        self._tally = Tally()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def route_request(
        self,
        query: str,
        relevant_roles: Sequence[str] | None = None,
        *,
        on_error: OnError = "collect",
        quorum: int | None = None,
        concurrency: int = 100,
        timeout: Timeout | None = None,  # noqa: ASYNC109 - four clocks, not one
    ) -> RunResult:
        """Put one query to several roles at once and collect an outcome from each.

        Args:
            query: What they are asked.
            relevant_roles: Whom to ask; without it the three whose keywords fit best.
            on_error: "collect" lets all end, "fail_fast" stops the rest at the first failure,
                "quorum" as soon as `quorum` roles have answered, or so many no longer can.
            quorum: How many replies are enough.
            concurrency: How many work at once.
            timeout: Instead of the roles' clocks.

        Raises:
            UnknownRoleError: A role is not there; nothing was sent.
        """
        asked = self._asked(query, relevant_roles)
        _enough_roles(quorum, asked)
        crew = Crew(on_error=on_error, quorum=quorum, concurrency=concurrency)
        own = self._own(timeout)
        for role in asked:
            crew.start(Work(role, self._agents[role], _user(query), own=own))
        return _result(await crew.outcomes())

    def stream(
        self,
        query: str,
        relevant_roles: Sequence[str] | None = None,
        *,
        on_error: OnError = "collect",
        quorum: int | None = None,
        concurrency: int = 100,
        timeout: Timeout | None = None,
    ) -> "RoleStream":
        """Put one query to several roles and iterate over all their events, interleaved.

        Arguments as for `route_request`; an async context manager.

        Raises:
            UnknownRoleError: A role is not there; nothing was sent.
        """
        asked = self._asked(query, relevant_roles)
        _enough_roles(quorum, asked)
        crew = Crew(on_error=on_error, quorum=quorum, concurrency=concurrency)
        own = self._own(timeout)

        def work_of(role: str, stream: RoleStream) -> Work:
            converse = stream.told_by(role)
            return Work(role, self._agents[role], _user(query), own=own, converse=converse)

        return RoleStream(asked, crew, work_of)

    def run_parallel_workflow(
        self,
        tasks: Iterable[Task],
        *,
        concurrency: int = CONCURRENCY,
        timeout: Timeout | None = None,
    ) -> Workflow:
        """Work off many tasks side by side; iterate over the result with `async for`.

        Args:
            tasks: The tasks, read as there is room.
            concurrency: How many are worked on at once.
            timeout: Instead of the roles' clocks.
        """
        return Workflow(tasks, self._agents, own=self._own(timeout), concurrency=concurrency)

    def usage_report(self) -> UsageReport:
        """Return what all roles have used so far."""
        return self._tally.report(SystemClock().now())

    async def aclose(self) -> None:
        """Let the shared engine go."""
        for agent in self._agents.values():
            await agent.aclose()

    def _asked(self, query: str, names: Sequence[str] | None) -> Sequence[str]:
        if names is None:
            return relevant_roles(query, self.roles)
        if isinstance(names, str):
            raise BadRequestError(f"relevant_roles is a list of names; write [{names!r}]")
        if not names:
            raise BadRequestError("relevant_roles is empty; name a role or leave it out")
        return known_roles(dict.fromkeys(names), self.roles)

    def _own(self, timeout: Timeout | None) -> Own:
        deadline_s = self._limits.deadline_s if self._limits is not None else None
        return Own(timeout=timeout, also=self._also, deadline_s=deadline_s, tallies=(self._tally,))


class RoleStream:
    """The events of several roles, as they come: `async with` it, iterate, then `result()`.

    A consumer that does not read holds the roles back: little is buffered. Leaving the block
    early stops all of them.
    """

    def __init__(
        self, roles: Sequence[str], crew: Crew, work_of: Callable[[str, "RoleStream"], Work]
    ) -> None:
        self._roles = roles
        self._crew = crew
        self._work_of = work_of
        self._events: asyncio.Queue[RoleEvent | None] = asyncio.Queue(EVENTS_BUFFERED)
        self._next = dict.fromkeys(roles, 0)
        self._outcomes: dict[str, Outcome] | None = None
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        for role in self._roles:
            self._crew.start(self._work_of(role, self))
        self._ending = asyncio.create_task(self._end())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._ending is not None, "entered before it is left"
        if not self._ending.done():
            self._ending.cancel()
            await asyncio.wait([self._ending])

    async def __aiter__(self) -> AsyncIterator[RoleEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    def result(self) -> RunResult:
        """Return an outcome for each role.

        Raises:
            BadRequestError: The events have not been read to their end.
        """
        if self._outcomes is None:
            raise BadRequestError("the result is there when the events were read to their end")
        return _result(self._outcomes)

    def told_by(self, role: str) -> Converse:
        """Return how a role's call is run so that its events come out here."""

        async def converse(call: Conversation[Any]) -> Reply[Any]:
            async for event in call.events():
                await self._tell(role, event)
            return call.reply()

        return converse

    async def _tell(self, role: str, event: AgentEvent | Outcome) -> None:
        sequence = self._next[role]
        self._next[role] = sequence + 1
        await self._events.put(RoleEvent(role, sequence, event))

    async def _end(self) -> None:
        outcomes = await self._crew.outcomes()
        for role, outcome in outcomes.items():
            await self._tell(role, outcome)
        self._outcomes = outcomes
        await self._events.put(None)


def _enough_roles(quorum: int | None, asked: Sequence[str]) -> None:
    if quorum is not None and quorum > len(asked):
        raise BadRequestError(f"a quorum of {quorum} cannot come of {len(asked)} roles")


def _user(query: str) -> list[Message]:
    return [Message(role="user", content=query)]


def _result(outcomes: dict[str, Outcome]) -> RunResult:
    return RunResult(
        outcomes=outcomes, total=sum_of([outcome.spending for outcome in outcomes.values()])
    )
