"""This file knows `droveway demo`: the main job, live, and an honest account of it."""

from collections.abc import Sequence
from importlib.resources import files
from itertools import chain, cycle, zip_longest
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from droveway.agents.roles import built_in_roles
from droveway.agents.workflow import Task
from droveway.catalog.providers import BUILT_IN
from droveway.cli import demo_screen, options, providers, tables
from droveway.cli.demo_account import Account
from droveway.cli.demo_job import DemoJob
from droveway.cli.demo_provider import misbehaving
from droveway.cli.help_page import command as make_command
from droveway.cli.running import run_async
from droveway.cli.tasks import read_tasks
from droveway.clock import SystemClock
from droveway.engine.engine import Engine
from droveway.engine.provider import Provider
from droveway.errors import SettingsError

CONNECTIONS: Final = 100
SEED: Final = 17
positive = click.IntRange(min=1)


@make_command("demo", "droveway demo", "droveway demo --tasks 34 --connections 10 --json demo.json")
@click.option("--live", is_flag=True, help="Ask the vendors whose keys are set, for real money.")
@click.option("--tasks", "most", type=positive, metavar="N", help="Do only so many tasks.")
@click.option("--connections", type=positive, default=CONNECTIONS, show_default=True, metavar="N",
              help="Tasks at once, each on a connection.")  # fmt: skip
@click.option("--seed", type=int, default=SEED, show_default=True, metavar="N",
              help="Seed of what the provider says and does.")  # fmt: skip
@click.option("--no-faults", is_flag=True, help="Let the provider behave.")
@click.option("--json", "file", type=options.FILE, metavar="FILE",
              help="Write the account to a file as data, too.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, *, live: bool, file: Path | None, **given: Any) -> None:  # noqa: ANN401 - the options above
    """Watch 17 agents at work against a provider that misbehaves, and get the bill."""
    if file is not None:
        _check_writable(file)
    tasks = demo_tasks()[: given["most"]]
    if live:
        engine = _live_engine()
        job = DemoJob(_spread(tasks, engine), engine=engine)
    else:
        box = misbehaving(given["seed"], faults=not given["no_faults"])
        job = DemoJob(tasks, box=box)
    account = run_async(job.run(given["connections"]))
    tables.show(*demo_screen.account_parts(account))
    if file is not None:
        _write(file, account)
    wrong = account.bill is not None and not account.bill.is_right
    ctx.exit(0 if account.book.total.done == len(tasks) and not wrong else 1)


def demo_tasks() -> list[Task]:
    """Return the tasks that come with the package, each role's in turn with the others'."""
    by_role: dict[str, list[Task]] = {role: [] for role in built_in_roles()}

    def refuse(line: object) -> None:
        raise AssertionError(f"the package's own tasks are broken: {line}")

    with files("droveway.cli").joinpath("demo_tasks.jsonl").open("rb") as file:
        for task in read_tasks(file, list(by_role), bad=refuse):
            by_role[str(task.role)].append(task)
    return [task for task in chain(*zip_longest(*by_role.values())) if task is not None]


def _live_engine() -> Engine:
    engine = Engine()
    if not engine.providers:
        variables = ", ".join(each.key_variable for each in BUILT_IN.values())
        raise SettingsError(f"--live needs a vendor's key; set one of {variables}")
    return engine


def _spread(tasks: Sequence[Task], engine: Engine) -> list[Task]:
    """Give the tasks to the vendors in turn, each to its cheapest model."""
    models = cycle([_cheapest(engine, each) for each in engine.providers.values()])
    return [
        msgspec.structs.replace(task, model=model)
        for task, model in zip(tasks, models, strict=False)
    ]


def _cheapest(engine: Engine, provider: Provider) -> str:
    now = SystemClock().now()

    def output_price(name: str) -> int:
        model = name.removeprefix(f"{provider.name}/")
        return engine.book.lookup(
            provider=provider.name, prices=provider.prices, model=model, at=now
        ).output

    return min(providers.models_of(provider), key=output_price)


def _check_writable(file: Path) -> None:
    try:
        file.open("ab").close()
    except OSError as error:
        raise SettingsError(
            f"cannot write {str(file)!r}: {error.strerror}; choose another file"
        ) from error


def _write(file: Path, account: Account) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(account.as_json())) + b"\n")
