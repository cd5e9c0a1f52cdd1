"""What callers and operators of a gateway are told of a vendor that is left alone."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from door import HI, SECRET
from droveway.resilience.gate import FAILURES_IN_A_ROW, OPEN_BASE_S, SHUT_OUT_S
from droveway.sandbox import Rule, Script
from lab import run
from operator_door import VENDOR_KEY, OperatorDoor, Said, operator_door, send
from scraping import number


async def _chat(door: OperatorDoor, **fields: Any) -> Said:
    body = {"model": "model", "messages": HI, **fields}
    return await send(door, "POST /v1/chat/completions", body, token=SECRET)


async def _line(door: OperatorDoor) -> Any:
    (told,) = (await send(door, "GET /admin/v1/providers")).told["data"]
    return told["lines"][0]


def _opens_in(door: OperatorDoor, line: Any) -> timedelta:
    return datetime.fromisoformat(line["until"]) - door.engine.clock.now()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", ["401", "402"])
def test_a_vendor_that_does_not_let_us_in_is_a_502_and_asked_once(
    fault: str, tmp_path: Path, *, stream: bool
) -> None:
    """Our account is none of a caller's business: a 402 would make them top up theirs."""

    async def check() -> None:
        script = Script(rules=(Rule(fault=fault),))
        async with operator_door(tmp_path, script=script) as door:
            for _ in range(5):
                said = await _chat(door, stream=stream)
                assert (said.status, said.error["code"]) == (502, "upstream_failed")
                assert VENDOR_KEY.encode() not in said.body
            assert len(door.box.journal) == 1
            line = await _line(door)
            assert (line["state"], line["cause"]) == ("open", "shut_out")
            left = timedelta(seconds=SHUT_OUT_S) - _opens_in(door, line)
            assert timedelta(0) <= left <= timedelta(seconds=SHUT_OUT_S / 2)
            # The vendor takes us again, and the moment has come.
            door.engine.lines[next(iter(door.engine.lines))].pacer.gate.until = 0.0
            line = await _line(door)
            assert (line["state"], line["until"]) == ("half_open", None)

    run(check())


def test_a_vendor_that_fails_in_a_row_is_told_as_unavailable_and_not_asked(tmp_path: Path) -> None:
    async def check() -> None:
        script = Script(rules=(Rule(fault="500"),))
        async with operator_door(tmp_path, script=script) as door:
            (line,) = [door.engine.line_of(each) for each in door.engine.plan("model")]
            now = door.engine.clock.monotonic()
            gate = line.pacer.gate
            for request in range(FAILURES_IN_A_ROW):
                gate.failed(now, request=-request, probe=False)
            for _ in range(3):
                gate.elapsed(gate.until)
                gate.failed(now, request=0, probe=True)
            # The fourth probe is due, and the next one will be 16 s away.
            gate.until = now
            first = await _chat(door)
            assert first.status in {500, 502}
            seen = len(door.box.journal)
            told = await asyncio.gather(*(_chat(door) for _ in range(4)))
            for said in told:
                assert (said.status, said.error["code"]) == (503, "unavailable")
            assert len(door.box.journal) == seen
            state = await _line(door)
            assert (state["state"], state["cause"], state["waiting"]) == ("open", "failing", 0)
            assert _opens_in(door, state) > timedelta(seconds=8 * OPEN_BASE_S)
            page = (await send(door, "GET /metrics")).body.decode()
            assert number(page, "droveway_line_stopped", cause="failing") == 1
            assert number(page, "droveway_line_stopped") == 1

    run(check())
