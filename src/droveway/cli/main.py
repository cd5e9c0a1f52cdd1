"""This file knows the commands by name, and is their door: what comes out of it is one line.

Exit codes: 0 done, 1 the work failed, 2 wrong usage or settings, 130 interrupted. A command is
imported when it is asked for, so that help costs nothing.
"""

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

import click

from droveway import __version__
from droveway.cli.help_page import Group
from droveway.cli.lines import complain
from droveway.errors import DrovewayError, SettingsError, UnknownRoleError

DONE: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130
DEBUG_VARIABLE: Final = "DROVEWAY_DEBUG"

# name → (module of this room, one line for the list); the module has a function `command`.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "demo": ("demo", "Watch 17 agents at work against a provider that misbehaves."),
        "ask": ("ask", "Put one question to a model."),
        "run": ("run", "Work off a file of tasks with the 17 roles."),
        "serve": ("serve", "Run the gateway: one OpenAI-compatible door."),
        "keys": ("keys", "Make, list, take back and renew the keys of the gateway."),
        "accounts": ("accounts", "Open prepaid accounts, and book money that came in."),
        "ledger": ("ledger", "Check the books of the prepaid accounts."),
        "requests": ("requests", "Look up what the gateway has served."),
        "prices": ("prices", "Look prices up, and compare what models cost."),
        "sandbox": ("sandbox", "Run a provider that is not there."),
        "check": ("check", "Validate the settings without the network."),
        "bench": ("bench", "Measure an OpenAI-compatible server, or two side by side."),
        "doctor": ("doctor", "Try each provider with one small request."),
    }
)


class Droveway(Group):
    """The group of all commands, and the door in front of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"droveway.cli.{COMMANDS[cmd_name][0]}")
        found: click.Command = module.command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever a command returns
        """Run the command; click would tell of an interrupt with an empty line."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.Abort from error

    def main(self, *args: Any, **options: Any) -> NoReturn:  # noqa: ANN401 - those of click
        """Run a command and leave with its exit code; whatever goes wrong is one line."""
        options["standalone_mode"] = False
        try:
            code = super().main(*args, **options)
        except BaseException as error:  # noqa: BLE001 - this is a door: it records
            code = tell(error)
        sys.exit(code if isinstance(code, int) else DONE)


def tell(error: BaseException) -> int:
    """Say on stderr, in one line, what went wrong and what to do.

    Returns:
        The exit code.
    """
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return MISUSED
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error, file=sys.stderr)
    message, code = _judged(error)
    if code == INTERRUPTED and sys.stderr.isatty():
        click.echo(err=True)  # the terminal has written ^C
    complain(message)
    return code


def _judged(error: BaseException) -> tuple[str, int]:
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "interrupted", INTERRUPTED
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else "droveway"
        return f"{error.format_message().rstrip('.')}; see {path} --help", MISUSED
    if isinstance(error, click.ClickException):
        return error.format_message(), MISUSED
    if isinstance(error, SettingsError | UnknownRoleError):
        return str(error), MISUSED
    if isinstance(error, DrovewayError):
        return str(error), FAILED
    hint = f"run it again with {DEBUG_VARIABLE}=1 for the trace"
    return f"unexpected {type(error).__name__}: {error}; {hint}", FAILED


commands: Final = Droveway(
    name="droveway",
    help="One engine for fleets of agents, on the road to cheaper models.",
    examples=("droveway demo", 'droveway ask "What is a droveway?" --stream'),
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=lambda ctx, _, wanted: _say_version(ctx) if wanted else None,
            help="Show the version and exit.",
        )
    ],
    no_args_is_help=True,
)


def main() -> None:
    """Be the command line."""
    if not os.environ.get(DEBUG_VARIABLE):
        # An engine's own failure is told as the error of its call; its trace is for debugging.
        logging.getLogger("droveway").addHandler(logging.NullHandler())
    commands.main(prog_name="droveway")


def _say_version(ctx: click.Context) -> None:
    click.echo(f"droveway {__version__}")
    ctx.exit()
