"""This file knows `droveway sandbox`: a provider that is not there, until it is stopped."""

import asyncio
import errno
import signal
from pathlib import Path
from typing import Any

import click
import msgspec

from droveway.cli import options
from droveway.cli.help_page import command as make_command
from droveway.cli.running import run_async, stopping
from droveway.errors import SettingsError
from droveway.sandbox import Limits, Profile, Sandbox, Script, load_script

LIMITS = ("rpm", "tpm", "concurrency")
positive = click.IntRange(min=1)


@make_command(
    "sandbox",
    "droveway sandbox",
    "droveway sandbox --port 0 --rpm 600 --script faults.toml",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=4010, show_default=True, type=click.IntRange(0, 65535),
              help="Port to listen on; 0 takes a free one.")  # fmt: skip
@click.option("--seed", type=int, metavar="N", help="Seed of all chance.")
@click.option("--script", type=options.FILE, metavar="FILE", help="Rules for faults and answers.")
@click.option("--rpm", type=positive, metavar="N", help="Requests a minute for a key and model.")
@click.option("--tpm", type=positive, metavar="N", help="Tokens a minute likewise.")
@click.option("--concurrency", type=positive, metavar="N", help="Requests at once likewise.")
@click.option("--instant", is_flag=True, help="Answer without waiting.")
@click.pass_context
def command(ctx: click.Context, /, *, host: str, port: int, **given: Any) -> None:  # noqa: ANN401 - the options above
    """Run a provider that is not there, until it is interrupted."""
    path: Path | None = given["script"]
    script = Script() if path is None else load_script(path)
    limits = {name: given[name] for name in LIMITS if given[name] is not None}
    profile = script.profile or Profile()
    if given["instant"]:
        profile = msgspec.structs.replace(profile, instant=True)
    box = Sandbox(
        host,
        port,
        seed=given["seed"],
        profile=profile,
        limits=msgspec.structs.replace(script.limits or Limits(), **limits),
        script=script,
    )
    try:
        stopped_by = run_async(_serve(box))
    except OSError as error:
        raise SettingsError(_why(error, host=host, port=port)) from error
    click.echo("stopped", err=True)
    if stopped_by is signal.SIGINT:
        ctx.exit(130)


async def _serve(box: Sandbox) -> signal.Signals:
    stopped: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    with stopping(stopped.set_result):
        async with box:
            click.echo(f"listening on {box.url}")
            click.echo(
                f"base URL: {box.base_url} (any key, or none; model names that begin with "
                f"fault- misbehave)\n"
                f"try it:   droveway ask hello --base-url {box.base_url}\n"
                f"or:       curl {box.base_url}/chat/completions -d "
                """'{"model": "x", "messages": [{"role": "user", "content": "hello"}]}'""",
                err=True,
            )
            return await stopped


def _why(error: OSError, *, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; choose another with --port, or a free one with 0"
    return f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another"
