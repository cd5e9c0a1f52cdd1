"""What an adversary once broke, each so that it stays mended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from droveway import AsyncAgent, Limits
from droveway.chat import Message, TextDelta
from droveway.clock import StillClock
from droveway.engine.engine import Engine
from droveway.engine.records import Row
from droveway.engine.settling import Allowance, Bill, Hold
from droveway.engine.watch import Watch
from droveway.errors import (
    BadRequestError,
    DeadlineExceededError,
    DrovewayError,
    LimitExceededError,
    OutputValidationError,
    ProtocolError,
)
from droveway.money import Money
from droveway.resilience.fair_queue import Ticket
from droveway.resilience.pacing import Pacer
from droveway.sandbox import Rule, Sandbox, Script
from droveway.settings import AliasSettings, ProviderSettings, Settings, Timeout
from lab import INSTANT, ONCE, PATIENT, QUICK, BookkeepingLedger, ask, converse, lab, run, terms


@asynccontextmanager
async def vendor(answer: bytes, key: str | None = None) -> AsyncIterator[Engine]:
    """A vendor that says the same bytes to everybody, and an engine that asks it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(answer)
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Engine.at(f"http://127.0.0.1:{port}/v1", key) as engine:
        yield engine


def whole(body: bytes, *, status: str = "200 OK", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{extra}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def stream(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body


@pytest.mark.parametrize("streaming", [True, False], ids=["stream", "whole"])
def test_a_listener_that_raises_changes_nothing(
    caplog: pytest.LogCaptureFixture, *, streaming: bool
) -> None:
    async def check() -> None:
        async with lab() as (_, engine):
            engine.journal.listeners.append(lambda row: 1 / 0)  # type: ignore[arg-type]
            exchange, _ = await converse(engine, ask(stream=streaming))
            assert exchange.error is None
            assert exchange.row is not None

    run(check())
    assert "ZeroDivisionError" in caplog.text


def test_a_ledger_that_fails_to_settle_does_not_keep_the_others_open() -> None:
    class Broken(BookkeepingLedger):
        async def settle(self, hold: Hold, bill: Bill, *, row: Row) -> Row:
            raise RuntimeError("no ink")

    async def check() -> None:
        later = BookkeepingLedger()
        async with lab() as (_, engine):
            exchange, _ = await converse(engine, ask(), terms(ledgers=(Broken(), later)))
        assert later.open == 0
        assert exchange.row is not None
        assert (exchange.row.outcome, exchange.row.code) == ("failed", "internal_error")
        assert type(exchange.error) is DrovewayError
        assert exchange.answer is None

    run(check())


@pytest.mark.parametrize(
    "extra", [{"model": "dear"}, {"stream": True}, {"messages": []}, {"n": 50}, {"max_tokens": "9"}]
)
def test_extra_cannot_pass_by_what_is_counted(extra: dict[str, object]) -> None:
    async def check() -> None:
        async with lab() as (box, engine):
            exchange, _ = await converse(engine, ask(extra=extra))
            assert type(exchange.error) is BadRequestError
            assert box.journal == []

    run(check())


def test_a_cap_in_extra_is_a_cap_that_counts() -> None:
    async def check() -> None:
        async with lab() as (box, engine):
            agent = AsyncAgent(
                engine=engine,
                model="deepseek-flash",
                extra={"max_tokens": 60_000},
                limits=Limits(max_cost="0.002"),
            )
            with pytest.raises(LimitExceededError):
                await agent.chat("hi")
            assert box.journal == []

    run(check())


@pytest.mark.parametrize("cap", [0, -1, -(10**9)])
def test_a_cap_below_one_is_refused(cap: int) -> None:
    async def check() -> None:
        async with lab() as (box, engine):
            exchange, _ = await converse(engine, ask(max_tokens=cap))
            assert type(exchange.error) is BadRequestError
            assert box.journal == []

    run(check())


def test_a_whole_answer_the_vendor_broke_off_is_billed_by_its_usage() -> None:
    body = (
        b'{"choices":[{"message":{"content":"a"},"finish_reason":"insufficient_system_resource"}],'
        b'"usage":{"prompt_tokens":10,"completion_tokens":1000}}'
    )

    async def check() -> None:
        spent = Allowance(max_cost=Money.parse("1", "USD"))
        async with vendor(whole(body)) as engine:
            exchange, _ = await converse(engine, ask(), terms(ledgers=(spent,)))
        assert isinstance(exchange.error, ProtocolError)
        assert exchange.error.partial is not None
        assert exchange.error.partial.text == "a"
        assert spent.spent is not None
        assert spent.spent.nano > 0

    run(check())


def test_what_was_sent_and_given_up_counts_by_estimate() -> None:
    async def check() -> None:
        async with lab() as (_, engine):
            quick = Timeout(connect_s=1, first_token_s=1, idle_s=1, total_s=0.2)
            asked = ask("x " * 3000, model="fault-slow-headers")
            given_up, _ = await converse(engine, asked, terms(timeout=quick))
            assert given_up.row is not None
            (entry,) = given_up.row.attempts
            assert entry.abandoned
            assert entry.usage is not None
            assert entry.usage.input > 1_000
            assert given_up.row.usage is None

    run(check())


def test_the_idle_clock_runs_again_after_a_slow_reader() -> None:
    async def check() -> list[str]:
        clock = StillClock()
        told: list[str] = []
        watch = Watch(clock, total_at=600, expired=told.append)
        watch.enter("idle", 60)
        watch.suspend()
        await clock.advance(100)
        watch.resume()
        await clock.advance(59)
        assert told == []
        await clock.advance(2)
        return told

    assert run(check()) == ["idle"]


KEY = "sk-Droveway-0123456789-abcdefghijkl"


@pytest.mark.parametrize(
    "answer",
    [
        whole(
            b'{"error":{"message":"%s%s is wrong"}}' % (b"a" * 280, KEY.encode()), status="401 No"
        ),
        whole(b"{}", extra=f"content-encoding: {KEY}\r\n"),
        whole(b'{"error":{"message":"no"}}', status="500 No", extra=f"x-request-id: {KEY}\r\n"),
        stream(b'data: {"error":{"message":"%s%s"}}\n\n' % (b"b" * 290, KEY.encode())),
        stream(b'event: error\ndata: {"message":"%s"}\n\n' % KEY.encode()),
    ],
    ids=["message", "coding", "request id", "in band", "error event"],
)
def test_a_key_that_the_vendor_repeats_goes_no_further(answer: bytes) -> None:
    async def check() -> None:
        async with vendor(answer, KEY) as engine:
            exchange, _ = await converse(engine, ask(stream=answer.startswith(stream(b""))))
        assert exchange.error is not None
        told = f"{exchange.error}{exchange.error!r}{vars(exchange.error)}".lower()
        assert all(KEY[:size].lower() not in told for size in range(12, len(KEY) + 1))

    run(check())


def test_being_cancelled_while_closing_does_not_cancel_a_settlement() -> None:
    async def check() -> None:
        ledger = BookkeepingLedger()
        ledger.may_settle.clear()
        async with lab() as (_, engine):
            exchange = await engine.begin(ask(), terms(ledgers=(ledger,)))
            while "settle asked" not in ledger.steps:
                await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.aclose(), 0.05)
            assert not exchange.task.done()
            ledger.may_settle.set()
            await asyncio.wait([exchange.task])
            assert ledger.open == 0

    run(check())


def test_a_corridor_that_is_cancelled_by_others_tells_its_reader() -> None:
    async def check() -> None:
        ledger = BookkeepingLedger()
        ledger.may_hold.clear()
        async with lab() as (_, engine):
            exchange = await engine.begin(ask(stream=True), terms(ledgers=(ledger,)))
            while "hold asked" not in ledger.steps:
                await asyncio.sleep(0)
            exchange.task.cancel()
            with pytest.raises(DrovewayError):
                await exchange.outbox.take()
            assert exchange.row is not None
            assert exchange.row.code == "cancelled"

    run(check())


def test_a_call_that_was_never_sent_uses_up_no_request() -> None:
    async def check() -> None:
        async with lab() as (_, engine):
            agent = AsyncAgent(
                engine=engine, model="deepseek-flash", limits=Limits(max_requests=2), timeout=QUICK
            )
            for _ in range(3):
                with pytest.raises(LimitExceededError, match="max_cost"):
                    await agent.chat("hi", limits=Limits(max_cost="0.0000001"))
            assert (await agent.chat("hi")).text

    run(check())


def test_an_engine_that_is_closed_starts_no_sandbox() -> None:
    async def check() -> None:
        engine = Engine(environ={})
        await engine.aclose()
        await converse(engine, ask())
        assert engine.sandbox is None

    run(check())


def test_bad_framing_after_the_finish_marker_does_not_take_the_answer_back() -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    framed = b"%x\r\n%s\r\nnonsense\r\n" % (len(chunk), chunk)
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )

    async def check() -> None:
        async with vendor(head + framed) as engine:
            exchange, events = await converse(engine, ask(stream=True), terms(ONCE))
        assert exchange.error is None
        assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta("a")]

    run(check())


