"""A store that fails between an answer and its settlement: nothing is lost, nothing twice."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from door import HI
from droveway.engine import till as engine_till
from droveway.engine import till_work
from droveway.errors import StoreUnavailableError
from droveway.ledger import Epoch, faults
from lab import run
from paying import LONG, Till, costs, dear, paid, spent

FAILS = StoreUnavailableError("the store is locked by another process")


def failing(times: int, work: Callable[..., Any]) -> Callable[..., Any]:
    """A work that the store refuses so many times."""
    left = times

    def refused(*given: Any, **named: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            raise FAILS
        return work(*given, **named)

    return refused


async def settled(till: Till) -> None:
    """Wait until nothing is held any more."""
    while till.account.held.nano:
        await asyncio.sleep(0.02)


def landing(work: Callable[..., Any]) -> Callable[..., Any]:
    """A work that is done twice the first time: as one whose commit landed and was said to have failed."""
    said = False

    def landed(db: Any, **named: Any) -> Any:
        nonlocal said
        if said:
            return work(db, **named)
        said = True
        return work(db, **named) and work(db, **named)

    return landed


@pytest.mark.parametrize("stream", [False, True])
def test_a_settlement_that_landed_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    monkeypatch.setattr(till_work, "settle", landing(till_work.settle))

    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            got: Any = await sdk.chat.completions.create(
                model=dear(till, "1"), messages=HI, stream=stream, max_tokens=50
            )
            if stream:
                assert [chunk async for chunk in got]
            assert spent(till) == costs(till) > 0

    run(check())


@pytest.mark.parametrize("stream", [False, True])
def test_a_store_that_recovers_in_time_is_not_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    monkeypatch.setattr(engine_till, "TRY_AGAIN_S", 0.01)
    monkeypatch.setattr(till_work, "settle", failing(3, till_work.settle))

    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            model = dear(till, "1")
            got: Any = await sdk.chat.completions.create(
                model=model, messages=HI, stream=stream, max_tokens=50
            )
            if stream:
                assert [chunk async for chunk in got]
            assert spent(till) == costs(till) > 0

    run(check())


def test_a_whole_answer_that_cannot_be_settled_is_withheld_and_not_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_till, "TRY_AGAIN_S", 0.01)
    monkeypatch.setattr(engine_till, "PATIENCE_S", 0.05)
    monkeypatch.setattr(till_work, "settle", failing(10**6, till_work.settle))
    monkeypatch.setattr(till_work, "release", failing(5, till_work.release))

    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            with pytest.raises(openai.APIStatusError) as caught:
                await sdk.chat.completions.create(model=dear(till, "1"), messages=HI, max_tokens=50)
            assert (caught.value.status_code, caught.value.code) == (503, "unavailable")
            await settled(till)
            ((outcome, code, cost),) = till.store.read(
                "SELECT outcome, code, cost_nano FROM request"
            )
            assert (outcome, code, cost) == ("failed", "unavailable", None)
            assert spent(till) == 0
            # What the vendor asks for it is the operator's, by a line of its own.
            (((kind, nano)),) = till.store.read(
                "SELECT kind, posted_nano FROM account WHERE kind = 'cost'"
            )
            assert kind == "cost"
            assert nano < 0

    run(check())


def test_a_stream_that_was_delivered_and_cannot_be_settled_is_paid_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_till, "TRY_AGAIN_S", 0.01)
    monkeypatch.setattr(engine_till, "PATIENCE_S", 0.05)
    monkeypatch.setattr(till_work, "settle", failing(30, till_work.settle))

    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            stream = await sdk.chat.completions.create(
                model=dear(till, "1"), messages=HI, stream=True
            )
            with pytest.raises(openai.APIError) as caught:
                assert [chunk async for chunk in stream]
            assert caught.value.code == "unavailable"
            await settled(till)
            assert spent(till) == costs(till) > 0
            ((outcome,),) = till.store.read("SELECT outcome FROM request")
            assert outcome == "failed"

    run(check())


def test_what_a_stream_has_come_to_outlives_its_process(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path, "5.00", profile=LONG) as till, till.sdk as sdk:
            stream = await sdk.chat.completions.create(
                model=dear(till, "100"), messages=HI, stream=True
            )
            chunks = aiter(stream)
            for _ in range(40):
                await anext(chunks)
            await till.tills.note_progress(list(till.engine.on_their_way()))
            ((request_id, amount, progress),) = till.store.read(
                "SELECT id, amount_nano, progress_nano FROM hold WHERE state = 'held'"
            )
            assert 0 < progress <= amount
            # Another process finds this one dead: as it would, had it been killed here.
            await till.store.write(
                lambda db: resolve_all(db, till.tills.epoch_id, till.tills.clock.now())
            )
            assert spent(till) == progress
            assert till.book.entries("alice")[-1].reference == request_id
            ((kept, outcome, cost, key_id),) = till.store.read(
                "SELECT id, outcome, cost_nano, key_id FROM request"
            )
            assert (kept, outcome, cost, key_id) == (request_id, "failed", progress, "key_1")
            await stream.close()
            while till.engine.open_exchanges:
                await asyncio.sleep(0.01)
            assert spent(till) == progress, "it was charged once"
            assert faults(till.store) == []

    run(check())


def resolve_all(db: Any, epoch_id: str, at: Any) -> None:
    from droveway.ledger import epoch as ledger_epoch

    ledger_epoch._end(db, epoch_id=epoch_id, at=at, bury=till_work.bury)


def test_nothing_is_noted_of_requests_that_have_produced_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            till.engine.book = till.engine.book.with_own(
                "vendor/fault-silent", input="1", output="2", currency="USD"
            )
            ask = asyncio.create_task(
                sdk.chat.completions.create(model="fault-silent", messages=HI, max_tokens=9)
            )
            while not till.box.journal:
                await asyncio.sleep(0.005)
            await till.tills.note_progress(list(till.engine.on_their_way()))
            assert till.store.read("SELECT progress_nano FROM hold") == [(0,)]
            ask.cancel()
            await asyncio.wait([ask])

    run(check())


def test_what_is_not_settled_when_a_process_ends_is_resolved_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_till, "TRY_AGAIN_S", 0.01)
    monkeypatch.setattr(engine_till, "PATIENCE_S", 0.05)

    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            settle, release = till_work.settle, till_work.release
            till_work.settle = till_work.release = failing(10**6, settle)
            try:
                with pytest.raises(openai.APIStatusError):
                    await sdk.chat.completions.create(
                        model=dear(till, "1"), messages=HI, max_tokens=50
                    )
                await till.tills.aclose()
            finally:
                till_work.settle, till_work.release = settle, release
            assert till.account.held.nano > 0
            now = till.tills.clock.now()
            await till.store.write(lambda db: resolve_all(db, till.tills.epoch_id, now))
            assert till.account.held.nano == 0
            assert spent(till) == 0
            heir = await Epoch.begin(till.store, at=now)
            await heir.end(at=now)

    run(check())
