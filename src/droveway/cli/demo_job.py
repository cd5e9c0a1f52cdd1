"""This file knows how the demo's job is done: every task, and once more as a whole what failed."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Final, Self

from droveway.agents.outcomes import Outcome
from droveway.agents.roles import built_in_roles
from droveway.agents.supervisor import AgentSupervisor
from droveway.agents.workflow import Task
from droveway.cli import demo_screen, run_tables
from droveway.cli.demo_account import Account
from droveway.cli.demo_bill import DemoTill, demo_till
from droveway.cli.demo_provider import PATIENCE, Misdeed, misdeeds
from droveway.cli.figures import Book
from droveway.cli.same_tokens import CHEAP_MODEL, elsewhere
from droveway.cli.watching import watching
from droveway.clock import Clock, SystemClock
from droveway.engine.assembly import SANDBOX, provider_at
from droveway.engine.engine import Engine
from droveway.errors import UpstreamError
from droveway.resilience.retry import RetryPolicy
from droveway.sandbox import Sandbox, Seen

RETRY: Final = RetryPolicy(max_attempts=6, base_s=0.2, cap_s=1.0, retry_after_max_s=2.0)


class _Waiting:
    """Tasks that wait to be taken; one that failed joins them once more.

    Unlike a generator it may be empty now and hold a task later.
    """

    def __init__(self, tasks: Sequence[Task], clock: Clock) -> None:
        self.tasks = deque(tasks)
        self.begun: dict[str, float] = {}
        self._clock = clock

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Task:
        if not self.tasks:
            raise StopIteration
        task = self.tasks.popleft()
        self.begun.setdefault(task.id, self._clock.monotonic())
        return task


class DemoJob:
    """The job.

    Args:
        tasks: What is to be done.
        box: The provider that misbehaves, not started; or
        engine: An engine with real ones.
    """

    def __init__(
        self, tasks: Sequence[Task], *, box: Sandbox | None = None, engine: Engine | None = None
    ) -> None:
        self._tasks = tasks
        self._box = box
        self._engine = engine
        self._clock = SystemClock()
        self._waiting = _Waiting(tasks, self._clock)
        self._ok: set[str] = set()
        self._again: set[str] = set()
        self._reasons: Counter[str] = Counter()
        self._book = Book(built_in_roles())
        for task in tasks:
            self._book.expect(str(task.role))

    async def run(self, connections: int) -> Account:
        """Do it, so many tasks at once."""
        if self._box is None:
            assert self._engine is not None, "there is one or the other"
            return await self._account(self._engine, connections)
        async with self._box as box, demo_till(self._clock) as till:
            provider = provider_at(box.base_url, None, name=SANDBOX)
            engine = Engine(providers=[provider], ledger=till.till)
            engine.journal.listeners.append(till.note)
            return await self._account(engine, connections, till)

    async def _account(
        self, engine: Engine, connections: int, till: DemoTill | None = None
    ) -> Account:
        at, start = self._clock.now(), self._clock.monotonic()

        def passed_s() -> float:
            return self._clock.monotonic() - start

        screen = watching(
            screen=lambda: demo_screen.live(self._book, passed_s()),
            line=lambda: run_tables.progress(self._book, passed_s(), len(self._tasks)),
        )
        async with engine, screen:
            supervisor = AgentSupervisor(
                engine=engine,
                model=CHEAP_MODEL,
                retry=RETRY,
                timeout=None if self._box is None else PATIENCE,
            )
            while self._waiting.tasks:
                workflow = supervisor.run_parallel_workflow(self._waiting, concurrency=connections)
                async for result in workflow:
                    self._take(result.task, result.outcome)
        journal = None if self._box is None else self._box.journal
        return Account(
            book=self._book,
            wall_s=passed_s(),
            at_first=len(self._ok - self._again),
            misdeeds=None if journal is None else self._misdeeds(journal),
            sockets=None if journal is None else len({seen.connection for seen in journal}),
            bill=None if journal is None or till is None else till.bill(journal, engine.book),
            reason=next((reason for reason, _ in self._reasons.most_common(1)), None),
            elsewhere=elsewhere(self._book.total.spending.usage, engine.book, at=at),
        )

    def _take(self, task: Task, outcome: Outcome) -> None:
        """Count an outcome; what the provider is to blame for is asked once more."""
        waited_ms = None
        if task.id in self._again:
            # The user has waited since it was first asked.
            waited_ms = (self._clock.monotonic() - self._waiting.begun[task.id]) * 1e3
        self._book.add(outcome, waited_ms=waited_ms)
        if outcome.status == "ok":
            self._ok.add(task.id)
        elif isinstance(outcome.error, UpstreamError) and task.id not in self._again:
            self._again.add(task.id)
            self._book.take_back(outcome)
            self._waiting.tasks.append(task)
        else:
            self._reasons[str(outcome.error)] += 1

    def _misdeeds(self, journal: Sequence[Seen]) -> list[Misdeed]:
        asked = {
            question: task.id
            for task in self._tasks
            for question in (*(message.text for message in task.opening), *task.later)
        }
        return misdeeds(journal, asked, ok=self._ok, again=self._again)
