"""This file knows how the gateway is started, and what its first user is told."""

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Final

import click

from droveway.accounts import KeyRing
from droveway.cli import options
from droveway.cli.help_page import command as make_command
from droveway.cli.providers import SETTINGS_FILE
from droveway.cli.running import run_async
from droveway.engine.engine import Engine
from droveway.engine.journal_store import StoredJournal
from droveway.gateway.app import Gateway
from droveway.gateway.server import listen, serve
from droveway.settings import Settings, load_settings
from droveway.storage import Store

FIRST_KEY: Final = "first"


@make_command("serve", "droveway serve", "droveway serve --config droveway.toml --port 0")
@click.option("--config", type=options.FILE, metavar="FILE", help="Settings to use.")
@click.option("--host", help="Address to listen on, instead of the settings'.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port likewise; 0 takes a free one.")
@click.pass_context
def command(
    ctx: click.Context, /, *, config: Path | None, host: str | None, port: int | None
) -> None:
    """Run the gateway until it is told to stop, and let what was accepted end."""
    if config is None and SETTINGS_FILE.exists():
        config = SETTINGS_FILE
    settings = Settings() if config is None else load_settings(config)
    # What goes wrong inside is the operator's to read; it is on stderr, with its request's id.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stopped_by = run_async(
        _serve(
            settings,
            host=settings.server.host if host is None else host,
            port=settings.server.port if port is None else port,
        )
    )
    click.echo("stopped", err=True)
    if stopped_by is signal.SIGINT:
        ctx.exit(130)


async def _serve(settings: Settings, *, host: str, port: int) -> signal.Signals:
    listener = listen(host, port)
    store = Store(settings.storage.url, create=True)
    try:
        ring = KeyRing(store)
        journal = StoredJournal(store)
        async with Engine(settings, journal=journal) as engine:
            gateway = Gateway(
                engine,
                find_key=ring.find,
                body_bytes_max=settings.server.body_bytes_max,
                keepalive_s=settings.streams.keepalive_s,
            )
            secret = None if ring.list() else (await ring.add(FIRST_KEY))[1]

            def ready(url: str) -> None:
                click.echo(f"listening on {url}")
                sys.stdout.flush()
                click.echo(_welcome(url, secret), err=True)

            upkeep = asyncio.create_task(journal.maintain(keep_days=settings.journal.keep_days))
            try:
                stopped_by = await serve(
                    gateway, listener, drain_s=settings.server.drain_s, ready=ready
                )
            finally:
                upkeep.cancel()
                await asyncio.wait([upkeep])
        await journal.aclose()
        return stopped_by
    finally:
        await store.aclose()


def _welcome(url: str, secret: str | None) -> str:
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    lines = [
        f"OpenAI-compatible base URL: {url}/v1",
        f"first key, shown only now:  {secret}" if secret else "make a key: droveway keys add NAME",
        "paste into a shell:",
        f"  export OPENAI_BASE_URL={url}/v1",
        f"  export OPENAI_API_KEY={secret or 'YOUR_KEY'}",
        '  curl $OPENAI_BASE_URL/models -H "authorization: Bearer $OPENAI_API_KEY"',
    ]
    return "\n".join(lines)
