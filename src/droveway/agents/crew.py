"""This file knows how several roles work side by side and stop each other, or do not."""

import asyncio
from typing import Literal, get_args

from droveway.agents.outcomes import Outcome
from droveway.agents.work import Work
from droveway.errors import BadRequestError

# collect: let all end; fail_fast: the first failure stops the rest; quorum: stop when enough
# have answered, or when enough can no longer answer.
OnError = Literal["collect", "fail_fast", "quorum"]


class Crew:
    """Runs the work of several roles, at most so many at a time.

    Args:
        on_error: When the rest is stopped.
        quorum: How many replies are enough, with "quorum".
        concurrency: How many work at once.

    Raises:
        BadRequestError: These do not go together.
    """

    def __init__(self, *, on_error: OnError, quorum: int | None, concurrency: int) -> None:
        if concurrency < 1:
            raise BadRequestError("concurrency must be at least 1")
        if on_error not in get_args(OnError):
            raise BadRequestError(
                f"on_error is one of {', '.join(get_args(OnError))}, not {on_error!r}"
            )
        if (on_error == "quorum") != (quorum is not None):
            raise BadRequestError('quorum is a number of replies, and goes with on_error="quorum"')
        if quorum is not None and quorum < 1:
            raise BadRequestError("quorum must be at least 1")
        self._on_error = on_error
        self._quorum = quorum or 0
        self._room = asyncio.Semaphore(concurrency)
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        self._stopped = False

    def start(self, work: Work) -> None:
        """Begin a role's work."""
        task = asyncio.create_task(work.run(self._room), name=f"role {work.role}")
        self._tasks[work.role] = task
        task.add_done_callback(self._judge)

    async def outcomes(self) -> dict[str, Outcome]:
        """Wait for all, and return one outcome for each role in the order they began."""
        if self._tasks:
            try:
                await asyncio.wait(self._tasks.values())
            except asyncio.CancelledError:
                await self.stop()
                raise
        return {role: _outcome(role, task) for role, task in self._tasks.items()}

    async def stop(self) -> None:
        """Stop what still runs and wait until it is settled."""
        self._stop()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _stop(self) -> None:
        self._stopped = True
        for task in self._tasks.values():
            task.cancel()

    def _judge(self, _task: asyncio.Task[Outcome]) -> None:
        if self._stopped or self._on_error == "collect":
            return
        ended = [_outcome(role, task) for role, task in self._tasks.items() if task.done()]
        failed = sum(outcome.status != "ok" for outcome in ended)
        if self._on_error == "fail_fast":
            enough = failed > 0
        else:
            possible = len(self._tasks) - failed
            enough = len(ended) - failed >= self._quorum or possible < self._quorum
        if enough:
            self._stop()


def _outcome(role: str, task: asyncio.Task[Outcome]) -> Outcome:
    # A task that is cancelled before its first step never runs at all.
    return Outcome(role=role, status="skipped") if task.cancelled() else task.result()
