"""This file knows a whole measurement: servers, questions and pace in, a report out."""

import os
from collections.abc import Sequence

import msgspec

from droveway.bench.load import Load, Pace, Target
from droveway.bench.questions import questions
from droveway.bench.report import Report, differences, target_report
from droveway.bench.tally import Tally
from droveway.catalog.pricelists import built_in_book
from droveway.clock import Clock
from droveway.engine.provider import Provider
from droveway.transport import Pool, ProxyRules


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked.

    Attributes:
        model: Which model.
        stream: Whether as a stream.
        roles: How many of the seventeen roles take turns.
        max_tokens: Output tokens of each answer; None leaves it to the server.
    """

    model: str
    stream: bool = True
    roles: int = 17
    max_tokens: int | None = None


class Bench:
    """Measures one server, or two side by side; to be run once, on the loop it is made on.

    Args:
        servers: The server; with a second one the difference is reported too.
        asked: What they are asked.
        pace: How hard and how long.
        clock: Tells the time.
        proxy: Which of them are behind a proxy.
    """

    def __init__(
        self,
        servers: Sequence[Provider],
        *,
        asked: Asked,
        pace: Pace,
        clock: Clock,
        proxy: ProxyRules | None = None,
    ) -> None:
        book = built_in_book()
        self._asked = asked
        self._pace = pace
        self._clock = clock
        self._proxy = proxy
        self._targets = [
            Target(each, Tally(each, model=asked.model, book=book, clock=clock)) for each in servers
        ]
        self._load: Load | None = None
        self._cpu_s = 0.0

    async def run(self) -> None:
        """Measure until the time is over, or until `stop`."""
        asked = self._asked
        # An idle connection that is closed between two requests would be measured as a new one.
        pool = Pool(
            clock=self._clock,
            connections_per_origin_max=self._pace.connections,
            idle_max=self._pace.connections * len(self._targets),
            proxy=self._proxy,
        )
        self._load = Load(
            self._targets,
            questions(
                asked.roles, model=asked.model, stream=asked.stream, max_tokens=asked.max_tokens
            ),
            streaming=asked.stream,
            pace=self._pace,
            wire=pool,
            clock=self._clock,
        )
        before = _own_cpu_s()
        try:
            await self._load.run()
        finally:
            self._cpu_s = _own_cpu_s() - before
            await pool.aclose()

    def stop(self) -> None:
        """End now; what is on its way is not counted."""
        if self._load is not None:
            self._load.stop()

    @property
    def passed_s(self) -> float:
        """Seconds since its begin, the warm-up among them, at most all that it has."""
        if self._load is None:
            return 0.0
        return self.all_s - max(0.0, self._load.until - self._clock.monotonic())

    @property
    def all_s(self) -> float:
        """Seconds in which it sends."""
        return self._pace.warmup_s + self._pace.duration_s

    @property
    def counts(self) -> tuple[int, int]:
        """How many requests are measured by now, and how many of them failed."""
        tallies = [target.tally for target in self._targets]
        return sum(each.sent for each in tallies), sum(each.failed.total() for each in tallies)

    def report(self) -> Report:
        """Make figures of what was measured."""
        load = self._load
        assert load is not None, "it was run"
        told = [
            target_report(url_of(each.provider), each.tally, counted_from=load.counted_from)
            for each in self._targets
        ]
        return Report(
            model=self._asked.model,
            stream=self._asked.stream,
            roles=self._asked.roles,
            pace=self._pace,
            sent=load.asked,
            interrupted=load.interrupted,
            own_cpu_ms_per_request=(
                round(self._cpu_s / load.asked * 1e3, 3) if load.asked else None
            ),
            targets=told,
            difference=differences(told[0], told[1]) if len(told) > 1 else {},
        )


def url_of(server: Provider) -> str:
    """Return the base URL of a server."""
    return f"{server.origin.scheme}://{server.origin.address}{server.path}"


def _own_cpu_s() -> float:
    used = os.times()
    return used.user + used.system
