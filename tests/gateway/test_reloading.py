"""Reloading in one process: what goes over to a new engine, and who follows whom."""

import asyncio
import gc
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from door import FakeKey
from droveway.clock import StillClock
from droveway.engine.engine import Engine
from droveway.errors import (
    APIConnectionError,
    AuthenticationError,
    CancelledCallError,
    GoingDownError,
    SettingsError,
    StoreUnavailableError,
)
from droveway.gateway.app import Gateway
from droveway.gateway.lifeline import Source
from droveway.gateway.reloading import FIXED, LOOK_EVERY_S, Reloading
from droveway.routing.plan import Candidate
from droveway.sandbox import Sandbox
from droveway.settings import (
    AliasSettings,
    BillingSettings,
    JournalSettings,
    ProviderSettings,
    RoutingSettings,
    ServerSettings,
    Settings,
    StorageSettings,
)
from droveway.storage import Store
from lab import INSTANT, answered, ask, converse, run

ENVIRON = {"KEY": "sk-first", "OTHER": "sk-other"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "a.db") as made:
        yield made


class Process:
    """What stands for a process: settings it may read, and those it has put in place."""

    def __init__(self, store: Store, *, generation: int | None = None) -> None:
        self.file: Settings | SettingsError = Settings()
        self.used: list[Settings] = []
        self.cannot: SettingsError | None = None
        self.reloading = Reloading(
            store,
            started_with=Settings(),
            read=self.read,
            put_in_place=self.use,
            generation=generation,
        )

    def read(self) -> Settings:
        if isinstance(self.file, SettingsError):
            raise self.file
        return self.file

    def use(self, settings: Settings) -> None:
        if self.cannot is not None:
            raise self.cannot
        self.used.append(settings)


@asynccontextmanager
async def following(*processes: Process) -> AsyncIterator[StillClock]:
    """Let processes look for new settings, whenever the clock is moved."""
    clock = StillClock()
    tasks = [asyncio.create_task(each.reloading.follow(clock)) for each in processes]
    try:
        await clock.advance(0)
        yield clock
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


NEW = Settings(routing=RoutingSettings(simple="new"))


# Who follows whom.


def test_all_others_put_in_place_what_one_was_told_to_reload_and_each_once(store: Store) -> None:
    async def check() -> None:
        one, two, three = (Process(store) for _ in range(3))
        for each in (one, two, three):
            each.file = NEW
        async with following(one, two, three) as clock:
            await clock.advance(LOOK_EVERY_S)
            assert one.used == two.used == three.used == []
            told = await one.reloading.reload()
            assert (told.generation, told.restart_needed) == (2, ())
            for _ in range(3):
                await clock.advance(LOOK_EVERY_S)
            assert one.used == two.used == three.used == [NEW]

    run(check())


@pytest.mark.parametrize("refusing", ["file", "cannot"])
def test_settings_that_cannot_be_used_are_told_to_nobody(store: Store, refusing: str) -> None:
    async def check() -> None:
        one, two = Process(store), Process(store)
        setattr(one, refusing, SettingsError("unknown key 'sever'"))
        async with following(two) as clock:
            with pytest.raises(SettingsError, match="sever"):
                await one.reloading.reload()
            await clock.advance(LOOK_EVERY_S)
            assert two.used == []
            assert one.reloading.generation == 1

    run(check())


