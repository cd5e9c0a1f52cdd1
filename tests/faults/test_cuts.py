"""A stream that is cut at any byte is never passed off as complete, and is billed as it came."""

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest

from faults.caller import DONE, Told, call
from faults.recorded import RECORDINGS, Recording, cutting
from faults.stand import Stand, settings, standing
from lab import run

AT_ONCE: Final = 8
# A prime, so that the sample does not fall on the same place of each event.
STRIDE: Final = 61
FRAMINGS: Final = {"closed": False, "chunked": True}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", RECORDINGS)
def test_a_stream_cut_at_some_bytes_is_told_and_billed_as_cut(
    name: str, framing: str, tmp_path: Path
) -> None:
    recording = RECORDINGS[name]
    near = range(recording.whole_from - 3, recording.whole_from + 3)
    cuts = sorted({*range(0, len(recording.body), STRIDE), *near, len(recording.body)})
    run(cut_at(recording, cuts, tmp_path, chunked=FRAMINGS[framing]))


@pytest.mark.long
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", RECORDINGS)
def test_a_stream_cut_at_every_byte_is_told_and_billed_as_cut(
    name: str, framing: str, tmp_path: Path
) -> None:
    recording = RECORDINGS[name]
    cuts = list(range(len(recording.body) + 1))
    run(cut_at(recording, cuts, tmp_path, chunked=FRAMINGS[framing]), within_s=300)


async def cut_at(recording: Recording, cuts: list[int], folder: Path, *, chunked: bool) -> None:
    turns = asyncio.Semaphore(AT_ONCE)
    async with cutting(recording, chunked=chunked) as url:
        told = settings(url, accent=recording.accent)
        async with standing(folder, told, balance="100.00") as stand:

            async def ask(cut: int) -> Told:
                async with turns:
                    return await call(stand.url, recording.asks(cut))

            answers = await asyncio.gather(*map(ask, cuts))
            look(recording, dict(zip(cuts, answers, strict=True)), stand)


def look(recording: Recording, answers: dict[int, Told], stand: Stand) -> None:
    rows = {row["id"]: row for row in stand.rows()}
    assert len(rows) == len(answers)
    counted = 0
    for cut, told in answers.items():
        row = rows[told.headers["x-request-id"]]
        assert row["attempts"] == 1, f"cut at {cut}"
        assert told.whole, f"cut at {cut}"
        if cut >= recording.whole_from:
            assert (row["outcome"], told.error, told.done) == ("completed", None, True)
        else:
            look_at_failure(told, row, cut=cut)
            # What was paid for grows with what came, and never shrinks.
            assert counted <= (row["output"] or 0), f"cut at {cut}"
            counted = row["output"] or 0
    assert counted > 0
    costs = {row["id"]: row["cost_nano"] or 0 for row in rows.values()}
    assert sorted(stand.spent()) == sorted(cost for cost in costs.values() if cost)
    ended = [("captured", cost) if cost else ("released", 0) for _, cost in sorted(costs.items())]
    assert stand.holds() == ended


def look_at_failure(told: Told, row: dict[str, Any], *, cut: int) -> None:
    assert DONE not in told.events, f"cut at {cut}"
    assert (row["outcome"], row["code"]) == ("failed", "upstream_failed"), f"cut at {cut}"
    error = told.error
    assert error is not None, f"cut at {cut}"
    assert error["code"] == "upstream_failed", f"cut at {cut}"
    if told.status == 200:
        assert error["retryable"] is True, f"cut at {cut}"
        assert error["characters_delivered"] == len(told.text), f"cut at {cut}"
    else:
        assert told.status == 502, f"cut at {cut}"
        assert not row["cost_nano"], f"cut at {cut}"
