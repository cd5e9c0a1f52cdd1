"""This file knows a world of processes that take money on one file, and die at any statement.

Theory of operation
-------------------
One seed is one world. It has no threads and no time of its own: a scheduler with seeded chance
lets one process do one thing after the other. What a process writes goes through the real writer,
in groups; how it starts and finds the dead is the real `Epoch`. Its connection counts statements,
and after so many of them the process is no more: before a statement of a transaction, between a
commit and its acknowledgement, between two transactions of a request, or while it starts or ends.

Whoever wants something done asks until they are told, by the same reference or the same claim.
The scheduler alone knows what was committed, and tells the model so; everything else is compared.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, cast

from books import AT
from droveway.ledger import Epoch, faults
from droveway.storage.moments import moment
from droveway.storage.writer import Job
from ledger.deeds import Deed, came_of
from ledger.errands import Errand, Said, errand
from ledger.model import Model
from ledger.mortals import DeathError, Process, drive
from ledger.pictures import seen

STORE: Final = "a.db"
PROCESSES_MAX: Final = 3
STEPS: Final = (80, 160)
CALM_ROUNDS_MAX: Final = 60
# How often the scheduler does what.
ACTIONS: Final = {
    "ask": 12,
    "commit": 10,
    "errand": 5,
    "begin": 1,
    "end": 0.3,
    "kill": 0.3,
    "jump": 0.4,
}
JUMPS: Final = (timedelta(hours=-1), timedelta(hours=1), timedelta(days=1), timedelta(days=365))


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, folder: Path, model: Model) -> None:
        self.chance = random.Random(seed)
        self.path = folder / STORE
        self.model = model
        self.now = AT
        self.living: list[Process] = []
        self.errands: list[Errand] = []
        self.ended: set[str] = set()
        self.seen: Counter[str] = Counter()
        self.observer = Process(self.path)

    def run(self) -> None:
        for _ in range(self.chance.randint(*STEPS)):
            self.tick()
            action = self.chance.choices(list(ACTIONS), list(ACTIONS.values()))[0]
            getattr(self, action)()
        self.come_to_rest()

    def tick(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now

    # What the scheduler lets happen.

    def errand(self) -> None:
        self.errands.append(errand(self.chance, self.model, number=len(self.errands)))

    def ask(self) -> None:
        """Somebody who waits for nothing asks a process for the next thing."""
        idle = [each for each in self.errands if each.is_open]
        if idle and self.living:
            self._ask(self.chance.choice(idle), self.chance.choice(self.living))

    def commit(self) -> None:
        busy = [process for process in self.living if process.queue]
        if busy:
            self._commit(self.chance.choice(busy))

    def begin(self, *, immortal: bool = False) -> None:
        """Start a process; it ends the holds of the dead, or dies of it."""
        if len(self.living) == PROCESSES_MAX:
            return
        chance = None if immortal else self.chance
        process = Process(self.path, chance=chance, on_write=self.note_ended_epochs)
        with self._mortal(process, "while it starts"):
            process.epoch = drive(Epoch.begin(process.as_store(), at=self.now))
            self.living.append(process)
        self.check()

    def end(self) -> None:
        """End a process in order, between two requests."""
        for process in self.living:
            if not any(each.process is process for each in self.errands):
                self._end(process)
                return

    def kill(self) -> None:
        if self.living:
            with self._mortal(self.chance.choice(self.living), "between two transactions"):
                raise DeathError

    def jump(self) -> None:
        """The clock is set: back, or far ahead."""
        self.seen["the clock is set"] += 1
        self.now += self.chance.choice(JUMPS)

    def _ask(self, asking: Errand, process: Process) -> None:
        with self._mortal(process, "while it reads"):
            self._note(asking, asking.ask(process, at=self.now))

    def _commit(self, process: Process) -> None:
        group, process.queue = process.queue, []
        wanted = [cast("Deed", asking.deed) for asking in group]
        jobs = [Job(deed.real) for deed in wanted]
        committed = process.driver.commits + 1
        try:
            with self._mortal(process, "in a transaction", committed=committed):
                process.commit(jobs)
        finally:
            came = self._compare(wanted, jobs) if process.driver.commits == committed else []
        if process in self.living:
            for asking, result in zip(group, came, strict=True):
                self._note(asking, asking.hear(result, at=self.tick()))

    def _compare(self, wanted: Sequence[Deed], jobs: Sequence[Job]) -> list[object]:
        foretold = [deed.foretold(self.model) for deed in wanted]
        came = [came_of(job.result, job.error) for job in jobs]
        assert came == foretold
        return came

    def _note(self, asking: Errand, said: Said | None) -> None:
        """Put what is to be done next into the queue, or note what was said."""
        if said is None:
            asking.process.queue.append(asking)
        else:
            self.seen[said.what] += 1

    def _end(self, process: Process) -> None:
        epoch, process.epoch = process.epoch, None
        assert epoch is not None
        with self._mortal(process, "while it ends"):
            drive(epoch.end(at=self.now))
            self._bury(process)

    # Death.

    @contextmanager
    def _mortal(self, process: Process, when: str, *, committed: int = -1) -> Iterator[None]:
        try:
            yield
        except DeathError:
            after = process.driver.commits == committed
            self.seen["death after a commit" if after else f"death {when}"] += 1
            self._bury(process)

    def _bury(self, process: Process) -> None:
        """Do what the kernel does: no commit, no lock; whoever asked hears nothing more."""
        process.driver.close()
        if process.epoch is not None:
            os.close(process.epoch._lock)
        if process in self.living:
            self.living.remove(process)
        for each in self.errands:
            if each.process is process:
                each.lose()

    def note_ended_epochs(self) -> None:
        """Tell the model of epochs that were ended; only the dead's are, or one's own."""
        rows = self.observer.read(
            "SELECT id, ended_at_us FROM epoch WHERE ended_at_us IS NOT NULL ORDER BY ended_at_us"
        )
        alive = {each.epoch.id for each in self.living if each.epoch is not None}
        for epoch_id, ended_at_us in rows:
            if epoch_id in self.ended:
                continue
            assert epoch_id not in alive, "the holds of a living process are its own"
            self.model.end_epoch(epoch_id, at=moment(ended_at_us))
            self.ended.add(epoch_id)

    # What must be true.

    def check(self) -> None:
        assert faults(self.observer.as_store()) == []
        assert not self.differs()

    def differs(self) -> bool:
        return seen(self.observer.as_store(), self.now) != self.model.seen(self.now)

    def come_to_rest(self) -> None:
        """Let everybody be told, by a process that lives; then let it end, too."""
        while self.living:
            self.kill()
        self.begin(immortal=True)
        (process,) = self.living
        for _ in range(CALM_ROUNDS_MAX):
            self.tick()
            for asking in self.errands:
                if asking.is_open:
                    self._ask(asking, process)
            self._commit(process)
        assert all(each.told for each in self.errands), "who asks again and again is told"
        self._end(process)
        self.check()
        self.nobody_lost_anything()

    def nobody_lost_anything(self) -> None:
        """What everybody was told is there once, by the store's own words; nothing is held."""
        read = self.observer.read
        assert read("SELECT 1 FROM hold WHERE state = 'held' UNION SELECT 1 FROM epoch "
                    "WHERE ended_at_us IS NULL") == []  # fmt: skip
        for each in self.errands:
            each.found(each, read)
        rest = read("SELECT currency, sum(posted_nano + promo_nano) FROM account GROUP BY currency")
        assert [nano for _, nano in rest] == [0] * len(rest), "money only moves"
        for resolved in read("SELECT charged_nano FROM hold WHERE state = 'resolved'"):
            self.seen["resolved, charged" if resolved[0] else "resolved, free"] += 1