def test_a_follower_that_cannot_use_them_says_so_once_and_follows_the_next(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        one, two = Process(store), Process(store)
        two.file = SettingsError("no X")
        async with following(two) as clock:
            await one.reloading.reload()
            for _ in range(3):
                await clock.advance(LOOK_EVERY_S)
            assert caplog.messages == [
                "the new settings cannot be used, and the old ones stay: no X",
            ]
            two.file = NEW
            await one.reloading.reload()
            await clock.advance(LOOK_EVERY_S)
            assert two.used == [NEW]

    run(check())


def test_whoever_was_started_with_older_settings_reads_the_younger_ones(store: Store) -> None:
    """Ours: a worker may be started again between a reload and its parent's next look."""

    async def check() -> None:
        await Process(store).reloading.reload()
        late = Process(store, generation=1)
        late.file = NEW
        async with following(late) as clock:
            await clock.advance(LOOK_EVERY_S)
            assert late.used == [NEW]

    run(check())


def test_two_reloads_at_once_leave_both_with_the_younger_file(store: Store) -> None:
    """Ours: whoever read first may be the last to move the mark."""

    async def check() -> None:
        one, two = Process(store), Process(store)
        two.file = NEW
        first = asyncio.create_task(two.reloading.reload())
        second = asyncio.create_task(one.reloading.reload())
        await asyncio.gather(first, second)
        assert len(one.used) == 1
        one.file = NEW
        async with following(one, two) as clock:
            await clock.advance(LOOK_EVERY_S)
            assert (one.used[-1], two.used[-1]) == (NEW, NEW)

    run(check())


def test_a_store_that_cannot_be_written_is_told_for_what_it_is(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        one, said = Process(store), list[str]()
        one.file = NEW
        store.close()
        with pytest.raises(StoreUnavailableError):
            await one.reloading.reload()
        await one.reloading.reload_and_tell(said.append)
        assert one.used == [NEW, NEW]
        assert said == []
        (line,) = caplog.messages
        assert line.startswith("the new settings are in force in this process alone: ")
        caplog.clear()
        async with following(one) as clock:
            await clock.advance(LOOK_EVERY_S)
        (line,) = caplog.messages
        assert line.startswith("whether there are new settings cannot be seen: ")

    run(check())


def test_a_signal_is_answered_with_one_line(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        one, said = Process(store), list[str]()
        await one.reloading.reload_and_tell(said.append)
        one.file = Settings(server=ServerSettings(port=1, admin_token="env:KEY"))
        await one.reloading.reload_and_tell(said.append)
        one.file = SettingsError("no TOML")
        await one.reloading.reload_and_tell(said.append)
        waits = "server.port, server.admin_token"
        assert said == [
            "settings of generation 2 are in force",
            f"settings of generation 3 are in force; a restart is needed for {waits}",
        ]
        assert caplog.messages == [
            "the new settings cannot be used, and the old ones stay: no TOML"
        ]
        assert caplog.records[0].levelno == logging.ERROR

    run(check())


def test_what_a_restart_needs_is_named_and_not_put_in_place(store: Store) -> None:
    async def check() -> None:
        one = Process(store)
        one.file = Settings(
            server=ServerSettings(
                host="::", port=1, workers=2, drain_s=3, admin_token="env:A", body_bytes_max=5
            ),
            storage=StorageSettings(url="sqlite:other.db"),
            billing=BillingSettings(
                enabled=True,
                currency="CNY",
                low_balance="5",
                low_balance_url="https://example.com/",
                low_balance_secret="env:B",
            ),
            journal=JournalSettings(keep_days=1, bodies=True),
        )
        told = await one.reloading.reload()
        assert told.restart_needed == FIXED
        assert one.used == [
            Settings(server=ServerSettings(body_bytes_max=5), journal=JournalSettings(bodies=True))
        ]

    run(check())


def test_what_goes_only_together_stays_together(store: Store) -> None:
    async def check() -> None:
        one = Process(store)
        one.file = Settings(
            billing=BillingSettings(
                markup="1.5",
                low_balance="5",
                low_balance_url="https://example.com/",
                low_balance_secret="env:B",
            )
        )
        await one.reloading.reload()
        assert one.used == [Settings(billing=BillingSettings(markup="1.5"))]

    run(check())


def test_what_was_typed_comes_before_the_file_at_every_reading(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[server]\nport = 1\ndrain_s = 2\n", encoding="utf-8")
    read = Source(str(file), {"port": 0}).read()
    assert (read.server.port, read.server.drain_s) == (0, 2)
    with pytest.raises(SettingsError, match="start with --config FILE"):
        Source(None, {}).read()


def test_the_page_names_exactly_what_waits_for_a_restart() -> None:
    page = Path(__file__).parents[2] / "docs/reference/settings.md"
    found = re.search(
        r"These wait for a restart.*?:(.*?)\. All", page.read_text("utf-8"), re.DOTALL
    )
    assert found is not None
    assert tuple(re.findall(r"`(.*?)`", found[1])) == FIXED


# What goes over to the next engine.


@asynccontextmanager
async def lab(**sandbox: Any) -> AsyncIterator[tuple[Sandbox, Settings]]:
    async with Sandbox(**{"profile": INSTANT, **sandbox}) as box:
        yield box, told(box)


def told(box: Sandbox, **more: Any) -> Settings:
    provider = ProviderSettings(base_url=box.base_url, **{"api_key": "env:KEY", **more})
    return Settings(
        providers={"vendor": provider}, models={"fast": AliasSettings(candidates=("vendor/m",))}
    )


def test_the_next_engine_serves_by_its_own_aliases_and_the_first_by_its_old_ones() -> None:
    async def check() -> None:
        async with lab() as (box, before), Engine(before, environ=ENVIRON) as engine:
            alias = AliasSettings(candidates=("vendor/other",))
            heir = engine.successor(Settings(providers=before.providers, models={"fast": alias}))
            for each, model in ((engine, "m"), (heir, "other")):
                await answered(each, ask(model="fast"))
                assert box.journal[-1].model == model

    run(check())


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"models": ("m",)}, True),
        ({"accent": "plain"}, True),
        ({"api_key": "env:OTHER"}, False),
        ({"api_key": None}, False),
        ({"concurrency": 3}, False),
        ({"rpm": 100}, False),
        ({"tpm": 10**9}, False),
        ({"prices": "openai"}, False),
    ],
    ids=lambda each: "-".join(each) or "nothing" if isinstance(each, dict) else None,
)
def test_a_cool_down_goes_over_with_its_account_and_not_with_another(
    change: dict[str, Any], *, kept: bool
) -> None:
    async def check() -> None:
        async with lab() as (box, before), Engine(before, environ=ENVIRON) as engine:
            await answered(engine, ask(model="fast"))
            line = engine.line_of(Candidate("vendor", "m"))
            heir = engine.successor(told(box, **change))
            assert (heir.line_of(Candidate("vendor", "m")) is line) is kept
            gone = told(box)
            other = Settings(providers={"other": gone.providers["vendor"]})
            assert engine.successor(other).lines == {}

    run(check())