def test_deep_json_in_an_answer_is_an_answer_that_does_not_fit() -> None:
    deep = b"[" * 5_000 + b"]" * 5_000
    body = b'{"choices":[{"message":{"content":"{\\"y\\":%s}"},"finish_reason":"stop"}]}' % deep

    async def check() -> None:
        async with vendor(whole(body)) as engine:
            agent: AsyncAgent[Message] = AsyncAgent(engine=engine, output_type=Message)
            with pytest.raises((OutputValidationError, ProtocolError)):
                await agent.chat("hi")

    run(check())


def test_a_flood_of_tool_calls_in_one_event_is_refused() -> None:
    calls = b",".join([b"{}"] * 5_000)
    body = b'data: {"choices":[{"delta":{"tool_calls":[%s]}}]}\n\n' % calls

    async def check() -> None:
        async with vendor(stream(body)) as engine:
            exchange, _ = await converse(engine, ask(stream=True))
        assert isinstance(exchange.error, ProtocolError)

    run(check())


def test_a_newcomer_stands_behind_a_spread_that_is_going_on() -> None:
    pacer = Pacer(concurrency=100)
    herd = [Ticket(number, 1, 0.99) for number in range(10)]
    for ticket in herd:
        pacer.join(ticket, 0.0)
    pacer.admit(0.0)
    for ticket in herd:
        pacer.refused(ticket, 0.0, retry_after_s=1)
        pacer.join(Ticket(ticket.number, 1, 0.99), 0.0)
    (probe,) = pacer.admit(1.0)
    pacer.answered(probe, 1.1)
    late = Ticket(99, 1, 0.0)
    pacer.join(late, 0.0)
    assert late not in pacer.admit(1.1)


