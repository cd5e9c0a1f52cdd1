"""A process that takes money is killed at every named point of its way; its books stay right.

`test_billing_crashes.py` kills at random moments. Here each step that touches money has a name (see
`tests/crashing.py`), so that the shortest ones are hit too: between two statements of one
transaction, between a commit and the word of it. `make ledger-crash` does it a thousand times.
"""

import asyncio
import itertools
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

import crashing
from crash_site import STALLED, Load, Server, Site, make_template, site
from crashing import BY_NAME, POINTS, Point
from lab import run
from processes import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

KILLS: Final = int(os.environ.get("LEDGER_CRASH_POINT_KILLS", "200"))
SECONDS: Final = 60
LANES: Final = 2
# A store is used for so many kills: it takes longer to check the more it has seen.
KILLS_PER_STORE: Final = 25
# A command beside every kill would take longer than the kills.
PAY_IN_EVERY: Final = 4
SAY_EVERY: Final = 20
NOTED: Final = "SELECT id, progress_nano FROM hold WHERE progress_nano > 0 AND state = ?"
PAID: Final = "SELECT id, charged_nano FROM hold WHERE charged_nano > 0 AND state = ?"
CHARGED: Final = """
SELECT hold.id FROM claim JOIN hold ON hold.id = request_id WHERE word = ? AND charged_nano > 0
"""
# What `make test` has time for.
TELLING: Final = (
    "hold: money set aside, hold not yet written",
    "hold: committed, nobody told",
    "dispatch: the request is written",
    "stream: amid it, after a piece",
    "extension: the hold has grown",
    "settlement: the hold has ended",
    "settlement: after an entry",
    "settlement: committed, nobody told",
    "last frame of a stream: after",
    "epoch: one hold of several has ended",
    "shutdown: before the epoch ends",
    "top-up: committed, nobody told",
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    make_template(folder)
    return folder


# A death in each scene.


async def died(server: Server, place: Site, point: Point) -> None:
    """See that a process has killed itself."""
    with suppress(TimeoutError):
        await asyncio.wait_for(server.process.wait(), 5)
    code = server.process.returncode
    assert code is not None, f"{point.name!r} was never reached: {place.ends}"
    assert code == -signal.SIGKILL, f"{point.name!r}: {code}, {place.stderr[-2_000:]}"


async def die_amid_load(place: Site, point: Point, hit: int, *, pays_in: bool) -> None:
    """Ask until it dies; in the scene "stop" it is told to go down meanwhile, and then to hurry."""
    async with place.serving(trap=(point.name, str(hit))) as server, asyncio.TaskGroup() as group:
        if pays_in:
            group.create_task(place.top_up(f"beside {place.kills}"))
        if not server.port:
            await died(server, place, point)  # the log is moved from the very beginning
            return
        load = Load(place, server.port)
        ended = group.create_task(server.process.wait())
        ended.add_done_callback(lambda _: load.over.set())
        asking = group.create_task(load.run() if point.scene != "progress" else load.stall())
        if point.scene == "stop":
            await load.warm.wait()
            server.tell(signal.SIGTERM)
            await load.ask("whole", place.keys["acme"])
            server.tell(signal.SIGINT)
        await asking
        await died(server, place, point)


async def die_at_start(place: Site, point: Point, hit: int) -> None:
    """Kill a server that holds money for several; the next one dies while it begins."""
    async with place.serving() as server, asyncio.TaskGroup() as group:
        load = Load(place, server.port)
        group.create_task(load.stall())
        assert await load.ask("whole", place.keys["umbra"]) == "whole"
        await load.all_stalled.wait()
        if point.scene == "resolve":
            await until(lambda: len(place.read(NOTED, "held")) == STALLED, "progress is noted")
        server.tell(signal.SIGKILL)
        load.over.set()
    async with place.serving(trap=(point.name, str(hit))) as server:
        assert not server.port, f"{point.name!r} was never reached"
        await died(server, place, point)


async def die_as_a_command(place: Site, point: Point, hit: int) -> str:
    """Have a command die while a server serves; return what it printed."""
    trap, name, printed = (point.name, str(hit)), f"{point.scene} {place.kills}", ""
    async with place.serving() as server, asyncio.TaskGroup() as group:
        load = Load(place, server.port)
        group.create_task(load.run())
        await load.warm.wait()
        if point.scene == "topup":
            await place.top_up(name, trap=trap)
        elif point.scene == "freeze":
            await place.command("accounts", "freeze", "umbra", trap=trap)
        else:
            printed = await place.command("keys", "add", name, "--account", "acme", trap=trap)
        load.over.set()
    return printed.strip()


# What is left.


async def check_names(place: Site, load: Load) -> None:
    """Send again whatever had a name: what was charged is told again, the rest is served."""
    for word, (_, ended) in place.named.items():
        charged = place.read(CHARGED, word)
        assert charged or ended != "whole", "what was told is charged"
        assert await load.ask_again(word) == ("again" if charged else "whole")
    place.named.clear()


async def check_the_command(place: Site, point: Point, load: Load) -> None:
    """Check that what a dead command was asked is done or not; said again, it is done once."""
    name = f"{point.scene} {place.kills}"
    sql, about = {
        "topup": ("SELECT id FROM transfer WHERE reference = ?", name),
        "key": ("SELECT id FROM key WHERE name = ?", name),
        "freeze": ("SELECT id FROM account WHERE frozen_at_us IS NOT NULL AND name = ?", "umbra"),
    }[point.scene]
    assert bool(place.read(sql, about)) is point.committed
    if point.scene == "topup":
        await place.top_up(name)
        assert name in place.told.top_ups
    elif point.scene == "freeze" and point.committed:
        assert await load.ask("whole", place.keys["umbra"]) == "refused with 403"
        await place.command("accounts", "thaw", "umbra")
        assert await load.ask("whole", place.keys["umbra"]) == "whole"


async def kill(place: Site, point: Point, hit: int, *, pays_in: bool = True) -> None:
    """Have a process die at a point, start an ordinary server on what is left, and look."""
    place.kills += 1
    printed = ""
    if point.scene in {"load", "stop", "progress"}:
        await die_amid_load(place, point, hit, pays_in=pays_in)
    elif point.scene in {"start", "resolve"}:
        await die_at_start(place, point, hit)
    else:
        printed = await die_as_a_command(place, point, hit)
    async with place.serving() as server:
        place.check()
        load = Load(place, server.port)
        assert await load.ask("whole", printed or place.keys["acme"]) == "whole"
        await check_names(place, load)
        if point.scene == "resolve":
            assert len(place.read(NOTED, "resolved")) % STALLED == 0
            assert place.read(NOTED, "resolved") == place.read(PAID, "resolved")
        if point.scene in {"topup", "freeze", "key"}:
            await check_the_command(place, point, load)
        place.check()
        if pays_in:
            await place.command("ledger", "verify")
    assert "Traceback" not in place.stderr, place.stderr


async def die_once(template: Path, folder: Path, point: Point) -> None:
    hit = random.Random(point.name).randrange(1, point.most + 1)
    async with site(template, folder, seed=hit) as place:
        await kill(place, point, hit)


@pytest.mark.parametrize("name", TELLING)
def test_killed_at_a_telling_point_no_money_is_lost_or_taken_twice(
    name: str, template: Path, tmp_path: Path
) -> None:
    run(die_once(template, tmp_path / "site", BY_NAME[name]), within_s=SECONDS)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(BY_NAME.keys() - set(TELLING)))