def test_a_key_in_a_file_is_read_anew(tmp_path: Path) -> None:
    """Ours: so a vendor's key is changed without a restart."""

    async def check() -> None:
        key = tmp_path / "key"
        key.write_text("sk-first", encoding="utf-8")
        async with lab(api_keys={"sk-second"}) as (box, _):
            settings = told(box, api_key=f"file:{key}")
            async with Engine(settings, environ={}) as engine:
                exchange, _ = await converse(engine, ask(model="fast"))
                assert isinstance(exchange.error, AuthenticationError)
                key.write_text("sk-second", encoding="utf-8")
                await answered(engine.successor(settings), ask(model="fast"))

    run(check())


def test_a_provider_that_moved_is_another_account() -> None:
    async def check() -> None:
        async with (
            lab() as (_, before),
            Sandbox(profile=INSTANT) as elsewhere,
            Engine(before, environ=ENVIRON) as engine,
        ):
            await answered(engine, ask(model="fast"))
            heir = engine.successor(told(elsewhere))
            assert heir.lines == {}
            await answered(heir, ask(model="fast"))
            assert len(elsewhere.journal) == 1

    run(check())


def test_who_waits_in_a_line_goes_before_those_who_come_after_the_reload() -> None:
    """Ours: numbers once began anew with each engine, and newcomers went first."""

    async def check() -> None:
        settings: dict[str, Any] = {"concurrency": 1}
        async with lab() as (box, _), Engine(told(box, **settings), environ=ENVIRON) as engine:
            for _ in range(3):
                await answered(engine, ask(model="fast"))
            stuck = await engine.begin(ask(model="vendor/fault-stall:3", stream=True))
            assert await stuck.outbox.take() is not None
            line = engine.line_of(Candidate("vendor", "fault-stall:3"))
            heir = engine.successor(told(box, **settings))
            waiting = []
            for each in (engine, heir):
                waiting.append(await each.begin(ask(model="vendor/fault-stall:3", stream=True)))
                async with asyncio.timeout(5):
                    while line.pacer.waiting < len(waiting):
                        await asyncio.sleep(0)
            old, new = waiting
            stuck.give_up()
            assert await old.outbox.take() is not None
            assert (line.pacer.in_flight, line.pacer.waiting) == (1, 1)
            old.give_up()
            assert await new.outbox.take() is not None
            new.give_up()
            await asyncio.wait([each.task for each in (stuck, old, new)])

    run(check())


