"""Every fault of the sandbox, streamed or whole, in two accents, by library and gateway."""

import asyncio
from pathlib import Path

import pytest

from droveway import sandbox
from faults.matrix import FAULTS, Face, Place, places
from faults.playing import play
from lab import run

# One of each kind of ending; all the others are long.
SAMPLE = ("400", "401", "429-past", "500@1", "hang-up", "cut-event:3", "stall:3", "error-event:3",
          "end-without-finish", "done-without-finish", "usage-negative", "malformed:9")  # fmt: skip
AT_THE_GATEWAY = [
    pytest.param(fault, marks=() if fault in SAMPLE else pytest.mark.long) for fault in FAULTS
]


def wrong_in_row(fault: str, face: Face, folder: Path) -> dict[str, list[str]]:
    """Play the four cells of a fault at once; return what is wrong, by cell."""
    cells = [place for place in places(face) if place.fault == fault]

    async def one(place: Place) -> tuple[str, list[str]]:
        own = folder / place.column
        own.mkdir()
        return str(place), (await play(place, own)).wrong

    async def row() -> dict[str, list[str]]:
        return dict(await asyncio.gather(*map(one, cells)))

    return {name: wrong for name, wrong in run(row()).items() if wrong}


def test_every_fault_of_the_sandbox_has_a_row() -> None:
    assert {name.partition("@")[0].partition(":")[0] for name in FAULTS} == set(sandbox.FAULTS)
    assert set(SAMPLE) < set(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_in_the_library_a_fault_has_one_typed_end_and_one_settlement(
    fault: str, tmp_path: Path
) -> None:
    assert wrong_in_row(fault, "library", tmp_path) == {}


@pytest.mark.parametrize("fault", AT_THE_GATEWAY)
def test_at_the_gateway_a_fault_has_one_end_one_row_and_one_settlement(
    fault: str, tmp_path: Path
) -> None:
    assert wrong_in_row(fault, "gateway", tmp_path) == {}
