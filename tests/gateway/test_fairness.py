"""Many callers through the gateway, before a narrow vendor: each gets its share, and no more."""

import asyncio
from collections import Counter

import pytest

from crowded_door import CrowdedDoor, Told, call, crowded_door
from droveway.engine.line import Line
from droveway.resilience.fair_queue import Ticket
from droveway.routing.plan import Candidate
from lab import run

SMALL = [f"small-{number}" for number in range(16)]


def _fill(door: CrowdedDoor) -> tuple[Line, list[Ticket]]:
    """Take all places, so that all who come stand in line until they are given back."""
    line = door.engine.line_of(Candidate("vendor", "model"))
    held = [Ticket(-number, 1, 0.0) for number in range(line.pacer.concurrency)]
    assert all(line.enter_now(ticket) for ticket in held)
    return line, held


async def _crowd(door: CrowdedDoor, *secrets: str, order: list[Told]) -> list[asyncio.Task[Told]]:
    before = door.pacer.waiting
    tasks = [asyncio.ensure_future(call(door, secret, order=order)) for secret in secrets]
    await door.wait_for(before + len(secrets))
    return tasks


async def _sixteen_beside_a_big_one(concurrency: int, big: int) -> None:
    order: list[Told] = []
    async with crowded_door(concurrency=concurrency, journal_bodies=True) as door:
        line, held = _fill(door)
        tasks = await _crowd(door, *["big"] * big, order=order)
        tasks += await _crowd(door, *SMALL, order=order)
        for ticket in held:
            line.returned(ticket)
        await asyncio.wait(tasks)
        assert Counter(told.status for told in order) == {200: big + len(SMALL)}
        asked = [b"from big" in (seen.body or b"") for seen in door.box.journal]
    # Who goes is decided one by one; two in flight at once may be answered either way round.
    last_small = max(place for place, is_big in enumerate(asked) if not is_big)
    assert asked[:last_small].count(True) <= concurrency
    answered = [told.secret for told in order]
    for secret in SMALL:
        assert answered[: answered.index(secret)].count("big") <= len(SMALL) // 4


@pytest.mark.parametrize("concurrency", [1, 2])
def test_sixteen_keys_with_one_each_are_answered_before_the_two_hundred_of_another(
    concurrency: int,
) -> None:
    """They come later, and wait for one or two turns of the big one, not for two hundred."""
    run(_sixteen_beside_a_big_one(concurrency, 200), within_s=60)


@pytest.mark.long
@pytest.mark.parametrize("concurrency", [1, 2])
def test_sixteen_keys_with_one_each_are_answered_before_the_thousand_of_another(
    concurrency: int,
) -> None:
    run(_sixteen_beside_a_big_one(concurrency, 1_000), within_s=180)


def test_the_roles_of_a_key_share_its_turns() -> None:
    async def check() -> None:
        order: list[Told] = []
        async with crowded_door(concurrency=1) as door:
            line, (held,) = _fill(door)
            tasks = await _crowd(door, *["team/coder"] * 40, order=order)
            tasks += await _crowd(door, "other", "team/planner", order=order)
            line.returned(held)
            await asyncio.wait(tasks)
        answered = [told.secret for told in order]
        # The other key has half of the turns, and the planner half of the team's.
        assert answered.index("other") <= 1
        assert answered.index("team/planner") <= 3

    run(check())


def test_when_too_many_wait_the_newest_of_the_big_one_are_refused_and_the_small_are_served() -> (
    None
):
    async def check() -> None:
        order: list[Told] = []
        async with crowded_door(concurrency=1, waiting_max=20) as door:
            line, (held,) = _fill(door)
            tasks = await _crowd(door, *["big"] * 20, order=order)
            refused = await call(door, "big")
            _is_told_to_come_later(refused)
            tasks += [asyncio.ensure_future(call(door, each, order=order)) for each in SMALL]
            async with asyncio.timeout(20):
                while len(order) < len(SMALL):
                    await asyncio.sleep(0.002)
            assert {told.secret for told in order} == {"big"}
            for told in order:
                _is_told_to_come_later(told)
            assert door.pacer.waiting == 20
            line.returned(held)
            await asyncio.wait(tasks)
            served = [told.secret for told in order if told.status == 200]
            assert sorted(served) == sorted([*SMALL, *["big"] * 4])
            assert door.pacer.waiting == door.pacer.in_flight == 0
            assert len(door.box.journal) == 20

    run(check())


def _is_told_to_come_later(told: Told) -> None:
    assert told.status == 429
    assert told.error["code"] == "rate_limited"
    assert int(told.headers["retry-after"]) >= 1
    # Nothing was tried for it: an SDK may well come again by itself.
    assert "x-should-retry" not in told.headers


def test_a_deadline_in_line_is_told_with_a_moment_and_without_a_request() -> None:
    async def check() -> None:
        async with crowded_door(concurrency=1, total_s=0.2) as door:
            line, (held,) = _fill(door)
            told = await call(door, "late")
            assert told.status == 429
            assert told.error["code"] == "deadline_exceeded"
            assert int(told.headers["retry-after"]) >= 1
            line.returned(held)
            assert door.box.journal == []
            assert (await call(door, "next")).status == 200

    run(check())


def test_a_caller_that_hangs_up_in_line_gives_its_place_to_the_next() -> None:
    async def check() -> None:
        order: list[Told] = []
        async with crowded_door(concurrency=1, journal_bodies=True) as door:
            line, (held,) = _fill(door)
            leaving = await _crowd(door, *["gone"] * 5, order=order)
            tasks = await _crowd(door, "stays", order=order)
            for task in leaving:
                task.cancel()
            await asyncio.wait(leaving)
            await door.wait_for(1)
            line.returned(held)
            await asyncio.wait(tasks)
            assert [told.secret for told in order] == ["stays"]
            assert [b"from stays" in (seen.body or b"") for seen in door.box.journal] == [True]

    run(check())
