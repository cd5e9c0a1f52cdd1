"""This file knows how tests get an engine with a sandbox behind it, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from droveway.chat import Answer, ChatRequest, Message
from droveway.engine.assembly import provider_at
from droveway.engine.engine import Engine
from droveway.engine.exchange import Exchange
from droveway.engine.outbox import StreamEvent
from droveway.engine.records import Row
from droveway.engine.settling import Bill, Bound, Enough, Hold, Ledger
from droveway.engine.terms import Terms
from droveway.resilience.retry import RetryPolicy
from droveway.sandbox import Profile, Sandbox
from droveway.settings import ProviderSettings, Timeout

T = TypeVar("T")
INSTANT = Profile(instant=True, answer_tokens=12, reasoning_tokens=4)
QUICK = Timeout(connect_s=2.0, first_token_s=0.4, idle_s=0.4, total_s=4.0)
ONCE = RetryPolicy(max_attempts=1)
PATIENT = RetryPolicy(max_attempts=5, base_s=0.01)


def run(work: Coroutine[Any, Any, T], *, within_s: float = 30.0) -> T:
    """Run a coroutine to its end, or fail: no test waits for ever."""

    async def bounded() -> T:
        async with asyncio.timeout(within_s):
            return await work

    return asyncio.run(bounded())


def undaunted_engine(base_url: str) -> Engine:
    """An engine that asks one URL however often it fails: for vendors that fail on purpose."""
    never = ProviderSettings(failures_max=0)
    return Engine(providers=[provider_at(base_url, None, limits=never)])


@asynccontextmanager
async def lab(**sandbox: Any) -> AsyncIterator[tuple[Sandbox, Engine]]:
    """A sandbox without delays, and an engine that asks it."""
    async with Sandbox(**{"profile": INSTANT, **sandbox}) as box:
        async with Engine.at(box.base_url) as engine:
            yield box, engine


def ask(text: str = "Say something short.", *, stream: bool = False, **fields: Any) -> ChatRequest:
    """A request of one user's message."""
    return ChatRequest(
        **{
            "model": "deepseek-flash",
            "messages": (Message(role="user", content=text),),
            "stream": stream,
            **fields,
        }
    )


def terms(retry: RetryPolicy = ONCE, **fields: Any) -> Terms:
    """Terms with clocks short enough for tests."""
    return Terms(**{"timeout": QUICK, "retry": retry, **fields})


async def converse(
    engine: Engine, request: ChatRequest, given: Terms | None = None
) -> tuple[Exchange, list[StreamEvent]]:
    """Run a request to its settlement, whole or as a stream, without raising."""
    exchange = await engine.begin(request, given or terms())
    events = []
    if request.stream:
        try:
            while (event := await exchange.outbox.take()) is not None:
                events.append(event)
        except Exception as error:
            assert error is exchange.error
    await asyncio.wait([exchange.task])
    return exchange, events


async def answered(engine: Engine, request: ChatRequest, given: Terms | None = None) -> Answer:
    """Run a request and return its answer."""
    exchange, _ = await converse(engine, request, given)
    if exchange.error is not None:
        raise exchange.error
    assert exchange.answer is not None
    return exchange.answer


class BookkeepingLedger(Ledger):
    """A ledger that writes down what it is asked, and can be held up at each step."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.open = 0
        self.may_hold = asyncio.Event()
        self.may_settle = asyncio.Event()
        self.may_hold.set()
        self.may_settle.set()

    @property
    def money_decides(self) -> bool:
        return False

    @property
    def keeps_rows(self) -> bool:
        return False

    async def hold(
        self, bound: Bound | None, *, request_id: str, enough: Enough | None = None
    ) -> Hold:
        self.steps.append("hold asked")
        await asyncio.sleep(0)
        await self.may_hold.wait()
        self.open += 1
        self.steps.append("held")
        return Hold()

    async def settle(self, hold: Hold, bill: Bill, *, row: Row) -> Row:
        self.steps.append("settle asked")
        await asyncio.sleep(0)
        await self.may_settle.wait()
        self.open -= 1
        self.steps.append("settled")
        return row

    def settle_later(self, hold: Hold, bill: Bill | None, *, row: Row) -> None:
        raise NotImplementedError

    async def release(self, hold: Hold, *, row: Row, sent: bool = False) -> None:
        await asyncio.sleep(0)
        self.open -= 1
        self.steps.append("released")
