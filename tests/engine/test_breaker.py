"""A vendor that fails in a row, or does not let us in, is left alone; callers are told or go on."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from droveway.clock import StillClock
from droveway.engine.engine import Engine
from droveway.engine.exchange import Exchange
from droveway.engine.line import Line
from droveway.errors import (
    AuthenticationError,
    InsufficientBalanceError,
    InternalServerError,
    ProviderDownError,
)
from droveway.resilience.fair_queue import Ticket
from droveway.resilience.gate import FAILURES_IN_A_ROW, OPEN_BASE_S, SHUT_OUT_S
from droveway.routing.plan import Candidate
from droveway.sandbox import Rule, Sandbox, Script
from droveway.settings import AliasSettings, ProviderSettings, Settings, Timeout
from lab import INSTANT, PATIENT, ask, converse, run, terms

KEY = "sk-secret-of-ours"
LONG = Timeout(connect_s=60, first_token_s=60, idle_s=60, total_s=120)
FIRST = Candidate("first", "model")
OURS = {"401": AuthenticationError, "402": InsufficientBalanceError}


def script(fault: str, times: int | None = None) -> Script:
    return Script(rules=(Rule(fault=fault, times=times),))


def settings(
    first: Sandbox, second: Sandbox | None = None, *, concurrency: int | None = None
) -> Settings:
    """One vendor, or two that both may answer `either`."""
    boxes = {"first": first} if second is None else {"first": first, "second": second}
    return Settings(
        providers={
            name: ProviderSettings(
                base_url=box.base_url, api_key="env:KEY", models=("model",), concurrency=concurrency
            )
            for name, box in boxes.items()
        },
        models={"either": AliasSettings(candidates=tuple(f"{name}/model" for name in boxes))},
    )


def still_engine(clock: StillClock, told: Settings) -> Engine:
    return Engine(told, environ={"KEY": KEY}, clock=clock)


async def comes_true(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def fails_in_a_row(engine: Engine, times: int = FAILURES_IN_A_ROW) -> None:
    for number in range(times):
        exchange, _ = await converse(engine, ask(f"{number}", model="either"))
        assert type(exchange.error) is InternalServerError
    assert engine.line_of(FIRST).pacer.gate.cause == "failing"


async def waiting(engine: Engine, count: int) -> list[Exchange]:
    """Let so many stand in the first line."""
    given = terms(timeout=LONG)
    begun = [await engine.begin(ask(f"w {n}", model="either"), given) for n in range(count)]
    await comes_true(lambda: engine.line_of(FIRST).pacer.waiting == count)
    return begun


def test_after_five_failures_nobody_is_sent_for_a_second_and_a_good_probe_lets_all_in() -> None:
    async def check() -> None:
        clock = StillClock()
        async with (
            Sandbox(profile=INSTANT, script=script("500", FAILURES_IN_A_ROW)) as box,
            still_engine(clock, settings(box)) as engine,
        ):
            await fails_in_a_row(engine)
            begun = await waiting(engine, 4)
            await clock.advance(OPEN_BASE_S - 0.001)
            assert len(box.journal) == FAILURES_IN_A_ROW
            await clock.advance(0.001)
            line = engine.line_of(FIRST).pacer
            await comes_true(lambda: line.state == "closed")
            assert (len(box.journal), line.waiting) == (FAILURES_IN_A_ROW + 1, 3)
            await clock.advance(2.0)
            await asyncio.wait([each.task for each in begun])
            assert [each.error for each in begun] == [None] * 4

    run(check())


def test_when_the_probe_fails_all_who_wait_are_told_when_to_ask_again() -> None:
    async def check() -> None:
        clock = StillClock()
        async with (
            Sandbox(profile=INSTANT, script=script("500")) as box,
            still_engine(clock, settings(box)) as engine,
        ):
            await fails_in_a_row(engine)
            probe, *others = await waiting(engine, 5)
            await clock.advance(OPEN_BASE_S)
            await asyncio.wait([each.task for each in (probe, *others)])
            assert type(probe.error) is InternalServerError
            errors = [each.error for each in others]
            assert len({id(error) for error in errors}) == len(errors)
            for error in errors:
                assert isinstance(error, ProviderDownError)
                assert (error.status, error.attempts, error.sent) == (503, 0, False)
                assert error.retry_after_s == pytest.approx(2 * OPEN_BASE_S)
            assert len(box.journal) == FAILURES_IN_A_ROW + 1

    run(check())


def test_who_comes_to_a_vendor_that_stays_down_fails_at_once() -> None:
    async def check() -> None:
        clock = StillClock()
        async with (
            Sandbox(profile=INSTANT, script=script("500")) as box,
            still_engine(clock, settings(box)) as engine,
        ):
            await fails_in_a_row(engine)
            for open_s in (1.0, 2.0, 4.0):
                await clock.advance(open_s)
                await converse(engine, ask("probe", model="either"))
            seen = len(box.journal)
            exchange, _ = await converse(engine, ask(model="either"), terms(timeout=LONG))
            assert isinstance(exchange.error, ProviderDownError)
            assert exchange.error.retry_after_s == pytest.approx(8.0)
            assert (len(box.journal), engine.line_of(FIRST).pacer.waiting) == (seen, 0)

    run(check())


def test_a_caller_without_time_until_the_probe_is_told_that_the_vendor_is_down() -> None:
    async def check() -> None:
        clock = StillClock()
        async with (
            Sandbox(profile=INSTANT, script=script("500")) as box,
            still_engine(clock, settings(box)) as engine,
        ):
            await fails_in_a_row(engine)
            short = Timeout(connect_s=1, first_token_s=1, idle_s=1, total_s=0.5)
            exchange, _ = await converse(engine, ask(model="either"), terms(timeout=short))
            assert isinstance(exchange.error, ProviderDownError)
            assert exchange.error.retry_after_s == pytest.approx(OPEN_BASE_S)

    run(check())


@pytest.mark.parametrize(
    ("fault", "requests", "open_s"),
    [("500", FAILURES_IN_A_ROW, OPEN_BASE_S), ("401", 1, SHUT_OUT_S), ("402", 1, SHUT_OUT_S)],
)
def test_the_second_candidate_answers_while_the_first_is_left_alone_and_then_the_first_again(
    fault: str, requests: int, open_s: float
) -> None:
    async def check() -> None:
        clock = StillClock()
        async with (
            Sandbox(profile=INSTANT, script=script(fault, requests)) as first,
            Sandbox(profile=INSTANT) as second,
            still_engine(clock, settings(first, second)) as engine,
        ):

            async def answered_by() -> list[str]:
                exchange, _ = await converse(engine, ask(model="either"), terms(PATIENT))
                assert exchange.error is None
                assert exchange.row is not None
                return [each.provider for each in exchange.row.attempts]

            for _ in range(requests):
                assert await answered_by() == ["first", "second"]
            for _ in range(3):
                assert await answered_by() == ["second"]
            await clock.advance(open_s - 0.001)
            assert await answered_by() == ["second"]
            await clock.advance(0.001)
            assert await answered_by() == ["first"]
            assert engine.line_of(FIRST).pacer.state == "closed"
            assert await answered_by() == ["first"]

    run(check())


@pytest.mark.parametrize("fault", ["401", "402"])
def test_a_vendor_that_does_not_let_us_in_is_asked_once_in_thirty_seconds(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        clock = StillClock()
        async with (
            Sandbox(profile=INSTANT, script=script(fault)) as box,
            still_engine(clock, settings(box)) as engine,
        ):
            for asked in (1, 2):
                for number in range(10):
                    exchange, _ = await converse(engine, ask(f"{number}", model="either"))
                    assert type(exchange.error) is OURS[fault]
                    assert exchange.error.status_code == int(fault)
                    assert KEY not in str(exchange.error)
                    await clock.advance(SHUT_OUT_S / 10 - 0.001)
                assert len(box.journal) == asked
                await clock.advance(0.01)

    with caplog.at_level(logging.INFO, logger="droveway"):
        run(check())
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "first/model" in record.getMessage()
    assert KEY not in caplog.text


@pytest.mark.parametrize("fault", ["401", "402"])
def test_who_waits_when_a_vendor_does_not_let_us_in_is_told_the_same(fault: str) -> None:
    async def check() -> None:
        clock = StillClock()
        async with (
            Sandbox(profile=INSTANT, script=script(fault)) as box,
            still_engine(clock, settings(box, concurrency=1)) as engine,
        ):
            calls = [converse(engine, ask(f"{n}", model="either")) for n in range(9)]
            ended = [exchange for exchange, _ in await asyncio.gather(*calls)]
            assert {type(each.error) for each in ended} == {OURS[fault]}
            assert len({id(each.error) for each in ended}) == 9
            assert len(box.journal) == 1
            told = [getattr(each.error, "retry_after_s", None) for each in ended]
            assert told.count(pytest.approx(SHUT_OUT_S)) == 8

    run(check())


@pytest.mark.parametrize("fault", ["400", "403", "404", "413", "422"])
def test_what_a_caller_does_wrong_never_opens_a_line(fault: str) -> None:
    async def check() -> None:
        async with (
            Sandbox(profile=INSTANT, script=script(fault)) as box,
            still_engine(StillClock(), settings(box)) as engine,
        ):
            for number in range(4 * FAILURES_IN_A_ROW):
                exchange, _ = await converse(engine, ask(f"{number}", model="either"))
                assert exchange.error is not None
            assert engine.line_of(FIRST).pacer.state == "closed"
            assert len(box.journal) == 4 * FAILURES_IN_A_ROW

    run(check())


def _hold(line: Line) -> Ticket:
    """Take the only place of a line."""
    ticket = Ticket(0, 1, 0.0)
    assert line.enter_now(ticket)
    return ticket


def test_one_that_waits_goes_elsewhere_when_its_line_is_shut() -> None:
    async def check() -> None:
        async with (
            Sandbox(profile=INSTANT) as first,
            Sandbox(profile=INSTANT) as second,
            still_engine(StillClock(), settings(first, second, concurrency=1)) as engine,
        ):
            line = engine.line_of(FIRST)
            held = _hold(line)
            (exchange,) = await waiting(engine, 1)
            line.shut_out(held, AuthenticationError("no such key", status_code=401))
            await asyncio.wait([exchange.task])
            assert exchange.error is None
            assert exchange.row is not None
            assert [each.provider for each in exchange.row.attempts] == ["second"]
            assert first.journal == []
            assert (line.pacer.waiting, line.pacer.in_flight) == (0, 0)

    run(check())
