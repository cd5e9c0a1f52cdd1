"""A request leaves no circle of objects: bodies would wait in memory for the collector.

The server looks for circles seldom. So whatever way a request ends, counting references alone must
free it, its connection, and the errors and alarms that knew it.
"""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from door import Door, door
from droveway.settings import BillingSettings
from endings import ENDINGS, Ending, bring_about
from lab import run
from paying import LONG, Till, dear, paid

OURS = "droveway."
NOT_THE_GATEWAY = "droveway.sandbox"
# Enough for the engine to break the line of a vendor that fails.
REQUESTS = 3


@asynccontextmanager
async def standing(ending: Ending, folder: Path, *, billing: bool) -> AsyncIterator[Door | Till]:
    """A gateway whose vendor and clocks are as an ending wants them."""
    terms = BillingSettings(enabled=True, disconnect="drain" if ending.drains else "cancel")
    async with (
        paid(folder, "1000.00", billing=terms, profile=ending.profile)
        if billing
        else door(profile=ending.profile, journal_bodies=False)
    ) as it:
        engine = it.engine
        engine.book = engine.book.with_own(
            f"vendor/{ending.model}", input="1", output="2", currency="USD"
        )
        clocks = msgspec.structs.replace(
            engine.settings.streams, idle_s=0.08, first_token_s=0.15, keepalive_s=0.02,
            total_s=ending.total_s,
        )  # fmt: skip
        engine.settings = msgspec.structs.replace(engine.settings, streams=clocks)
        if ending.concurrency is not None:
            for name, provider in engine.providers.items():
                engine.providers[name] = replace(provider, concurrency=ending.concurrency)
        yield it


async def at_rest(it: Door | Till) -> None:
    """Wait until nothing is on its way, and no socket of it is open."""
    engine = it.engine
    async with asyncio.timeout(10):
        while (
            engine.open_exchanges
            or it.server._connections
            or engine.pool.sockets > engine.pool.idle
        ):
            await asyncio.sleep(0.005)


async def left_by(it: Door | Till, ending: Ending, *, stream: bool) -> set[str]:
    """Return what requests have left to the collector, by the names of the types."""
    await bring_about(ending, it.server, stream=stream)
    await at_rest(it)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        many = (bring_about(ending, it.server, stream=stream) for _ in range(REQUESTS))
        await asyncio.gather(*many)
        await at_rest(it)
        gc.collect()
        left = {f"{type(each).__module__}.{type(each).__name__}" for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    ours = {name for name in left if name.startswith(OURS)}
    return {name for name in ours if not name.startswith(NOT_THE_GATEWAY)}


# One way through of each ending, in turn; all four of them are long.
WAYS = [(stream, billing) for stream in (True, False) for billing in (True, False)]
CASES = [
    pytest.param(
        name,
        *way,
        id=f"{name}-{'stream' if way[0] else 'whole'}-{'paid' if way[1] else 'free'}",
        marks=[] if WAYS[number % len(WAYS)] == way else pytest.mark.long,
    )
    for number, name in enumerate(ENDINGS)
    for way in WAYS
]


@pytest.mark.parametrize(("name", "stream", "billing"), CASES)
def test_a_request_leaves_nothing_to_the_collector(
    name: str, *, stream: bool, billing: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # What is recorded of a test keeps the errors that are logged.
    caplog.set_level(logging.CRITICAL, logger="droveway")

    async def check() -> None:
        ending = ENDINGS[name]
        async with standing(ending, tmp_path, billing=billing) as it:
            assert await left_by(it, ending, stream=stream) == set()

    run(check())


def test_a_stream_that_outgrows_the_balance_leaves_nothing_to_the_collector(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path, "4.00", profile=LONG) as till:
            ending = Ending(dear(till, "100"))
            assert await left_by(till, ending, stream=True) == set()
            codes = till.store.read("SELECT code FROM request WHERE outcome = 'failed'")
            assert ("insufficient_balance",) in codes

    run(check(), within_s=60)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_request_that_is_too_dear_leaves_nothing_to_the_collector(
    tmp_path: Path, *, stream: bool
) -> None:
    async def check() -> None:
        async with paid(tmp_path, "0.01") as till:
            ending = Ending(dear(till, "1000000"))
            assert await left_by(till, ending, stream=stream) == set()
            assert till.store.read("SELECT DISTINCT code FROM request") == [
                ("insufficient_balance",)
            ]

    run(check())
