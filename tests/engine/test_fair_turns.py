"""What fair turns come to in a line: what is owed where, and how long a wait is said to be."""

import asyncio

import pytest

from droveway.clock import StillClock, settle_loop
from droveway.engine.engine import Engine
from droveway.errors import DeadlineExceededError, QueueFullError
from droveway.resilience.fair_queue import Ticket
from droveway.routing.plan import Candidate
from droveway.sandbox import Rule, Sandbox, Script
from droveway.settings import AliasSettings, ProviderSettings, Settings, Timeout
from lab import INSTANT, PATIENT, ask, run, terms
from streets import Street

LONG = Timeout(connect_s=60, first_token_s=60, idle_s=60, total_s=100)
FLIGHT_S = 3.0


def test_a_turn_that_one_vendor_refused_is_not_given_back_by_another() -> None:
    """Ours: six that a first vendor refuses would all go before another key's at the second."""
    script = Script(rules=(Rule(fault="429-seconds:60"),))

    async def check() -> None:
        async with (
            Sandbox(profile=INSTANT, script=script) as refusing,
            Sandbox(profile=INSTANT, journal_bodies=True) as good,
        ):
            vendors = {"first": (refusing, None), "second": (good, 1)}
            told = Settings(
                providers={
                    name: ProviderSettings(
                        base_url=box.base_url, models=("model",), concurrency=concurrency
                    )
                    for name, (box, concurrency) in vendors.items()
                },
                models={"either": AliasSettings(candidates=("first/model", "second/model"))},
            )
            async with Engine(told, environ={}, clock=StillClock()) as engine:
                line, held = engine.line_of(Candidate("second", "model")), Ticket(0, 1, 0.0)
                assert line.enter_now(held)

                async def stand_in_line(text: str, key: str) -> asyncio.Task[None]:
                    before = line.pacer.waiting
                    given = terms(PATIENT, timeout=LONG, key_id=key)
                    exchange = await engine.begin(ask(text, model="either"), given)
                    async with asyncio.timeout(10):
                        while line.pacer.waiting == before:
                            await asyncio.sleep(0.002)
                    return exchange.task

                # All six are sent before the first of them is refused.
                given = terms(PATIENT, timeout=LONG, key_id="herd")
                asked = [ask(f"herd {n}", model="either") for n in range(6)]
                tasks = [(await engine.begin(each, given)).task for each in asked]
                async with asyncio.timeout(10):
                    while line.pacer.waiting < 6:
                        await asyncio.sleep(0.002)
                assert len(refusing.journal) == 6
                tasks.append(await stand_in_line("the other", "other"))
                line.returned(held)
                await asyncio.wait(tasks)
            went = [b"the other" in (each.body or b"") for each in good.journal]
            assert len(went) == 7
            assert went.index(True) <= 1

    run(check())


async def _busy(street: Street, keys: list[str]) -> list[asyncio.Task[None]]:
    """Let one of each key come, each to be in flight for the same time."""

    async def fly(key: str) -> None:
        ticket = street.ticket(key)
        await street.line.enter(ticket, until=10_000.0)
        # Two that go at once do not come back at once.
        lasts_s = FLIGHT_S / 2 if ticket.number == 1 else FLIGHT_S
        street.clock.call_at(
            street.clock.monotonic() + lasts_s, lambda: street.line.returned(ticket)
        )

    return [asyncio.ensure_future(fly(key)) for key in keys]


@pytest.mark.parametrize("key", ["big", "small", "new"])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_a_caller_is_told_who_could_not_wait_is_about_the_true_wait(
    key: str, concurrency: int
) -> None:
    """Within a factor of two, on a still clock: a turn lasts three seconds."""

    async def check() -> None:
        street = Street(concurrency=concurrency)
        await _busy(street, ["big"] * 60 + ["small"] * 15)
        for _ in range(20):
            await street.clock.advance(FLIGHT_S / 2)
        since = street.clock.monotonic()
        true_s: list[float] = []

        async def patient() -> None:
            ticket = street.ticket(key)
            await street.line.enter(ticket, until=10_000.0)
            true_s.append(street.clock.monotonic() - since)
            street.line.returned(ticket)

        impatient = asyncio.ensure_future(
            street.line.enter(street.ticket(key), until=since + 0.001)
        )
        await settle_loop()
        await street.clock.advance(0.001)
        with pytest.raises(DeadlineExceededError) as raised:
            await impatient
        witness = asyncio.ensure_future(patient())
        while not witness.done():
            assert await street.clock.jump()
        told_s = raised.value.retry_after_s
        assert told_s is not None
        # A wait that is shorter than a turn is told as one.
        wait_s = max(FLIGHT_S / concurrency, true_s[0])
        assert 0.5 * wait_s <= told_s <= 2.001 * wait_s

    run(check())


def test_one_that_is_put_out_is_told_when_its_keys_turn_would_come() -> None:
    async def check() -> None:
        street = Street(concurrency=1, waiting_max=20)
        tasks = await _busy(street, ["big"] * 21)
        for _ in range(4):
            await street.clock.advance(FLIGHT_S)
        tasks += await _busy(street, ["big"] * 4)
        await settle_loop()
        assert street.pacer.waiting == 20
        with pytest.raises(QueueFullError) as raised:
            await street.line.enter(street.ticket("big"), until=1_000.0)
        assert raised.value.retry_after_s == pytest.approx(20 * FLIGHT_S, rel=0.5)
        tasks += await _busy(street, ["small"])
        await settle_loop()
        put_out = [task for task in tasks if task.done() and task.exception() is not None]
        assert len(put_out) == 1
        error = put_out[0].exception()
        assert isinstance(error, QueueFullError)
        assert error.retry_after_s == pytest.approx(20 * FLIGHT_S, rel=0.5)
        while not all(task.done() for task in tasks):
            assert await street.clock.jump()

    run(check())
