"""What a line learns of a vendor while it is asked, over a real socket."""

import pytest

from droveway.resilience.retry import RetryPolicy
from droveway.sandbox import Limits, Rule, Script
from lab import PATIENT, ask, converse, lab, run, terms


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_limits_that_a_vendor_tells_in_its_headers_are_kept(*, stream: bool) -> None:
    async def check() -> None:
        async with lab(limits=Limits(rpm=700, tpm=90_000)) as (_, engine):
            await converse(engine, ask(stream=stream))
            (line,) = engine.lines.values()
            assert (line.pacer.rpm, line.pacer.tpm) == (700, 90_000)

    run(check())


@pytest.mark.parametrize("fault", ["503", "529", "429-ms:50"])
def test_a_vendor_that_has_too_much_to_do_gets_fewer_at_once(fault: str) -> None:
    script = Script(rules=(Rule(times=1, fault=fault),))

    async def check() -> None:
        async with lab(script=script) as (_, engine):
            retry = RetryPolicy(max_attempts=1) if fault != "429-ms:50" else PATIENT
            await converse(engine, ask(), terms(retry))
            (line,) = engine.lines.values()
            assert line.pacer.concurrency == 2_500 // 2
            assert (line.pacer.in_flight, line.pacer.waiting) == (0, 0)

    run(check())