def test_killed_at_any_other_point_neither(name: str, template: Path, tmp_path: Path) -> None:
    run(die_once(template, tmp_path / "site", BY_NAME[name]), within_s=SECONDS)


# Many kills.


@dataclass(slots=True)
class Marathon:
    """Kills at all points, again and again, in several lanes.

    Attributes:
        template: What places are made of.
        folder: Where they are.
        kills: How many are wanted.
        say: Prints a line.
        died: How often somebody was sent to die at a point.
        clean: How often the books were right after it.
        failures: What went wrong.
    """

    template: Path
    folder: Path
    kills: int
    say: Callable[[str], object]
    died: Counter[str] = field(default_factory=Counter)
    clean: Counter[str] = field(default_factory=Counter)
    failures: list[Exception] = field(default_factory=list)

    async def run(self) -> None:
        """Kill, and go on whatever is found."""
        work = itertools.islice(deaths(random.Random(self.kills)), self.kills)
        async with asyncio.TaskGroup() as group:
            for lane in range(LANES):
                group.create_task(self._go_on(work, lane))

    async def _go_on(self, work: Iterator[tuple[Point, int]], lane: int) -> None:
        for number in itertools.count():
            folder = self.folder / f"{lane}-{number}"
            async with site(self.template, folder, seed=self.died.total()) as place:
                for point, hit in itertools.islice(work, KILLS_PER_STORE):
                    if not await self._one(place, point, hit):
                        break  # the next ones shall not suffer from it
            if not place.kills:
                return

    async def _one(self, place: Site, point: Point, hit: int) -> bool:
        self.died[point.name] += 1
        done, left = self.died.total(), len(POINTS) - len(self.died)
        if done % SAY_EVERY == 0:
            self.say(f"{done} of {self.kills} kills, {left} points left")
        try:
            async with asyncio.timeout(SECONDS):
                await kill(place, point, hit, pays_in=place.kills % PAY_IN_EVERY == 0)
        except Exception as error:
            error.add_note(f"{point.name!r}, hit {hit}, in {place.folder}")
            self.failures.append(error)
            self.say(f"NOT CLEAN: {point.name!r}, hit {hit}, in {place.folder}: {error!r}")
            return False
        self.clean[point.name] += 1
        return True

    def table(self) -> str:
        """What was done, point by point."""
        rows = [(point.name, self.died[point.name], self.clean[point.name]) for point in POINTS]
        rows.append(("together", self.died.total(), self.clean.total()))
        head = f"{'point':<52}{'kills':>7}{'restarts clean':>16}"
        return "\n".join([head, *(f"{name:<52}{died:>7}{clean:>16}" for name, died, clean in rows)])


