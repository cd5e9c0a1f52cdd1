"""Turns in a line are neither lost nor taken twice, whoever leaves, and whenever."""

import asyncio
import random
from collections.abc import Callable

import pytest

from droveway.clock import StillClock, settle_loop
from droveway.engine.engine import Engine
from droveway.engine.line import Line
from droveway.engine.lines import FORGOTTEN_AFTER_S, LINES_MAX
from droveway.errors import (
    AuthenticationError,
    DeadlineExceededError,
    DrovewayError,
    InternalServerError,
    ProviderDownError,
    QueueFullError,
)
from droveway.resilience.fair_queue import Ticket
from droveway.routing.plan import Candidate
from droveway.settings import ProviderSettings, Settings
from lab import run
from streets import Street, on_a_street

NO_KEY = AuthenticationError("no such key", status_code=401)
BROKEN = InternalServerError("it broke", status_code=500)


def test_a_turn_that_comes_in_the_tick_of_the_deadline_goes_to_the_next_one() -> None:
    async def check(street: Street) -> None:
        held = street.held()
        first, second = await street.enter(until=5.0), await street.enter()
        street.clock.call_at(5.0, lambda: street.line.returned(held))
        await street.clock.advance(5.0)
        with pytest.raises(DeadlineExceededError):
            await first
        await street.clock.advance(0.0)
        await asyncio.wait_for(second, 5)
        assert street.pacer.in_flight == 1

    on_a_street(check)


def test_a_deadline_that_comes_in_the_tick_of_the_turn_gives_the_turn_on() -> None:
    async def check(street: Street) -> None:
        held = street.held()
        street.clock.call_at(5.0, lambda: street.line.returned(held))
        first, second = await street.enter(until=5.0), await street.enter()
        await street.clock.advance(5.0)
        with pytest.raises(DeadlineExceededError):
            await first
        await asyncio.wait_for(second, 5)

    on_a_street(check)


def test_one_that_expires_while_all_are_sent_away_hears_one_of_both() -> None:
    async def check(street: Street) -> None:
        held = street.held()
        first, second = await street.enter(until=5.0), await street.enter()
        street.clock.call_at(5.0, lambda: street.line.shut_out(held, NO_KEY))
        await street.clock.advance(5.0)
        with pytest.raises(DeadlineExceededError):
            await first
        with pytest.raises(AuthenticationError):
            await second

    on_a_street(check)


def test_one_that_is_sent_away_and_cancelled_in_the_same_tick_is_cancelled() -> None:
    async def check(street: Street) -> None:
        held = street.held()
        first, second = await street.enter(), await street.enter()
        street.line.shut_out(held, NO_KEY)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        with pytest.raises(AuthenticationError):
            await second

    on_a_street(check)


@pytest.mark.parametrize("rounds", range(6))
@pytest.mark.parametrize("cancelled_first", [True, False])
def test_one_that_is_cancelled_about_its_turn_hands_it_on(
    rounds: int, *, cancelled_first: bool
) -> None:
    async def check(street: Street) -> None:
        held = street.held()
        first, second = await street.enter(), await street.enter()
        steps: list[Callable[[], object]] = [
            first.cancel,
            lambda: street.line.returned(held),
        ]
        for step in steps if cancelled_first else reversed(steps):
            step()
            await settle_loop(rounds)
        await asyncio.wait([first])
        while street.flying:
            street.line.returned(street.flying.pop())
        await street.clock.advance(0.0)
        await asyncio.wait_for(second, 5)

    on_a_street(check)


def test_when_the_probe_is_given_up_the_next_one_probes() -> None:
    async def check(street: Street) -> None:
        street.line.refused(street.held(), retry_after_s=1.0)
        first, second = await street.enter(), await street.enter()
        await street.clock.advance(1.0)
        assert street.flying == [await first]
        street.line.returned(street.flying.pop())
        await asyncio.wait_for(second, 5)
        assert street.pacer.state == "half_open"
        street.line.answered(street.flying[0], [])
        assert street.pacer.gate.cause is None

    on_a_street(check, concurrency=9)


