"""The corridor: the order of its steps, and that no cancelled caller leaves a hold open."""

import asyncio

import pytest

from droveway.chat import TextDelta
from droveway.engine.engine import Engine
from droveway.engine.exchange import Exchange
from droveway.engine.outbox import BYTES_MAX
from droveway.errors import CancelledCallError, LimitExceededError, NotFoundError, SettingsError
from droveway.sandbox import Profile
from lab import BookkeepingLedger, ask, converse, lab, run, terms


async def _ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_the_steps_come_in_the_order_of_the_corridor() -> None:
    """Ours: request in, admit, plan, hold, dispatch, settle, journal."""

    async def check() -> None:
        ledger = BookkeepingLedger()
        async with lab() as (box, engine):
            engine.journal.listeners.append(lambda row: ledger.steps.append(f"row {row.outcome}"))
            exchange, _ = await converse(engine, ask(stream=True), terms(ledgers=(ledger,)))
            assert exchange.error is None
            assert len(box.journal) == 1
        assert ledger.steps == ["hold asked", "held", "settle asked", "settled", "row completed"]

    run(check())


def test_nothing_is_sent_before_the_hold_is_taken() -> None:
    async def check() -> None:
        ledger = BookkeepingLedger()
        ledger.may_hold.clear()
        async with lab() as (box, engine):
            exchange = await engine.begin(ask(), terms(ledgers=(ledger,)))
            await _ticks(50)
            assert box.journal == []
            ledger.may_hold.set()
            await asyncio.wait([exchange.task])
            assert len(box.journal) == 1

    run(check())


def test_planning_comes_before_the_hold_and_costs_nothing() -> None:
    async def check() -> None:
        ledger = BookkeepingLedger()
        async with Engine(environ={"DEEPSEEK_API_KEY": "sk-test"}) as engine:
            exchange, _ = await converse(
                engine, ask(model="no-such-model"), terms(ledgers=(ledger,))
            )
        assert isinstance(exchange.error, NotFoundError)
        assert ledger.steps == []

    run(check())


def test_the_end_of_a_stream_waits_for_its_settlement() -> None:
    async def check() -> None:
        ledger = BookkeepingLedger()
        ledger.may_settle.clear()
        async with lab() as (_, engine):
            exchange = await engine.begin(ask(stream=True), terms(ledgers=(ledger,)))
            reading = asyncio.create_task(_read(exchange))
            while "settle asked" not in ledger.steps:
                await asyncio.sleep(0)
            await _ticks(20)
            assert not reading.done()
            ledger.may_settle.set()
            assert await reading

    run(check())


async def _read(exchange: Exchange) -> str:
    text = ""
    while (event := await exchange.outbox.take()) is not None:
        text += event.text if isinstance(event, TextDelta) else ""
    return text


@pytest.mark.parametrize("cancels", [1, 2])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_caller_cancelled_at_any_moment_leaves_no_hold_open(
    cancels: int, *, stream: bool
) -> None:
    """Ours: the moments are all rounds of the event loop from the first to past the last."""

    async def check() -> set[str]:
        outcomes: set[str] = set()
        async with lab() as (_, engine):
            for moment in range(60):
                ledger = BookkeepingLedger()
                given = terms(ledgers=(ledger,))
                caller = asyncio.create_task(_call(engine, stream=stream, given=given))
                await _ticks(moment)
                for _ in range(cancels):
                    caller.cancel()
                    await asyncio.sleep(0)
                await asyncio.wait([caller])
                while engine.open_exchanges:
                    await asyncio.sleep(0)
                assert ledger.open == 0, f"a hold stayed open at moment {moment}"
                assert len(ledger.steps) in {0, 3, 4}
            outcomes = {row.outcome for row in engine.journal.rows}
        return outcomes

    outcomes = run(check())
    assert outcomes <= {"cancelled", "completed"}
    assert "cancelled" in outcomes


async def _call(engine: Engine, *, stream: bool, given: object) -> None:
    request = ask(stream=stream)
    if not stream:
        await engine.chat(request, given)  # type: ignore[arg-type]
        return
    exchange = await engine.begin(request, given)  # type: ignore[arg-type]
    async for _ in engine.events(exchange):
        pass


@pytest.mark.parametrize("step", ["hold", "settle"])
def test_a_caller_that_leaves_while_money_is_moved_does_not_stop_it(step: str) -> None:
    async def check() -> None:
        ledger = BookkeepingLedger()
        gate = ledger.may_hold if step == "hold" else ledger.may_settle
        gate.clear()
        async with lab() as (box, engine):
            exchange = await engine.begin(ask(), terms(ledgers=(ledger,)))
            while f"{step} asked" not in ledger.steps:
                await asyncio.sleep(0)
            exchange.give_up()
            exchange.give_up()
            await _ticks(20)
            gate.set()
            await asyncio.wait([exchange.task])
            assert ledger.open == 0
            assert ledger.steps[-1] == ("released" if step == "hold" else "settled")
            assert len(box.journal) == (0 if step == "hold" else 1)

    run(check())