def deaths(chance: random.Random) -> Iterator[tuple[Point, int]]:
    """Points and hits, without end; none comes again before all have come."""
    while True:
        for point in chance.sample(POINTS, len(POINTS)):
            yield point, chance.randrange(1, point.most + 1)


@pytest.mark.long
def test_killed_at_all_points_again_and_again_neither(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}")
            sys.stdout.flush()

    marathon = Marathon(template, tmp_path, KILLS, say)
    run(marathon.run(), within_s=60 + 10 * KILLS)
    say(marathon.table())
    if marathon.failures:
        raise ExceptionGroup("the books were not right", marathon.failures)
    assert marathon.clean.total() == KILLS
    assert len(marathon.clean) == min(KILLS, len(POINTS)), "each point was reached"


# The points themselves.


def test_every_point_is_there() -> None:
    """Ours: at one whose function was renamed, nobody would die any more."""
    assert len(BY_NAME) == len(POINTS) >= 40
    assert set(TELLING) <= BY_NAME.keys()
    for point in POINTS:
        crashing.find(point.module, point.attribute)
        module, _, attribute = point.amid.partition(":")
        if attribute:
            crashing.find(module, attribute)


def test_a_point_that_is_gone_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = BY_NAME["hold: asked for"]._replace(attribute="Till.hold_on")
    monkeypatch.setattr(crashing, "BY_NAME", {gone.name: gone})
    with pytest.raises(LookupError, match=r"'hold: asked for' .*'Till\.hold_on'"):
        crashing.launch(gone.name, 1, ["serve"])
