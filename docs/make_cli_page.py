"""Prints docs/reference/cli.md from what `--help` of every command prints."""

from collections.abc import Iterator

import click
from click.testing import CliRunner

from droveway.cli.main import commands as droveway

WIDTH = 96


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Walk a command and its subcommands, the outer one first."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from commands(inner, (*path, name))


def page() -> str:
    """The whole page."""
    parts = [
        "# Command line",
        "",
        "Made from `--help` by `make docs`; exit codes: 0 done, 1 the work",
        "failed, 2 wrong usage or settings, 130 interrupted.",
    ]
    for path in commands(droveway, ()):
        told = CliRunner().invoke(
            droveway, [*path, "--help"], prog_name="droveway", terminal_width=WIDTH
        )
        parts += [
            "",
            f"## {' '.join(('droveway', *path))}",
            "",
            "```text",
            told.output.rstrip(),
            "```",
        ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
