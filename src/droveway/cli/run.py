"""This file knows `droveway run`: tasks in, results out, and on after a stop."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import click
import msgspec

from droveway.agents.limits import Limits
from droveway.agents.outcomes import Outcome
from droveway.agents.roles import built_in_roles, load_roles
from droveway.agents.supervisor import AgentSupervisor
from droveway.agents.workflow import CONCURRENCY
from droveway.cli import options, providers, run_tables, tables
from droveway.cli.figures import Book
from droveway.cli.help_page import command as make_command
from droveway.cli.lines import complain
from droveway.cli.results import Results, result_line
from droveway.cli.running import run_async, stopping
from droveway.cli.tasks import BadLine, TaskLine, count_lines, open_tasks, read_tasks
from droveway.cli.watching import watching
from droveway.clock import SystemClock
from droveway.engine.engine import Engine
from droveway.errors import CancelledCallError, OutputValidationError
from droveway.resilience.retry import RetryPolicy
from droveway.settings import Timeout

BAD_LINES_TOLD: Final = 20
positive = click.IntRange(min=1)


@make_command(
    "run",
    "droveway run tasks.jsonl -o results.jsonl",
    "droveway run tasks.jsonl -o results.jsonl --base-url http://127.0.0.1:4010/v1 "
    "--concurrency 50",
)
@click.argument("tasks", type=options.FILE, metavar="TASKS.jsonl")
@click.option("-o", "--output", type=options.FILE, required=True, metavar="RESULTS.jsonl",
              help="Where answers go; tasks that are ok in it are not asked again.")  # fmt: skip
@options.provider
@options.model
@click.option("--roles", type=options.FILE, metavar="FILE",
              help="Roles of your own, over the 17 built-in ones.")  # fmt: skip
@click.option("--concurrency", type=positive, default=CONCURRENCY, show_default=True, metavar="N",
              help="Tasks at once.")  # fmt: skip
@options.max_cost
@click.option("--max-tokens", type=positive, metavar="N", help="Output tokens of each answer.")
@click.option("--max-attempts", type=positive, metavar="N",
              default=RetryPolicy().max_attempts, show_default=True,
              help="Requests sent for each answer at most.")  # fmt: skip
@click.option("--timeout-s", type=click.FloatRange(min=0, min_open=True, max=86_400), metavar="S",
              help="Seconds that each answer may take in all.")  # fmt: skip
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    tasks: Path,
    output: Path,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - the options above
) -> None:
    """Work off a file of tasks with the 17 roles, and go on where an earlier run was stopped."""
    if tasks.exists() and output.exists() and tasks.samefile(output):
        raise click.UsageError("the results would overwrite the tasks; choose another --output")
    chosen = providers.choose(given["base_url"], given["api_key"], given["config"])
    roles = built_in_roles() if given["roles"] is None else load_roles(given["roles"])
    with open_tasks(tasks) as file:
        providers.tell_sandbox(chosen)
        model = given["model"] or providers.default_model(chosen.engine)
        run = Run(chosen.engine, file, Results(output), roles=list(roles), model=model)
        supervisor = AgentSupervisor(
            roles,
            engine=chosen.engine,
            model=model,
            max_tokens=given["max_tokens"],
            retry=RetryPolicy(max_attempts=given["max_attempts"]),
            timeout=_timeout(chosen.engine, given["timeout_s"]),
            limits=Limits(max_cost=given["max_cost"]),
        )
        try:
            run_async(run.work(supervisor, concurrency=given["concurrency"]))
        finally:
            run.results.close()
    run.tell(as_json=as_json)
    ctx.exit(run.exit_code)


def _timeout(engine: Engine, total_s: float | None) -> Timeout | None:
    if total_s is None:
        return None
    return msgspec.structs.replace(engine.settings.streams, total_s=total_s)


def _not_ok_when_empty(outcome: Outcome) -> Outcome:
    """An answer without a word in it, because all it might write went into thinking, is none."""
    empty = any(
        reply.finish_reason == "length" and not reply.text.strip() for reply in outcome.replies
    )
    if outcome.status != "ok" or not empty:
        return outcome
    error = OutputValidationError(
        "the answer is empty: thinking took all of it; raise --max-tokens"
    )
    return msgspec.structs.replace(outcome, status="failed", error=error)


class Run:
    """One run of a task file.

    Args:
        engine: Who is asked.
        file: The tasks.
        results: Where answers go.
        roles: The roles there are.
        model: What is asked for where neither task nor role says.
    """

    def __init__(
        self, engine: Engine, file: IO[bytes], results: Results, *, roles: list[str], model: str
    ) -> None:
        self.results = results
        self._engine = engine
        self._file = file
        self._roles = roles
        self._model = model
        self._book = Book(roles)
        self._bad = 0
        self._answered_before = 0
        self._interrupted = False
        self._reasons: Counter[str] = Counter()
        self._clock = SystemClock()
        self._begun: dict[str, tuple[datetime, float]] = {}
        self._lines = count_lines(file)
        self._wall_s = 0.0

    async def work(self, supervisor: AgentSupervisor, *, concurrency: int) -> None:
        """Work the tasks off; each result is in the file before the next one is waited for."""
        start = self._clock.monotonic()
        workflow = supervisor.run_parallel_workflow(self._tasks(), concurrency=concurrency)

        def stop(_: object) -> None:
            self._interrupted = True
            workflow.stop()

        def passed() -> float:
            return self._clock.monotonic() - start

        screen = watching(
            screen=lambda: run_tables.bar(self._book, passed(), total=self._total),
            line=lambda: run_tables.progress(self._book, passed(), self._total),
        )
        async with self._engine, screen:
            with stopping(stop):
                async for result in workflow:
                    assert isinstance(result.task, TaskLine), "only these were given"
                    self._take(result.task, result.outcome)
        self._wall_s = passed()

    @property
    def _total(self) -> int | None:
        return None if self._lines is None else self._lines - self._bad - self._answered_before

    def _tasks(self) -> Iterator[TaskLine]:
        for task in read_tasks(self._file, self._roles, bad=self._tell_bad):
            if self.results.answered(task):
                self._answered_before += 1
                continue
            self._begun[task.id] = (self._clock.now(), self._clock.monotonic())
            yield task

    def _take(self, task: TaskLine, outcome: Outcome) -> None:
        at, began = self._begun.pop(task.id)
        wall_ms = (self._clock.monotonic() - began) * 1e3
        if outcome.status == "skipped" and isinstance(outcome.error, CancelledCallError):
            return  # the run was stopped before this one was begun
        outcome = _not_ok_when_empty(outcome)
        self._book.add(outcome)
        if outcome.error is not None:
            self._reasons[str(outcome.error)] += 1
        self.results.add(result_line(task, outcome, at=at, wall_ms=wall_ms, model=self._model))

    def _tell_bad(self, bad: BadLine) -> None:
        self._bad += 1
        if self._bad <= BAD_LINES_TOLD:
            click.echo(f"line {bad.line} is no task: {bad.reason}", err=True)
        if self._bad == BAD_LINES_TOLD:
            click.echo("further lines that are no tasks are only counted", err=True)

    @property
    def exit_code(self) -> int:
        """0 when every task is answered, 1 when not, 130 when the run was stopped."""
        if self._interrupted:
            return 130
        return 1 if self._bad or self._book.total.not_ok else 0

    def tell(self, *, as_json: bool) -> None:
        """Print what the run came to; what went wrong is one line on stderr."""
        if as_json:
            told = self._book.as_json(self._wall_s)
            told["totals"] |= {
                "bad_lines": self._bad,
                "answered_before": self._answered_before,
                "interrupted": self._interrupted,
            }
            click.echo(msgspec.json.format(msgspec.json.encode(told)))
        elif self._book.total.done:
            lines = run_tables.totals_lines(self._book, self._wall_s)
            tables.show(run_tables.roles_table(self._book), "", *lines)
        if not as_json and self._answered_before:
            tables.show(f"{self._answered_before} tasks were answered before and not asked again")
        problem = self._problem()
        if problem:
            complain(problem)

    def _problem(self) -> str:
        answered = f"{len(self.results.ok)} tasks are answered in {self.results.path}"
        again = "run the same line again to go on"
        if self._interrupted:
            return f"interrupted; {answered}, {again}"
        total = self._book.total
        said = []
        if total.not_ok:
            reason = self._reasons.most_common(1)[0][0].rstrip(".")
            often = "most often: " if len(self._reasons) > 1 else ""
            said.append(f"{total.not_ok} of {total.done} tasks have no answer ({often}{reason})")
        if self._bad:
            said.append(f"{self._bad} lines are no tasks")
        return f"{'; '.join(said)}; {answered}, {again}" if said else ""
