"""This file knows what one process serves with: the only one, or a worker."""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from droveway.accounts import KeyRing
from droveway.engine.engine import Engine
from droveway.engine.journal_store import StoredJournal
from droveway.engine.notifying import Notifier
from droveway.engine.till import Tills
from droveway.engine.till_work import bury
from droveway.errors import SettingsError
from droveway.gateway.app import Gateway
from droveway.gateway.caller import Allotments
from droveway.gateway.lifeline import Source
from droveway.gateway.reloading import Reloading
from droveway.ledger import Epoch
from droveway.settings import Secret, Settings, resolve_secret
from droveway.storage import Store
from droveway.telemetry import configure

LOG: Final = logging.getLogger("droveway")
# Objects made and not freed, and how many such rounds make an older generation due. The last number
# bounds what a circle that nobody foresaw can keep: each round of the second may pass all streams
# that are open on to the third, and they end there.
COLLECT_AFTER: Final = (20_000, 20, 5)
# A loss of power takes no more usage than that of so many seconds.
USAGE_SYNCED_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a process serves with.

    Attributes:
        store: Where all is kept.
        ring: The keys.
        journal: Where the rows go.
        gateway: Who answers.
        reloading: How new settings come into force.
    """

    store: Store
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
    synced = USAGE_SYNCED_S if settings.billing.enabled else None
    async with AsyncExitStack() as closing:
        store = Store(settings.storage.url, create=True, sync_every_s=synced)
        closing.push_async_callback(store.aclose)
        ring, journal = KeyRing(store), StoredJournal(store)
        closing.push_async_callback(journal.aclose)
        engine = Engine(settings, journal=journal)
        tills = await _tills(settings, store, engine=engine, closing=closing)
        await closing.enter_async_context(engine)
        allotments = Allotments(engine.clock, store=store.path)
        closing.callback(allotments.close)
        gateway = Gateway(
            engine,
            find_key=ring.find,
            body_bytes_max=settings.server.body_bytes_max,
            allotments=allotments,
            tills=tills,
            metrics_directory=metrics_directory,
        )
        token, word = _admin_token(settings), _low_balance_secret(settings)
        notifier = _notifier(settings, store, engine, secret=word)
        reloading = Reloading(
            store,
            started_with=settings,
            read=source.read,
            put_in_place=_putting_in_place(gateway, [token, word], who=who),
            generation=generation,
        )
        if token is not None:
            _open_admin(gateway, reloading, token=token, keys=ring, journal=journal, store=store)
        _spare_the_collector()
        async with beside(
            gateway.metrics.keep_published(engine.clock),
            reloading.follow(engine.clock),
            *_beside_tills(gateway),
            *([] if notifier is None else [notifier.follow()]),
        ):
            yield Parts(
                store=store, ring=ring, journal=journal, gateway=gateway, reloading=reloading
            )


async def _tills(
    settings: Settings, store: Store, *, engine: Engine, closing: AsyncExitStack
) -> Tills | None:
    """Begin the time in which this process may hold money; None where billing is off."""
    if not settings.billing.enabled:
        return None
    epoch = await Epoch.begin(store, at=engine.clock.now(), bury=bury)
    closing.push_async_callback(lambda: epoch.end(at=engine.clock.now()))
    tills = Tills(store, epoch, billing=engine.billing, clock=engine.clock)
    closing.push_async_callback(tills.aclose)
    return tills


def _beside_tills(gateway: Gateway) -> list[Coroutine[Any, Any, None]]:
    """Return what goes on beside the serving where requests are paid."""
    if gateway.tills is None:
        return []
    return [gateway.tills.keep_progress(lambda: list(gateway.engine.on_their_way()))]


def _spare_the_collector() -> None:
    """Have the collector of circular garbage look less often, and never at what stays for good.

    A request that ends well leaves none; looking for them took a tenth of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def _putting_in_place(
    gateway: Gateway, own: Sequence[Secret | None], *, who: str
) -> Callable[[Settings], None]:
    """Return what puts settings in force in this process; it logs by the present ones already."""
    # For good: what began with an old key may still fail after it was replaced.
    hidden = _keys(gateway.engine) | {each.reveal() for each in own if each is not None}

    def put_in_place(new: Settings) -> None:
        heir = gateway.engine.successor(new)
        hidden.update(_keys(heir))
        configure(new.server.log, secrets=hidden, who=who)
        gateway.engine, gateway.body_bytes_max = heir, new.server.body_bytes_max
        if gateway.tills is not None:
            gateway.tills.billing = heir.billing

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
    from droveway.engine.desk import Desk  # noqa: PLC0415
    from droveway.gateway.admin import Admin, Administration  # noqa: PLC0415

    admin = Admin(
        Administration(
            token=token,
            keys=keys,
            journal=journal,
            store=store,
            engine=lambda: gateway.engine,
            # Each time anew: a reload may declare another rate.
            desk=lambda: Desk(store, gateway.engine.settings.billing, clock=gateway.engine.clock),
            reload=reloading.reload,
        )
    )
    gateway.admin, gateway.let_operator_in = admin.serve, admin.let_in


def _admin_token(settings: Settings) -> Secret | None:
    named = settings.server.admin_token
    return None if named is None else resolve_secret(named, os.environ, key="server.admin_token")


def _low_balance_secret(settings: Settings) -> Secret | None:
    named = settings.billing.low_balance_secret
    if named is None:
        return None
    return resolve_secret(named, os.environ, key="billing.low_balance_secret")


def _notifier(
    settings: Settings, store: Store, engine: Engine, *, secret: Secret | None
) -> Notifier | None:
    """Make what tells the operator's server; None where there is none. Each process has one."""
    url = settings.billing.low_balance_url
    if url is None or secret is None:
        return None
    try:
        return Notifier(store, url=url, secret=secret, pool=engine.pool, clock=engine.clock)
    except SettingsError as error:
        raise SettingsError(f"billing.low_balance_url and its secret: {error}") from error


def _keys(engine: Engine) -> set[str]:
    return {key.reveal() for each in engine.providers.values() for key in each.keys}


@asynccontextmanager
async def beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
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
