"""What a vendor says is left, over a socket: how far it fell, and whether our requests explain it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bills import AT, deepseek, kept
from droveway.clock import StillClock, settle_loop
from droveway.engine.assembly import provider_at
from droveway.engine.engine import Engine
from droveway.engine.journal_store import StoredJournal
from droveway.engine.vendor_balance import ROWS_WRITTEN_AFTER_S, Poll, ask_balance, poll
from droveway.errors import AuthenticationError, BadRequestError, ProtocolError, UpstreamError
from droveway.money import Money
from droveway.sandbox import Sandbox
from droveway.settings import ProviderSettings, Settings
from droveway.storage import Store
from lab import ask, converse, run, terms


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "a.db") as made:
        yield made


def usd(text: str) -> Money:
    return Money.parse(text, "USD")


def test_a_fall_that_our_requests_explain_is_explained(store: Store) -> None:
    async def work() -> None:
        clock = StillClock(AT)
        async with deepseek(store, clock) as (box, engine):
            box.set_balance("100.00", granted="10.00")
            (first,) = await polled(store, engine, clock)
            assert (first.left, first.unexplained, first.since) == (usd("110.00"), None, None)
            await clock.advance(60)
            exchange, _ = await converse(engine, ask(model="deepseek/deepseek-flash"), terms())
            assert exchange.row is not None
            cost = exchange.row.own_cost
            assert cost is not None
            box.set_balance((usd("100.00") - cost).decimal(), granted="10.00")
            await clock.advance(60)
            (second,) = await polled(store, engine, clock)
            assert second.fell == second.ours == cost
            assert (second.requests, second.unexplained) == (1, Money.zero("USD"))
            assert second.since == first.at

            box.set_balance((usd("99.50") - cost).decimal(), granted="10.00")
            await clock.advance(60)
            (third,) = await polled(store, engine, clock)
            assert (third.ours, third.unexplained) == (Money.zero("USD"), usd("0.50"))

    run(work())


async def polled(
    store: Store, engine: Engine, clock: StillClock, *, account: int = 1
) -> list[Poll]:
    """Poll on a clock that stands still: time passes only while the journal is waited for."""
    assert isinstance(engine.journal, StoredJournal)
    await engine.journal.flush()
    asking = asyncio.create_task(
        poll(engine.providers["deepseek"], store, account=account, pool=engine.pool, clock=clock)
    )
    while not asking.done():
        await settle_loop()
        due = clock.next_at
        if due is not None and due <= clock.monotonic() + ROWS_WRITTEN_AFTER_S:
            await clock.jump()
    return await asking


def test_each_account_is_asked_and_explained_for_itself(store: Store) -> None:
    """ours: what the second key has spent was looked for in the balance of the first."""

    async def work() -> None:
        clock = StillClock(AT)
        async with deepseek(store, clock, accounts=2) as (box, engine):
            first = [(await polled(store, engine, clock, account=n))[0] for n in (1, 2)]
            assert [each.account for each in first] == [1, 2]
            engine.journal.append(kept(1, cost=usd("0.10"), at=clock.now(), account=1))
            engine.journal.append(kept(2, cost=usd("0.07"), at=clock.now(), account=2))
            engine.journal.append(kept(3, cost=usd("0.03"), at=clock.now(), account=2))
            left = first[0].left - usd("0.10")
            box.set_balance(left.decimal(), granted="0")
            await clock.advance(60)
            told = [(await polled(store, engine, clock, account=n))[0] for n in (1, 2)]
            assert [(each.account, each.requests) for each in told] == [(1, 1), (2, 2)]
            assert [each.unexplained for each in told] == [Money.zero("USD")] * 2

    run(work())


def test_a_rise_is_said_and_explains_nothing(store: Store) -> None:
    async def work() -> None:
        clock = StillClock(AT)
        async with deepseek(store, clock) as (box, engine):
            await polled(store, engine, clock)
            await clock.advance(60)
            box.set_balance("150.00", granted="10.00")
            (second,) = await polled(store, engine, clock)
            assert second.fell == usd("-50.00")
            assert second.unexplained is None

    run(work())


def test_each_request_is_counted_in_one_poll_however_long_it_took(store: Store) -> None:
    """ours: a request is in the journal when it is over, not when it began."""

    async def work() -> None:
        clock = StillClock(AT)
        async with deepseek(store, clock) as (box, engine):
            await polled(store, engine, clock)
            long = kept(cost=usd("0.30"), at=clock.now(), total_ms=90_000.0)
            await clock.advance(60)
            box.set_balance("109.00", granted="0.50")
            (amid,) = await polled(store, engine, clock)
            assert amid.requests == 0
            engine.journal.append(long)
            await clock.advance(60)
            box.set_balance("108.70", granted="0.50")
            (after,) = await polled(store, engine, clock)
            assert (after.requests, after.unexplained) == (1, Money.zero("USD"))

    run(work())


def test_each_currency_is_compared_for_itself(store: Store) -> None:
    async def work() -> None:
        clock = StillClock(AT)
        async with deepseek(store, clock) as (box, engine):
            box.set_balance("7.00", currency="CNY")
            await polled(store, engine, clock)
            keep_one = kept(cost=usd("0.10"), at=clock.now())
            engine.journal.append(keep_one)
            await clock.advance(60)
            box.set_balance("6.00", currency="CNY")
            box.set_balance("99.90", granted="10.00")
            dollars, yuan = await polled(store, engine, clock)
            assert dollars.unexplained == Money.zero("USD")
            assert yuan.unexplained == Money.parse("1", "CNY")
            assert yuan.elsewhere == (usd("0.10"),)

    run(work())


def test_a_vendor_without_a_balance_page_is_not_asked(store: Store) -> None:
    async def work() -> None:
        clock = StillClock(AT)
        async with deepseek(store, clock) as (box, engine):
            other = provider_at(box.base_url, None, name="other")
            with pytest.raises(BadRequestError, match="other has no page that tells a balance"):
                await poll(other, store, pool=engine.pool, clock=clock)
            assert box.journal == []

    run(work())


def test_a_wrong_key_is_told_as_one(store: Store) -> None:
    async def work() -> None:
        async with Sandbox(api_keys=["other"]) as box:
            told = ProviderSettings(base_url=box.url, api_key="env:KEY")
            async with Engine(
                Settings(providers={"deepseek": told}), environ={"KEY": "wrong-key"}
            ) as engine:
                with pytest.raises(AuthenticationError, match="check the key"):
                    await poll(
                        engine.providers["deepseek"], store, pool=engine.pool, clock=engine.clock
                    )

    run(work())


@pytest.mark.parametrize(
    "balances",
    [
        "",
        '{"currency":"USD","total_balance":""}',
        '{"currency":"USD","total_balance":"much"}',
        '{"currency":"USD","total_balance":"1e3"}',
        '{"currency":"USD","total_balance":1.5}',
        '{"currency":"USD","total_balance":"0.0000000001"}',
        '{"currency":"dollars","total_balance":"1.00"}',
        '{"currency":"USD"}',
        '{"currency":"USD","total_balance":"1.00"},{"currency":"USD","total_balance":"2.00"}',
        '{"currency":',
    ],
)
def test_a_balance_that_is_none_is_told_and_not_written_down(balances: str, store: Store) -> None:
    async def work() -> None:
        async with answering(f'{{"balance_infos":[{balances}]}}') as base_url:
            told = ProviderSettings(base_url=base_url)
            async with Engine(Settings(providers={"deepseek": told}), environ={}) as engine:
                with pytest.raises(ProtocolError, match="deepseek told"):
                    await poll(
                        engine.providers["deepseek"], store, pool=engine.pool, clock=engine.clock
                    )
        assert store.read("SELECT * FROM vendor_balance") == []

    run(work())


def test_a_connection_that_ends_is_the_vendors_failure(store: Store) -> None:
    async def work() -> None:
        async with answering("", cut=True) as base_url:
            told = ProviderSettings(base_url=base_url)
            async with Engine(Settings(providers={"deepseek": told}), environ={}) as engine:
                with pytest.raises(UpstreamError):
                    await ask_balance(
                        engine.providers["deepseek"], pool=engine.pool, clock=engine.clock
                    )

    run(work())


@asynccontextmanager
async def answering(body: str, *, cut: bool = False) -> AsyncIterator[str]:
    """A server that answers one body to whatever comes, or goes away."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not cut:
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(f"{head}{body}".encode())
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