@pytest.mark.parametrize("leaves", ["cancelled", "expired"])
def test_a_probe_that_leaves_in_the_tick_in_which_it_would_go_is_followed_by_the_next(
    leaves: str,
) -> None:
    async def check(street: Street) -> None:
        held = [street.held(), street.held()]
        street.line.refused(held[0], retry_after_s=1.0)
        first = await street.enter(until=2.0 if leaves == "expired" else 9.0)
        second = await street.enter()

        def gone_and_pumped() -> None:
            first.cancel()
            street.line.returned(Ticket(0, 1, 0.0))

        if leaves == "cancelled":
            street.clock.call_at(2.0, gone_and_pumped)
        street.line.refused(held[1], retry_after_s=2.0)
        await street.clock.advance(2.0)
        await asyncio.wait([first])
        assert first.cancelled() == (leaves == "cancelled")
        assert first.cancelled() or isinstance(first.exception(), DeadlineExceededError)
        await asyncio.wait_for(second, 5)
        assert street.pacer.state == "half_open"

    on_a_street(check, concurrency=9)


def test_one_that_leaves_while_it_rests_takes_nobodys_moment() -> None:
    async def check(street: Street) -> None:
        street.line.refused(street.held(), retry_after_s=1.0)
        entered = [await street.enter() for _ in range(6)]
        await street.clock.advance(1.0)
        street.line.answered(await entered[0], [])
        assert street.pacer.waiting == 5
        entered[2].cancel()
        entered[5].cancel()
        await street.clock.advance(2.0)
        await asyncio.wait(entered)
        assert [task.cancelled() for task in entered] == [False, False, True, False, False, True]

    on_a_street(check, concurrency=9)


def test_when_one_leaves_that_was_too_large_for_the_minute_the_next_goes_at_once() -> None:
    async def check(street: Street) -> None:
        street.held()
        large = street.ticket()
        large.tokens = 200
        first = asyncio.ensure_future(street._enter(large, 1_000.0))
        await settle_loop(3)
        second = await street.enter()
        assert street.pacer.waiting == 2
        first.cancel()
        await asyncio.wait_for(second, 5)
        for ticket in list(street.pacer._flying):
            street.line.returned(ticket)

    on_a_street(check, concurrency=9, tpm=250)


def test_one_that_is_pushed_out_and_cancelled_at_once_leaves_no_trace() -> None:
    async def check(street: Street) -> None:
        held = street.held()
        big = [await street.enter(key="big") for _ in range(3)]
        small = asyncio.ensure_future(street._enter(street.ticket("small"), 1_000.0))
        await asyncio.sleep(0)
        big[2].cancel()
        await asyncio.wait([big[2]])
        assert street.pacer.waiting == 3
        with pytest.raises(QueueFullError):
            await (await street.enter(key="big"))
        street.line.returned(held)
        await settle_loop(3)
        await street.nothing_is_left()
        assert (await small).key == "small"
        await asyncio.wait(big)

    on_a_street(check, waiting_max=3)


@pytest.mark.parametrize("seed", range(150))
def test_whatever_happens_in_whatever_order_nobody_is_lost(seed: int) -> None:
    """Ours: all that can happen to a line, any number of it in one tick of the loop."""
    chance = random.Random(seed)

    async def check(street: Street) -> None:
        entered: list[asyncio.Task[Ticket]] = []
        for _ in range(120):
            what = chance.choice(["enter"] * 4 + ["cancel", "wait", "settle", *["back"] * 4])
            if what == "enter":
                until = street.clock.monotonic() + chance.choice([0.5, 2.0, 50.0])
                ticket = street.ticket(chance.choice("abc"))
                ticket.jitter = chance.random()
                ticket.priority = chance.choice(["interactive", "normal", "batch"])
                entered.append(asyncio.ensure_future(street._enter(ticket, until)))
            elif what == "cancel" and entered:
                chance.choice(entered).cancel()
            elif what == "wait":
                await street.clock.advance(chance.choice([0.0, 0.5, 1.0, 2.0, 31.0]))
            elif what == "settle":
                await settle_loop(chance.randrange(4))
            elif what == "back" and street.flying:
                back = street.flying.pop(chance.randrange(len(street.flying)))
                comes_back(street, back)
        await street.clock.advance(200.0)
        await street.nothing_is_left()
        assert all(task.done() for task in entered)
        for task in entered:
            error = None if task.cancelled() else task.exception()
            assert error is None or isinstance(error, DrovewayError), error

    def comes_back(street: Street, ticket: Ticket) -> None:
        kind, line = chance.randrange(6), street.line
        if kind == 0:
            line.refused(ticket, retry_after_s=chance.choice([None, 0.0, 3.0]))
        elif kind == 1:
            line.failed(ticket, BROKEN)
        elif kind == 2:
            line.shut_out(ticket, NO_KEY)
        else:
            line.answered(ticket, [])
            line.succeeded(ticket, tokens=50)

    on_a_street(check, concurrency=chance.choice([1, 2, 5]), waiting_max=12)


