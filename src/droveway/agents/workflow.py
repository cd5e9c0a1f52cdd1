"""This file knows how a stream of tasks is worked off by the roles, side by side."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import Any, Final

import msgspec

from droveway.agents.agent import AsyncAgent, Own
from droveway.agents.outcomes import Outcome
from droveway.agents.reply import Spending
from droveway.agents.roles import known_roles
from droveway.agents.work import Work
from droveway.chat import Message
from droveway.errors import BadRequestError

CONCURRENCY: Final = 17


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task.

    Attributes:
        id: Its name in the results.
        role: Who works on it; without one the roles take turns.
        query: A user's message, or
        messages: a whole conversation, or
        turns: a user's messages, held as one conversation, each after the reply to the last.
        model: Instead of the role's model.
        metadata: Passed on to the result.
    """

    id: str
    role: str | None = None
    query: str | None = None
    messages: tuple[Message, ...] | None = None
    turns: tuple[str, ...] | None = None
    model: str | None = None
    metadata: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        given = [self.query, self.messages, self.turns]
        if sum(bool(each) for each in given) != 1:
            raise BadRequestError(
                f"task {self.id!r} must have exactly one of query, messages and turns"
            )

    @property
    def opening(self) -> list[Message]:
        """The conversation it begins with."""
        if self.messages:
            return list(self.messages)
        return [Message(role="user", content=self.query or (self.turns or ("",))[0])]

    @property
    def later(self) -> Sequence[str]:
        """The user's messages that follow."""
        return (self.turns or ())[1:]


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """A task and how it ended."""

    task: Task
    outcome: Outcome


class Workflow:
    """Tasks being worked off; iterate over it for the results, in the order they end.

    Leaving the iteration early stops what is on its way.

    Args:
        tasks: The tasks; read one by one, as there is room.
        agents: The roles' agents, by role.
        own: What every call sets for itself.
        concurrency: How many tasks are worked on at once.

    Raises:
        UnknownRoleError: A task names a role that is not there; raised when it is reached.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        agents: Mapping[str, AsyncAgent[Any]],
        *,
        own: Own,
        concurrency: int = CONCURRENCY,
    ) -> None:
        if concurrency < 1:
            raise BadRequestError("concurrency must be at least 1")
        self._tasks = iter(tasks)
        self._agents = agents
        self._own = own
        self._concurrency = concurrency
        self._turns = cycle(agents)
        self._room = asyncio.Semaphore(concurrency)
        self._running: set[asyncio.Task[TaskResult]] = set()
        self.spending = Spending()

    async def __aiter__(self) -> AsyncIterator[TaskResult]:
        try:
            self._fill()
            while self._running:
                done, self._running = await asyncio.wait(
                    self._running, return_when=asyncio.FIRST_COMPLETED
                )
                self._fill()
                for task in done:
                    if task.cancelled():  # before its first step: it was never begun
                        continue
                    result = task.result()
                    self.spending = self.spending.with_all(result.outcome.spending)
                    yield result
        finally:
            await self._stop()

    def stop(self) -> None:
        """Take no more tasks and cancel those on their way; the iteration goes on to its end.

        Every task that was begun is still given out, so that nothing that was answered is lost.
        """
        self._tasks = iter(())
        for task in self._running:
            task.cancel()

    def _fill(self) -> None:
        for task in islice(self._tasks, self._concurrency - len(self._running)):
            role = task.role or next(self._turns)
            known_roles([role], self._agents)
            self._running.add(asyncio.create_task(self._work(task, role), name=f"task {task.id}"))

    async def _work(self, task: Task, role: str) -> TaskResult:
        own = self._own
        if task.model is not None:
            own = msgspec.structs.replace(own, model=task.model)
        work = Work(role, self._agents[role], task.opening, later=task.later, own=own)
        return TaskResult(task=task, outcome=await work.run(self._room))

    async def _stop(self) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
