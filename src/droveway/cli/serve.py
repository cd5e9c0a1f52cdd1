"""This file knows how the gateway is started, and what its first user is told."""

import asyncio
import gc
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from droveway.accounts import KeyRing
from droveway.cli import options
from droveway.cli.help_page import command as make_command
from droveway.cli.providers import SETTINGS_FILE
from droveway.cli.running import run_async
from droveway.clock import Clock, SystemClock
from droveway.engine.engine import Engine
from droveway.engine.journal_store import StoredJournal
from droveway.engine.till import Tills
from droveway.gateway.app import Gateway
from droveway.gateway.caller import Allotments
from droveway.gateway.lifeline import Source
from droveway.gateway.metrics import mark_dead
from droveway.gateway.reloading import Reloading
from droveway.gateway.server import listen, reserve, serve
from droveway.gateway.workers import Workers
from droveway.ledger import Epoch
from droveway.settings import Secret, Settings, load_settings, resolve_secret
from droveway.storage import Store
from droveway.telemetry import configure

LOG: Final = logging.getLogger("droveway")
FIRST_KEY: Final = "first"
# Objects made and not freed, and how many such rounds make an older generation due.
COLLECT_AFTER: Final = (20_000, 20, 50)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a process serves with.

    Attributes:
        ring: The keys.
        journal: Where the rows go.
        gateway: Who answers.
        reloading: How new settings come into force.
    """

    ring: KeyRing
    journal: StoredJournal
    gateway: Gateway
    reloading: Reloading


@asynccontextmanager
async def built(
    settings: Settings,
    source: Source,
    *,
    generation: int | None = None,
    who: str = "",
    metrics_directory: Path | None = None,
) -> AsyncIterator[Parts]:
    """Build what one process serves with, and take it down: the only one, or a worker.

    Workers share nothing but the store's files. Where no provider is set, each has an embedded
    sandbox of its own, which is as good as one: its answers depend on the request alone.

    Args:
        settings: What was set.
        source: Where that came from.
        generation: Of the settings, where another process has read them.
        who: Which process it is; empty for the only one.
        metrics_directory: Where several processes share what they count.

    Raises:
        SettingsError: The settings cannot be used.
    """
    store = Store(settings.storage.url, create=True)
    try:
        ring = KeyRing(store)
        journal = StoredJournal(store)
        async with Engine(settings, journal=journal) as engine:
            allotments = Allotments(engine.clock, store=store.path)
            epoch = await _epoch(settings, store, engine.clock)
            gateway = Gateway(
                engine,
                find_key=ring.find,
                body_bytes_max=settings.server.body_bytes_max,
                allotments=allotments,
                tills=None if epoch is None else Tills(store, epoch, clock=engine.clock),
                metrics_directory=metrics_directory,
            )
            token = _admin_token(settings)
            reloading = Reloading(
                store,
                started_with=settings,
                read=source.read,
                put_in_place=_putting_in_place(gateway, token, who=who),
                generation=generation,
            )
            if token is not None:
                _open_admin(
                    gateway, reloading, token=token, keys=ring, journal=journal, store=store
                )
            _spare_the_collector()
            parts = Parts(ring=ring, journal=journal, gateway=gateway, reloading=reloading)
            try:
                async with _beside(
                    gateway.metrics.keep_published(engine.clock), reloading.follow(engine.clock)
                ):
                    yield parts
            finally:
                allotments.close()
        await journal.aclose()
        if epoch is not None:
            await epoch.end(at=engine.clock.now())
    finally:
        await store.aclose()


async def _epoch(settings: Settings, store: Store, clock: Clock) -> Epoch | None:
    """Begin the time in which this process may hold money; None where billing is off."""
    return await Epoch.begin(store, at=clock.now()) if settings.billing.enabled else None


def _spare_the_collector() -> None:
    """Have the collector of circular garbage look less often, and never at what stays for good.

    A request that ends well leaves none; looking for them took a tenth of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def _putting_in_place(
    gateway: Gateway, token: Secret | None, *, who: str
) -> Callable[[Settings], None]:
    """Return what puts settings in force in this process; it logs by the present ones already."""
    # For good: what began with an old key may still fail after it was replaced.
    hidden = _keys(gateway.engine) | ({token.reveal()} if token else set())

    def put_in_place(new: Settings) -> None:
        heir = gateway.engine.successor(new)
        hidden.update(_keys(heir))
        configure(new.server.log, secrets=hidden, who=who)
        gateway.engine, gateway.body_bytes_max = heir, new.server.body_bytes_max

    configure(gateway.engine.settings.server.log, secrets=hidden, who=who)
    return put_in_place


def _open_admin(
    gateway: Gateway,
    reloading: Reloading,
    *,
    token: Secret,
    keys: KeyRing,
    journal: StoredJournal,
    store: Store,
) -> None:
    # Imported here: a gateway without it starts faster.
    from droveway.gateway.admin import Admin, Administration  # noqa: PLC0415

    admin = Admin(
        Administration(
            token=token,
            keys=keys,
            journal=journal,
            store=store,
            engine=lambda: gateway.engine,
            reload=reloading.reload,
        )
    )
    gateway.admin, gateway.let_operator_in = admin.serve, admin.let_in


def _admin_token(settings: Settings) -> Secret | None:
    named = settings.server.admin_token
    return None if named is None else resolve_secret(named, os.environ, key="server.admin_token")


def _keys(engine: Engine) -> set[str]:
    return {each.key.reveal() for each in engine.providers.values() if each.key is not None}


async def _serve_alone(settings: Settings, source: Source) -> signal.Signals:
    listener = listen(settings.server.host, settings.server.port)
    async with built(settings, source) as parts:
        secret = await _first_key(parts.ring, settings)
        async with _beside(parts.journal.maintain(keep_days=settings.journal.keep_days)):
            with _at_hangup(parts.reloading):
                return await serve(
                    parts.gateway,
                    listener,
                    drain_s=settings.server.drain_s,
                    ready=lambda url: _announce(url, secret, settings),
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
            ) as workers:
                ready = await workers.ready()
                engine = Engine(settings)
                async with _beside(
                    StoredJournal(store).maintain(keep_days=settings.journal.keep_days),
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


@asynccontextmanager
async def _beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let works that never end run while the block does."""
    tasks = [asyncio.create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(_tell_of_its_end)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _tell_of_its_end(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        LOG.error("%s ended, and its work with it", task.get_coro(), exc_info=error)


def _announce(url: str, secret: str | None, settings: Settings) -> None:
    click.echo(f"listening on {url}")
    sys.stdout.flush()
    click.echo(_welcome(url, secret, settings), err=True)


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