def test_those_who_wait_for_a_probe_are_told_in_words_why() -> None:
    async def check(street: Street) -> None:
        street.pacer.gate.shut_out(0.0)
        street.line._trouble = BROKEN
        with pytest.raises(ProviderDownError, match="vendor/model failed again and again"):
            await (await street.enter())

    on_a_street(check)


# Many lines.


def test_lines_that_nobody_uses_any_more_are_let_go() -> None:
    """Ours: each name that a caller made up for a model stayed in memory until the end."""

    async def check() -> None:
        vendor = ProviderSettings(base_url="http://127.0.0.1:9/v1", api_key="env:KEY")
        told, clock = Settings(providers={"vendor": vendor}), StillClock()
        async with Engine(told, environ={"KEY": "sk-1"}, clock=clock) as engine:

            def line(name: str) -> Line:
                return engine.line_of(Candidate("vendor", name))

            busy, waiting, shut = line("busy"), line("waiting"), line("shut")
            held, turn = Ticket(1, 1, 0.0), Ticket(2, 1, 0.0)
            assert busy.enter_now(held)
            waiting.pacer.join(Ticket(3, 1, 0.0), clock.monotonic())
            assert shut.enter_now(turn)
            shut.shut_out(turn, NO_KEY)
            await clock.advance(FORGOTTEN_AFTER_S - 1)
            for number in range(LINES_MAX - 3):
                line(f"m-{number}")
            used = line("m-7")
            line("one more")
            assert len(engine.lines) == LINES_MAX + 1, "all were used within the minute"
            await clock.advance(2)
            for number in range(LINES_MAX):
                line(f"n-{number}")
            # At twice as many it looked again: the one that was shut is a minute old, and gone.
            assert line("m-7") is used
            assert Candidate("vendor", "shut") not in engine.lines
            await clock.advance(FORGOTTEN_AFTER_S + 1)
            before = len(engine.lines)
            for number in range(2 * before):
                line(f"o-{number}")
            assert len(engine.lines) <= 2 * before + 2
            assert line("busy") is busy
            assert line("waiting") is waiting
            assert line("m-7") is not used
            busy.returned(held)

    run(check())


# A reload.


def test_a_reload_keeps_the_line_with_its_breaker_and_a_new_key_begins_a_new_one() -> None:
    async def check() -> None:
        vendor = ProviderSettings(base_url="http://127.0.0.1:9/v1", api_key="env:KEY")
        environ, clock = {"KEY": "sk-old"}, StillClock()
        told = Settings(providers={"vendor": vendor})
        async with Engine(told, environ=environ, clock=clock) as engine:
            candidate = Candidate("vendor", "model")
            line, ticket = engine.line_of(candidate), Ticket(1, 1, 0.0)
            assert line.enter_now(ticket)
            line.shut_out(ticket, NO_KEY)
            heir = engine.successor(told)
            assert heir.line_of(candidate) is line
            with pytest.raises(AuthenticationError):
                await heir.line_of(candidate).enter(Ticket(2, 1, 0.0), until=100.0)
            environ["KEY"] = "sk-new"
            fresh = engine.successor(told).line_of(candidate)
            assert fresh is not line
            assert fresh.enter_now(Ticket(3, 1, 0.0))

    run(check())
