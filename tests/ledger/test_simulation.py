"""Worlds in which processes die at any statement: nothing is lost, and nothing taken twice.

A failing seed is lived through again with `DROVEWAY_SEED=n`.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import pytest

from droveway.ledger import epoch, statements
from droveway.storage import migrating
from droveway.storage.writer import Job
from ledger.deeds import Deed, came_of
from ledger.mortals import Driver
from ledger.simulation import World
from ledger.worlds import live_through, live_through_elsewhere

WORLDS: Final = int(os.environ.get("LEDGER_SIMULATION_WORLDS", "10000"))
ONE: Final = os.environ.get("DROVEWAY_SEED")
WORLDS_AT_ONCE: Final = 50
# What a hundred worlds must have been through, or they prove little.
HAPPENS: Final = {
    "death after a commit",
    "death between two transactions",
    "death in a transaction",
    "death while it reads",
    "death while it starts",
    "it failed, for free",
    "it is booked",
    "it is refused",
    "it is served",
    "it was booked before",
    "it was served before",
    "resolved, charged",
    "resolved, free",
    "the clock is set",
    "the same answer again",
}


def seeds(count: int) -> range:
    """The first so many, or the one that is asked for."""
    return range(count) if ONE is None else range(int(ONE), int(ONE) + 1)


def test_in_a_hundred_worlds_everything_happens_and_nothing_is_lost(tmp_path: Path) -> None:
    happened = live_through(seeds(100), tmp_path)
    assert ONE is not None or set(happened) >= HAPPENS


@pytest.mark.long
def test_in_many_worlds_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    happened: Counter[str] = Counter()
    all_, lived = seeds(WORLDS), 0
    parts = [all_[start : start + WORLDS_AT_ONCE] for start in range(0, len(all_), WORLDS_AT_ONCE)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool, capsys.disabled():
        living = {pool.submit(live_through_elsewhere, part): len(part) for part in parts}
        try:
            for each in as_completed(living):
                happened += each.result()
                lived += living[each]
                sys.stderr.write(f"\r{lived} of {len(all_)} worlds")
                sys.stderr.flush()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        told = (f"{times:9,} {what}" for what, times in happened.most_common())
        sys.stderr.write("\n" + "\n".join(told) + "\n")


def test_a_seed_is_one_world(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    assert live_through(range(3, 6), one) == live_through(range(3, 6), other)


# It can fail: each of these takes a guard away, and a hundred worlds see it.


def without_transactions(patch: pytest.MonkeyPatch) -> None:
    execute = Driver.execute

    def each_alone(driver: Driver, sql: str, *rest: Any) -> Any:
        bounds = sql.split(maxsplit=1)[0] in {"BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT"}
        driver.commits += sql == "COMMIT"
        return execute(driver, "SELECT 1" if bounds else sql, *rest)

    patch.setattr(Driver, "execute", each_alone)
    patch.setattr(Driver, "in_transaction", True, raising=False)


def without_locks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(epoch, "_locked", lambda file: os.open(file, os.O_CREAT | os.O_RDWR))


def without_claims(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(statements, "CLAIM", f"{statements.CLAIM} AND 0")


def without_references(patch: pytest.MonkeyPatch) -> None:
    known = f"{statements.TOPUP_BY_REFERENCE} AND 0"
    steps = [
        step._replace(
            sql=step.sql.replace("reference TEXT NOT NULL UNIQUE", "reference TEXT NOT NULL")
            .replace("CHECK (json_type(told) = 'object'),", "CHECK (json_type(told) = 'object')")
            .replace("  UNIQUE (kind, reference)\n", "")
        )
        for step in migrating.steps()
    ]
    patch.setattr(migrating, "steps", lambda: steps)
    patch.setattr(statements, "TOPUP_BY_REFERENCE", known)


def without_the_dead(patch: pytest.MonkeyPatch) -> None:
    """Nobody ends what the dead have held."""
    patch.setattr(statements, "HOLDS_OF_EPOCH", f"{statements.HOLDS_OF_EPOCH} AND 0")


def without_progress(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(statements, "NOTE_PROGRESS", f"{statements.NOTE_PROGRESS} AND ?1 % 2")


GUARDS: Final = (
    without_transactions,
    without_locks,
    without_claims,
    without_references,
    without_the_dead,
    without_progress,
)


def without_comparing(world: World, wanted: Sequence[Deed], jobs: Sequence[Job]) -> list[object]:
    return [came_of(job.result, job.error) for job in jobs]


@pytest.mark.parametrize("modelled", [True, False], ids=["by the model", "by what was told"])
@pytest.mark.parametrize("take_away", GUARDS)
def test_a_world_without_a_guard_is_found_out(
    take_away: Callable[[pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    modelled: bool,
) -> None:
    """Ours: the rules and what everybody was told see it also where no model looks on."""
    take_away(monkeypatch)
    if not modelled:
        monkeypatch.setattr(World, "_compare", without_comparing)
        monkeypatch.setattr(World, "differs", lambda _: False)
    with pytest.raises(Exception) as found:
        live_through(range(100), tmp_path)
    assert "DROVEWAY_SEED=" in found.value.__notes__[0]