def test_going_on_to_the_next_candidate_costs_no_retry_budget() -> None:
    """Ours: in an outage of the first one the second one answers, however long it lasts."""
    script = Script(rules=(Rule(fault="500"),))

    async def check() -> None:
        async with (
            Sandbox(profile=INSTANT, script=script) as broken,
            Sandbox(profile=INSTANT) as good,
        ):
            settings = Settings(
                providers={
                    "first": ProviderSettings(base_url=broken.base_url),
                    "second": ProviderSettings(base_url=good.base_url),
                },
                models={"either": AliasSettings(candidates=("first/m", "second/m"))},
            )
            async with Engine(settings, environ={}) as engine:
                for _ in range(60):
                    exchange, _ = await converse(engine, ask(model="either"), terms(PATIENT))
                    assert exchange.error is None

    run(check())


def test_a_call_waits_for_money_that_others_hold_and_will_give_back() -> None:
    async def check() -> None:
        purse = Allowance(max_cost=Money.parse("0.003", "USD"))
        async with lab() as (_, engine):
            calls = [
                converse(engine, ask(f"{n}", max_tokens=1_000), terms(ledgers=(purse,)))
                for n in range(20)
            ]
            ended = await asyncio.gather(*calls)
        assert [exchange.error for exchange, _ in ended] == [None] * 20
        assert purse.spent is not None
        assert purse.spent.nano > 0

    run(check())


def test_an_attempts_time_ends_with_the_attempt() -> None:
    async def check() -> None:
        async with lab() as (_, engine):
            exchange, _ = await converse(engine, ask(model="fault-429-ms:300@1"), terms(PATIENT))
            assert exchange.row is not None
            refused, answered = exchange.row.attempts
            assert refused.total_ms < 250
            assert answered.total_ms < 250
            assert exchange.row.total_ms >= 300

    run(check())


def test_waiting_for_money_ends_with_the_calls_own_time_or_with_its_caller() -> None:
    """Ours: another call holds all of it and its vendor is silent for much longer."""

    async def check() -> None:
        purse = Allowance(max_cost=Money.parse("0.012", "USD"), max_requests=9)
        slow = Timeout(connect_s=9, first_token_s=9, idle_s=9, total_s=20)
        short = Timeout(connect_s=9, first_token_s=9, idle_s=9, total_s=0.2)
        script = Script(rules=(Rule(times=1, fault="slow-headers"),))
        async with lab(script=script) as (box, engine):
            asked = ask(model="gpt-4.1", max_tokens=1_000)
            holder = await engine.begin(asked, terms(timeout=slow, ledgers=(purse,)))
            async with asyncio.timeout(5):
                while not box.journal:
                    await asyncio.sleep(0.005)
            async with asyncio.timeout(5):
                late, _ = await converse(engine, asked, terms(timeout=short, ledgers=(purse,)))
                assert isinstance(late.error, DeadlineExceededError)
                gone = await engine.begin(asked, terms(timeout=slow, ledgers=(purse,)))
                await asyncio.sleep(0.05)
                gone.give_up()
                await asyncio.wait([gone.task])
                assert gone.row is not None
                assert gone.row.outcome == "cancelled"
            assert len(box.journal) == 1
            assert purse.requests == 1
            holder.give_up()

    run(check())
