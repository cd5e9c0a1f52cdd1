"""Ten minutes without any good answer, on a still clock: the vendor is not stormed."""

from typing import cast

import pytest

from droveway.clock import StillClock
from droveway.engine.assembly import provider_at
from droveway.engine.engine import Engine
from droveway.engine.exchange import Exchange
from droveway.errors import APIConnectionError, DrovewayError, InternalServerError, UpstreamError
from droveway.resilience.retry import BUDGET_START, RetryPolicy
from droveway.settings import Timeout
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
            expected = UpstreamError if status is None else InternalServerError
            assert all(isinstance(error, expected) for error in errors)
            assert nobody.attempts <= 1.10 * len(exchanges) + BUDGET_START
            (line,) = engine.lines.values()
            assert (line.pacer.in_flight, line.pacer.waiting) == (0, 0)

    run(check())
