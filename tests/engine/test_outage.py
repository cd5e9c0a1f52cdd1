"""Ten minutes without any good answer, on a still clock: the vendor is not stormed."""

import asyncio
from typing import cast

import msgspec
import pytest

from droveway.clock import StillClock
from droveway.engine.assembly import provider_at
from droveway.engine.engine import Engine
from droveway.engine.exchange import Exchange
from droveway.errors import (
    APIConnectionError,
    DrovewayError,
    InternalServerError,
    ProviderDownError,
    UpstreamError,
)
from droveway.gateway.refusal import refuse
from droveway.gateway.visit import Visit
from droveway.gateway.wishes import wishes_of
from droveway.resilience.retry import BUDGET_START, RetryPolicy
from droveway.settings import ProviderSettings, Timeout
from droveway.transport import Call, Request, ResponseHead, Sink
from lab import ask, run, terms

MINUTES = 10
EVERY_S = 1.0
LONG = Timeout(connect_s=60, first_token_s=60, idle_s=60, total_s=120)


class NobodyThere:
    """A vendor that answers every request with one status at once, or takes no connection."""

    def __init__(self, status: int | None) -> None:
        self.attempts = 0
        self.status = status

    async def send(self, request: Request, sink: Sink) -> Call:
        self.attempts += 1
        if self.status is None:
            raise APIConnectionError("connection refused", sent=False)
        sink.on_head(ResponseHead(self.status, [("content-length", "0")]))
        sink.on_done()
        return cast("Call", _GONE)

    async def aclose(self) -> None: ...


class _Gone:
    def abort(self) -> None: ...


_GONE = _Gone()


@pytest.mark.parametrize("status", [None, 500, 503, 529])
def test_ten_minutes_of_outage_cost_a_tenth_more_attempts_and_a_constant(
    status: int | None,
) -> None:
    """Ours: one request a second, each of which would be sent five times."""

    async def check() -> None:
        clock, nobody = StillClock(), NobodyThere(status)
        exchanges: list[Exchange] = []
        provider = provider_at("http://127.0.0.1:9/v1", None)
        async with Engine(providers=[provider], clock=clock) as engine:
            pool, engine.dispatch._pool = engine.dispatch._pool, nobody  # type: ignore[assignment]
            for number in range(int(MINUTES * 60 / EVERY_S)):
                given = terms(RetryPolicy(max_attempts=5), timeout=LONG)
                exchanges.append(await engine.begin(ask(f"{number}"), given))
                await clock.advance(EVERY_S)
            while not all(each.task.done() for each in exchanges):
                assert await clock.jump(), "somebody waits for nothing"
            engine.dispatch._pool = pool
            errors: list[DrovewayError | None] = [each.error for each in exchanges]
            expected = UpstreamError if status is None else InternalServerError | ProviderDownError
            assert all(isinstance(error, expected) for error in errors)
            assert nobody.attempts <= 1.10 * len(exchanges) + BUDGET_START
            (line,) = engine.lines.values()
            assert (line.pacer.in_flight, line.pacer.waiting) == (0, 0)

    run(check())


class Layer:
    """A gateway of ours before a vendor, as the pool of an SDK's engine: no socket in between."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.attempts = 0

    async def send(self, request: Request, sink: Sink) -> Call:
        self.attempts += 1
        wishes = wishes_of([(name.encode(), value.encode()) for name, value in request.headers])
        assert wishes.deadline_s is not None
        assert wishes.attempts_max is not None
        given = terms(
            RetryPolicy(max_attempts=min(5, wishes.attempts_max)),
            timeout=msgspec.structs.replace(LONG, total_s=wishes.deadline_s),
        )
        exchange = await self.engine.begin(ask(f"{self.attempts}"), given)
        await asyncio.wait([exchange.task])
        wire = Wire()
        assert exchange.error is not None
        refuse(Visit(wire), exchange.error)
        head, _, body = wire.sent.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        pairs = [(name, value) for name, _, value in (each.partition(": ") for each in fields)]
        sink.on_head(ResponseHead(int(first.split()[1]), pairs))
        sink.on_chunk(body)
        sink.on_done()
        return cast("Call", _GONE)

    async def aclose(self) -> None: ...


class Wire:
    """Takes what is written."""

    blocked = False

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def stays(self, _: Visit) -> bool:
        return True

    def answered(self, _: Visit) -> None: ...

    def abort(self) -> None: ...


@pytest.mark.parametrize("failures_max", [5, 0], ids=["breaker", "no breaker"])
@pytest.mark.parametrize("status", [None, 500, 503, 529])
def test_an_sdk_and_a_gateway_do_not_multiply_in_ten_minutes_of_outage(
    status: int | None, failures_max: int
) -> None:
    """Spec: 1.2 times the requests with both, and a constant."""

    async def check() -> None:
        clock, nobody = StillClock(), NobodyThere(status)
        limits = ProviderSettings(failures_max=failures_max)
        exchanges: list[Exchange] = []

        def asking() -> Engine:
            vendor = provider_at("http://127.0.0.1:9/v1", None, limits=limits)
            return Engine(providers=[vendor], clock=clock)

        async with asking() as gateway, asking() as sdk:
            layer = Layer(gateway)
            gateway.dispatch._pool = nobody  # type: ignore[assignment]
            sdk.dispatch._pool = layer  # type: ignore[assignment]
            for number in range(int(MINUTES * 60 / EVERY_S)):
                given = terms(RetryPolicy(max_attempts=5), timeout=LONG)
                exchanges.append(await sdk.begin(ask(f"{number}"), given))
                await clock.advance(EVERY_S)
            while not all(each.task.done() for each in exchanges):
                assert await clock.jump(), "somebody waits for nothing"
            assert all(each.error is not None for each in exchanges)
            assert nobody.attempts <= 1.2 * len(exchanges) + 2 * BUDGET_START
            if failures_max:
                assert nobody.attempts < 0.2 * len(exchanges)

    run(check())