def test_a_ledger_that_refuses_gets_the_earlier_holds_released() -> None:
    class Refusing(BookkeepingLedger):
        async def hold(self, bound: object, **told: object) -> object:  # type: ignore[override]
            raise LimitExceededError("no room")

    async def check() -> None:
        first, second = BookkeepingLedger(), Refusing()
        async with lab() as (box, engine):
            exchange, _ = await converse(engine, ask(), terms(ledgers=(first, second)))
            assert isinstance(exchange.error, LimitExceededError)
            assert box.journal == []
        assert first.steps == ["hold asked", "held", "released"]
        assert second.steps == []

    run(check())


def test_a_request_that_produced_nothing_is_released_and_a_cut_one_is_settled() -> None:
    async def check() -> None:
        for model, last in (("fault-500", "released"), ("fault-cut-event:5", "settled")):
            ledger = BookkeepingLedger()
            async with lab() as (_, engine):
                await converse(engine, ask(model=model, stream=True), terms(ledgers=(ledger,)))
            assert ledger.steps[-1] == last

    run(check())


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", ["stall:3", "slow-headers"])
def test_a_caller_that_goes_away_closes_the_vendors_connection(fault: str, *, stream: bool) -> None:
    async def check() -> None:
        async with lab() as (box, engine):
            exchange = await engine.begin(ask(model=f"fault-{fault}", stream=stream), terms())
            while not box.open_connections:
                await asyncio.sleep(0.001)
            exchange.give_up()
            async with asyncio.timeout(2):
                while box.open_connections:
                    await asyncio.sleep(0.001)
            await asyncio.wait([exchange.task])
            assert isinstance(exchange.error, CancelledCallError)
            assert [row.outcome for row in engine.journal.rows] == ["cancelled"]

    run(check())


def test_abandoning_the_iterator_of_a_stream_gives_the_request_up() -> None:
    async def check() -> None:
        async with lab() as (box, engine):
            exchange = await engine.begin(ask(model="fault-stall:3", stream=True), terms())
            events = engine.events(exchange)
            await anext(events)
            await events.aclose()  # type: ignore[attr-defined]
            await asyncio.wait([exchange.task])
            async with asyncio.timeout(2):
                while box.open_connections:
                    await asyncio.sleep(0.001)
            assert exchange.row is not None
            assert exchange.row.outcome == "cancelled"

    run(check())


def test_a_closed_engine_settles_what_was_open_and_refuses_what_is_new() -> None:
    async def check() -> None:
        ledger = BookkeepingLedger()
        async with lab() as (_, engine):
            exchange = await engine.begin(
                ask(model="fault-stall:3", stream=True), terms(ledgers=(ledger,))
            )
            while not exchange.outbox.holds_events:
                await asyncio.sleep(0.001)
            await engine.aclose()
            assert exchange.row is not None
            assert exchange.row.outcome == "cancelled"
            assert ledger.open == 0
            late, _ = await converse(engine, ask())
            assert isinstance(late.error, CancelledCallError)

    run(check())


def test_an_engine_belongs_to_one_event_loop() -> None:
    engine = Engine.at("http://127.0.0.1:9/v1")

    async def bind() -> None:
        async with engine:
            pass

    run(bind())
    with pytest.raises(SettingsError, match="another event loop"):
        run(bind())


def test_a_failure_of_our_own_is_recorded_and_told_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(BookkeepingLedger):
        async def hold(self, bound: object, **told: object) -> object:  # type: ignore[override]
            raise RuntimeError("the ledger is on fire")

    async def check() -> Exchange:
        async with lab() as (_, engine):
            exchange, _ = await converse(engine, ask(), terms(ledgers=(Broken(),)))
            return exchange

    exchange = run(check())
    assert "on fire" in str(exchange.error)
    assert exchange.id in caplog.text
    assert exchange.row is not None
    assert exchange.row.outcome == "failed"


def test_a_slow_reader_holds_the_vendor_back_instead_of_filling_memory() -> None:
    """Ours: the answer takes several megabytes on the wire; a quarter of one is buffered."""
    long = Profile(instant=True, answer_tokens=20_000, answer_sigma=0)

    async def check() -> None:
        async with lab(profile=long) as (box, engine):
            exchange = await engine.begin(ask(stream=True, model="plain"), terms())
            while not exchange.outbox.full:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.6)  # longer than the idle clock: the vendor is not to blame
            assert not exchange.task.done()
            assert exchange.outbox.size < 2 * BYTES_MAX
            assert await _read(exchange)
            assert exchange.error is None
            assert box.journal[0].tokens_sent > 10_000

    run(check())