def test_what_is_on_its_way_is_counted_by_the_next_engine_and_can_be_cut_there() -> None:
    async def check() -> None:
        async with lab() as (_, before), Engine(before, environ=ENVIRON) as engine:
            gateway = Gateway(engine, find_key=lambda _: FakeKey())
            exchange = await engine.begin(ask(model="vendor/fault-stall:3", stream=True))
            await exchange.outbox.take()
            gateway.engine = engine.successor(before)
            assert gateway.engine.open_exchanges == 1
            assert gateway.engine.on_their_way() == [exchange]
            gateway.cut_all()
            await asyncio.wait([exchange.task])
            assert isinstance(exchange.error, GoingDownError)
            assert gateway.engine.open_exchanges == engine.open_exchanges == 0
            assert engine.journal.rows[-1].outcome == "failed"

    run(check())


def test_a_stream_ends_by_the_settings_with_which_it_began() -> None:
    async def check() -> None:
        async with lab() as (box, before), Engine(before, environ=ENVIRON) as engine:
            exchange = await engine.begin(ask(model="fast", stream=True))
            heir = engine.successor(told(box, api_key="env:OTHER"))
            await asyncio.wait([exchange.task])
            assert exchange.error is None
            assert exchange.answer is not None
            await answered(heir, ask(model="fast"))
            assert heir.providers["vendor"].key is not engine.providers["vendor"].key
            assert heir.dispatch.budget is engine.dispatch.budget
            assert [row.outcome for row in heir.journal.rows] == ["completed", "completed"]

    run(check())


def test_closing_the_first_engine_closes_everything() -> None:
    async def check() -> None:
        async with lab() as (box, before):
            async with Engine(before, environ=ENVIRON) as engine:
                heir = engine.successor(engine.settings).successor(told(box, rpm=100))
                exchange = await heir.begin(ask(model="vendor/fault-stall:3", stream=True))
                await exchange.outbox.take()
            assert isinstance(exchange.error, CancelledCallError)
            assert engine.journal.rows[-1].outcome == "cancelled"
            assert engine.open_exchanges == heir.open_exchanges == 0
            async with asyncio.timeout(5):
                while box.open_connections:
                    await asyncio.sleep(0)
            late, _ = await converse(heir, ask(model="fast"))
            assert isinstance(late.error, CancelledCallError | APIConnectionError)
            assert len(box.journal) == 1

    run(check())


def test_a_hundred_reloads_leave_no_engine_and_no_socket_behind() -> None:
    async def check() -> None:
        async with lab() as (box, before), Engine(before, environ=ENVIRON) as engine:
            heir = engine
            for number in range(100):
                heir = heir.successor(told(box, rpm=1_000_000 if number % 2 else None))
                if number % 10 == 0:
                    await converse(heir, ask(model="fast", stream=True))
                await answered(heir, ask(model="fast"))
            gc.collect()
            alive = [each for each in gc.get_objects() if type(each) is Engine]
            assert len(alive) == 2, "the first, which closes it all, and the one that serves"
            assert box.open_connections == 1
            assert len(heir.lines) == 1
            assert len(engine.journal.rows) == 110

    run(check())


# Without a provider.


def test_a_sandbox_serves_on_until_there_are_providers_and_then_never_again() -> None:
    async def check() -> None:
        async with Engine(Settings(), environ={}) as engine:
            sandbox = engine.sandbox
            heir = engine.successor(Settings(routing=RoutingSettings(simple="fault-400")))
            assert (heir.sandbox, list(heir.providers)) == (sandbox, ["sandbox"])
            assert heir.model_for((await heir.begin(ask(model="simple")))._request) == "fault-400"
            async with lab() as (box, _):
                third = heir.successor(told(box, api_key=None))
                assert list(third.providers) == ["vendor"]
                await answered(third, ask(model="fast"))
                assert len(box.journal) == 1
                with pytest.raises(SettingsError, match="name one, or restart"):
                    third.successor(Settings())

    run(check())


def test_an_engine_with_providers_keeps_some() -> None:
    async def check() -> None:
        async with lab() as (_, before), Engine(before, environ={"KEY": "sk-x"}) as engine:
            with pytest.raises(SettingsError, match="they name no provider"):
                engine.successor(Settings())
            await answered(engine, ask(model="fast"))

    run(check())
