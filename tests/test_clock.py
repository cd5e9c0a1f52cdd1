"""The clock that stands still, and the one that does not."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from droveway.clock import Alarm, Clock, StillClock, SystemClock

TIMEOUT_S = 10.0


def run(check: Callable[[], object]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await check()  # type: ignore[misc]

    asyncio.run(bounded())


def test_alarms_go_off_in_the_order_of_their_moments() -> None:
    async def check() -> None:
        clock, rung = StillClock(), []

        def ring(moment: float) -> None:
            rung.append((moment, clock.monotonic()))

        for moment in (3.0, 1.0, 2.0):
            clock.call_at(moment, partial(ring, moment))
        await clock.advance(2.5)
        assert rung == [(1.0, 1.0), (2.0, 2.0)]
        assert clock.monotonic() == 2.5
        await clock.advance(1.0)
        assert rung[2:] == [(3.0, 3.0)]

    run(check)


def test_alarms_of_one_moment_go_off_by_age() -> None:
    async def check() -> None:
        clock = StillClock()
        rung: list[str] = []
        for name in "abcdefgh":
            clock.call_at(1.0, partial(rung.append, name))
        await clock.advance(1.0)
        assert "".join(rung) == "abcdefgh"

    run(check)


def test_a_cancelled_alarm_is_silent_and_is_not_the_next() -> None:
    async def check() -> None:
        clock, rung = StillClock(), []
        alarm = clock.call_at(1.0, lambda: rung.append("no"))
        clock.call_at(2.0, lambda: rung.append("yes"))
        alarm.cancel()
        alarm.cancel()
        assert clock.next_at == 2.0
        await clock.advance(5.0)
        alarm.cancel()
        assert rung == ["yes"]
        assert clock.next_at is None

    run(check)


def test_an_alarm_may_cancel_another_of_the_same_moment() -> None:
    async def check() -> None:
        clock = StillClock()
        rung: list[str] = []
        alarms: list[Alarm] = []

        def cancel() -> None:
            alarms[0].cancel()

        clock.call_at(1.0, cancel)
        alarms.append(clock.call_at(1.0, partial(rung.append, "no")))
        await clock.advance(1.0)
        assert rung == []

    run(check)


def test_an_alarm_may_set_another_within_the_time_that_passes() -> None:
    async def check() -> None:
        clock, rung = StillClock(), []

        def again() -> None:
            rung.append(clock.monotonic())
            clock.call_at(clock.monotonic() + 1.0, again)

        clock.call_at(1.0, again)
        await clock.advance(3.5)
        assert rung == [1.0, 2.0, 3.0]

    run(check)


def test_an_alarm_in_the_past_goes_off_at_once_and_time_does_not_go_back() -> None:
    async def check() -> None:
        clock, rung = StillClock(), []
        await clock.advance(10.0)
        clock.call_at(3.0, lambda: rung.append(clock.monotonic()))
        await clock.advance(0.0)
        assert rung == [10.0]
        assert clock.monotonic() == 10.0

    run(check)


def test_a_sleeper_wakes_when_its_time_has_come_and_not_before() -> None:
    async def check() -> None:
        clock = StillClock()
        sleeper = asyncio.create_task(clock.sleep(2.0))
        await clock.advance(1.999)
        assert not sleeper.done()
        await clock.advance(0.001)
        assert sleeper.done()

    run(check)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_sleep_still_yields_once(seconds: float) -> None:
    async def check() -> None:
        clock, order = StillClock(), []

        async def first() -> None:
            await clock.sleep(seconds)
            order.append("first")

        async def second() -> None:
            order.append("second")

        await asyncio.gather(first(), second())
        assert order == ["second", "first"]
        assert clock.monotonic() == 0.0

    run(check)


def test_a_cancelled_sleeper_takes_its_alarm_with_it() -> None:
    async def check() -> None:
        clock = StillClock()
        sleeper = asyncio.create_task(clock.sleep(5.0))
        await clock.advance(1.0)
        sleeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeper
        assert clock.next_at is None
        assert not await clock.jump()

    run(check)


def test_an_alarm_may_cancel_a_sleeper_of_the_same_moment() -> None:
    async def check() -> None:
        clock = StillClock()
        sleeper = asyncio.create_task(clock.sleep(1.0))

        def cancel() -> None:
            sleeper.cancel()

        clock.call_at(1.0, cancel)
        await clock.advance(1.0)
        assert sleeper.cancelled()
        assert clock.next_at is None

    run(check)


def test_sleepers_of_one_moment_wake_in_the_order_they_lay_down() -> None:
    async def check() -> None:
        clock, woken = StillClock(), []

        async def sleep(name: str) -> None:
            await clock.sleep(1.0)
            woken.append(name)

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(sleep(name))
            await clock.advance(1.0)
        assert woken == ["a", "b", "c"]

    run(check)


def test_a_jump_goes_to_the_next_alarm_and_no_further() -> None:
    async def check() -> None:
        clock, rung = StillClock(), []
        clock.call_at(7.0, lambda: rung.append(7))
        clock.call_at(9.0, lambda: rung.append(9))
        assert await clock.jump()
        assert (rung, clock.monotonic()) == ([7], 7.0)
        assert await clock.jump()
        assert (rung, clock.monotonic()) == ([7, 9], 9.0)
        assert not await clock.jump()

    run(check)


@example(5.2, [14.19])
@given(st.floats(0, 1e4), st.lists(st.floats(0, 1e4), min_size=1, max_size=5))
def test_every_jump_rings_somebody(start: float, moments: list[float]) -> None:
    """Ours: a sum of what passed and what is missing may fall short of the moment by rounding."""

    async def check() -> None:
        clock = StillClock()
        rung: list[float] = []
        await clock.advance(start)
        for moment in moments:
            clock.call_at(moment, partial(rung.append, moment))
        jumps = 0
        while await clock.jump():
            jumps += 1
            assert len(rung) >= jumps
        assert rung == sorted(rung)
        assert len(rung) == len(moments)

    run(check)


def test_the_wall_clock_moves_with_the_time_that_passes() -> None:
    async def check() -> None:
        start = datetime(2026, 3, 1, 8, 0, tzinfo=timezone(timedelta(hours=8)))
        clock = StillClock(start)
        await clock.advance(0.000_25)
        assert clock.now() == start + timedelta(microseconds=250)
        assert clock.now().tzinfo is UTC

    run(check)


def test_jitter_repeats_with_its_seed_and_stays_below_one() -> None:
    one, other, third = StillClock(seed=5), StillClock(seed=5), StillClock(seed=6)
    drawn = [one.jitter() for _ in range(50)]
    assert drawn == [other.jitter() for _ in range(50)]
    assert drawn != [third.jitter() for _ in range(50)]
    assert all(0 <= each < 1 for each in drawn)


def test_the_clock_of_the_machine_keeps_its_promises() -> None:
    async def check() -> None:
        clock: Clock = SystemClock()
        assert clock.now().tzinfo is UTC
        before = clock.monotonic()
        await clock.sleep(-1.0)
        await clock.sleep(0.001)
        assert clock.monotonic() > before
        assert 0 <= clock.jitter() < 1
        rung = asyncio.Event()
        clock.call_at(clock.monotonic() - 5.0, rung.set)
        await rung.wait()
        silent = asyncio.Event()
        clock.call_at(clock.monotonic() + 0.001, silent.set).cancel()
        later = asyncio.Event()
        clock.call_at(clock.monotonic() + 0.002, later.set)
        await later.wait()
        assert not silent.is_set()

    run(check)
