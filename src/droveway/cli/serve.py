"""This file knows how the gateway is started, and what its first user is told."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from droveway.accounts import KeyRing
from droveway.cli import options
from droveway.cli.help_page import command as make_command
from droveway.cli.providers import SETTINGS_FILE
from droveway.cli.running import run_async
from droveway.cli.serving import beside, built
from droveway.clock import SystemClock
from droveway.engine.desk import Desk
from droveway.engine.engine import Engine
from droveway.engine.journal_store import StoredJournal
from droveway.gateway.lifeline import Source
from droveway.gateway.metrics import mark_dead
from droveway.gateway.reloading import Reloading
from droveway.gateway.server import listen, reserve, serve
from droveway.gateway.workers import Workers
from droveway.settings import Settings, load_settings
from droveway.storage import Store
from droveway.telemetry import configure

FIRST_KEY: Final = "first"
WORKER: Final = "droveway.cli.serve_worker"


@make_command(
    "serve",
    "droveway serve",
    "droveway serve --config droveway.toml --port 0",
)
@click.option("--config", type=options.FILE, metavar="FILE", help="Settings to use.")
@click.option("--host", help="Address to listen on, instead of the settings'.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port likewise; 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N",
              help="Processes that share the port, likewise.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, *, config: Path | None, **given: Any) -> None:  # noqa: ANN401 - the options above
    """Run the gateway until it is told to stop, and let what was accepted end."""
    if config is None and SETTINGS_FILE.exists():
        config = SETTINGS_FILE
    typed = {name: value for name, value in given.items() if value is not None}
    source = Source(None if config is None else str(config.absolute()), typed)
    settings = Settings() if config is None else load_settings(config)
    settings = source.with_typed(settings)
    configure(settings.server.log)
    alone = settings.server.workers == 1
    serving = _serve_alone(settings, source) if alone else _serve_by_workers(settings, source)
    stopped_by = run_async(serving)
    click.echo("stopped", err=True)
    if stopped_by is signal.SIGINT:
        ctx.exit(130)


async def _serve_alone(settings: Settings, source: Source) -> signal.Signals:
    listener = listen(settings.server.host, settings.server.port)
    async with built(settings, source) as parts:
        secret = await _first_key(parts.ring, settings)
        async with beside(
            parts.journal.maintain(keep_days=settings.journal.keep_days),
            *_upkeep(parts.store, settings),
        ):
            with _at_hangup(parts.reloading):
                return await serve(
                    parts.gateway,
                    listener,
                    drain_s=settings.server.drain_s,
                    ready=lambda url: _announce(url, secret, settings),
                    draining=_telling_of_drain(settings.server.drain_s),
                )


async def _serve_by_workers(settings: Settings, source: Source) -> signal.Signals:
    """Have workers serve; this process watches over them, and does what is done once for all."""
    port = reserve(settings.server.host, settings.server.port)
    store = Store(settings.storage.url, create=True)
    engine: Engine | None = None

    def put_in_place(new: Settings) -> None:
        nonlocal engine
        assert engine is not None, "made when the workers are ready"
        # It serves nobody: what it cannot be succeeded by, no worker's engine can be either.
        engine = engine.successor(new)
        workers.settings = new
        configure(new.server.log)

    try:
        reloading = Reloading(
            store, started_with=settings, read=source.read, put_in_place=put_in_place
        )
        with tempfile.TemporaryDirectory(prefix="droveway-metrics-") as folder:
            async with Workers(
                _worker_command(),
                settings,
                source,
                port=port,
                metrics_directory=folder,
                generation=lambda: reloading.generation,
                on_ended=lambda pid: mark_dead(Path(folder), pid),
                draining=_telling_of_drain(settings.server.drain_s),
            ) as workers:
                ready = await workers.ready()
                engine = Engine(settings)
                async with beside(
                    StoredJournal(store).maintain(keep_days=settings.journal.keep_days),
                    *_upkeep(store, settings),
                    reloading.follow(SystemClock()),
                ):
                    with _at_hangup(reloading):
                        if ready:
                            _announce(
                                workers.url, await _first_key(KeyRing(store), settings), settings
                            )
                        return await workers.gone()
    finally:
        await store.aclose()


def _upkeep(store: Store, settings: Settings) -> list[Coroutine[Any, Any, None]]:
    """Return what keeps the ledger up, where there is one; once for all workers."""
    return [Desk(store, settings.billing).maintain()] if settings.billing.enabled else []


@contextmanager
def _at_hangup(reloading: Reloading) -> Iterator[None]:
    """Reload at SIGHUP while the block runs; where there is no such signal, never."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(reloading.reload_and_tell(lambda line: click.echo(line, err=True)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if not hasattr(signal, "SIGHUP"):
        yield
        return
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _worker_command() -> list[str]:
    # `-m` would look for modules in the working directory; a console script does not.
    here = {"", str(Path.cwd())} & set(sys.path)
    return [sys.executable, *([] if here else ["-P"]), "-m", WORKER]


async def _first_key(ring: KeyRing, settings: Settings) -> str | None:
    """Make the first key; with billing a key needs an account, which only an operator can name."""
    if ring.list() or settings.billing.enabled:
        return None
    return (await ring.add(FIRST_KEY))[1]


def _announce(url: str, secret: str | None, settings: Settings) -> None:
    click.echo(f"listening on {url}")
    sys.stdout.flush()
    click.echo(_welcome(url, secret, settings), err=True)


def _telling_of_drain(drain_s: int) -> Callable[[int], None]:
    """Return what says on stderr why it does not end at once, where it does not."""

    def tell(requests: int) -> None:
        if requests:
            many = "1 request on its" if requests == 1 else f"{requests} requests on their"
            them = "it" if requests == 1 else "them"
            click.echo(
                f"draining: {many} way, at most {drain_s} s; signal again to cut {them}", err=True
            )

    return tell


def _welcome(url: str, secret: str | None, settings: Settings) -> str:
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    make = "make a key: droveway keys add NAME"
    if settings.billing.enabled:
        make += " --account ACCOUNT (billing is on; see droveway accounts --help)"
    lines = [
        f"OpenAI-compatible base URL: {url}/v1",
        f"first key, shown only now:  {secret}" if secret else make,
        "paste into a shell:",
        f"  export OPENAI_BASE_URL={url}/v1",
        f"  export OPENAI_API_KEY={secret or 'YOUR_KEY'}",
        '  curl $OPENAI_BASE_URL/models -H "authorization: Bearer $OPENAI_API_KEY"',
    ]
    return "\n".join(lines)
