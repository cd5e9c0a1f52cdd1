"""This file knows the soak: streams held open for long while the vendor misbehaves.

Run it by `make soak MINUTES=60`. A real `droveway serve` that takes money has so many callers at
once; of a quarter of their requests the vendor makes something bad, and some callers hang up or
read slowly. What the gateway holds (memory, descriptors, tasks) is sampled a hundred times, and so
is what its callers wait for; trends have bounds (`soak_verdict.py`). Then every stream must have
had one visible end, the gateway must be as empty as it was, and the books must be right. Exits 1
where one of it is not so. Ctrl-C and SIGTERM end it early, with the tables of what there is.
"""

import argparse
import asyncio
import resource
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from soak_answer import VISIBLE
from soak_callers import GOOD, WEIGHTS, Crowd, Tally
from soak_stand import TOTAL_S, Gateway, books, standing, stop, verified
from soak_tables import Check, Soaked, show
from soak_verdict import QUANTITIES, Judged, judge
from soak_windows import Watch, Window, descriptors, series

WINDOWS: Final = 100
WINDOW_S_MIN: Final = 0.5
GRACE_S: Final = 30.0  # for a busy machine, beyond the time in which the gateway must end a stream
RAMP_S: Final = 5.0
# Idle connections to vendors are kept for the next requests: as many as the pool keeps at most.
IDLE_POOL: Final = 200
GOOD_MIN: Final = 0.995


class Rest(msgspec.Struct, frozen=True):
    """What a gateway has that does nothing."""

    tasks: float
    in_flight: float
    descriptors: int


class Soak:
    """One run.

    Args:
        gateway: What is soaked.
        told: The command's arguments.
    """

    def __init__(self, gateway: Gateway, told: argparse.Namespace) -> None:
        self._gateway = gateway
        self._told = told
        self._tally = Tally()
        self._watch = Watch(gateway.url, gateway.process.pid, self._tally)
        self._crowd = Crowd(
            gateway.url, gateway.key, self._tally, patience_s=TOTAL_S + GRACE_S, seed=told.seed
        )
        self._stopped = asyncio.Event()
        self._lost = 0

    async def run(self) -> Soaked:
        """Soak, and look at what is left."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stopped.set)
        whole_s = 60 * self._told.minutes
        first = await self._crowd.once()
        before = await self._at_rest(None)
        self._watch = Watch(self._gateway.url, self._gateway.process.pid, self._tally)
        began = time.monotonic()
        ramp_s = min(RAMP_S, whole_s / 20)
        calling = asyncio.create_task(self._crowd.call(self._told.streams, over_s=ramp_s))
        await self._sample(whole_s)
        minutes = (time.monotonic() - began) / 60
        self._crowd.stop()
        _say("the last streams are ending")
        await calling
        checks = [Check("the first request", first, first == "finished"), *self._streams()]
        checks += await self._rest(before)
        return Soaked(
            minutes=minutes,
            streams=self._told.streams,
            rows=self._judged(),
            checks=checks,
            ends=self._ends(),
            odd=self._tally.odd[:20],
            windows=self._watch.windows,
        )

    async def _sample(self, whole_s: float) -> None:
        """Sample until the time is over, somebody has enough, or the gateway is gone."""
        every_s, began = max(WINDOW_S_MIN, whole_s / WINDOWS), time.monotonic()
        while (passed_s := time.monotonic() - began) < whole_s - every_s / 2:
            due = began + every_s * (len(self._watch.windows) + 1)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    await self._stopped.wait()
            if self._stopped.is_set():
                return
            try:
                window = await self._watch.sample()
            except (FileNotFoundError, ProcessLookupError):
                break
            self._lost += window.tasks is None
            _show(passed_s, whole_s, window)

    def _judged(self) -> list[Judged]:
        windows, rows = self._watch.windows, []
        for quantity in QUANTITIES:
            points = series(windows, quantity.name)
            judged = judge(quantity, points, wanted=self._told.streams)
            if judged is not None:
                rows.append(judged)
        return rows

    def _ends(self) -> dict[str, dict[str, int]]:
        told: dict[str, dict[str, int]] = {kind: {} for kind in WEIGHTS}
        for (kind, end), count in self._tally.ends.items():
            told[kind][end] = count
        return told

    def _streams(self) -> list[Check]:
        """What callers have seen."""
        ends, tally = self._ends(), self._tally
        odd = sum(count for (_, end), count in tally.ends.items() if end not in VISIBLE)
        good = sum(ends[GOOD].values())
        share = ends[GOOD].get("finished", 0) / good if good else 0.0
        return [
            Check(
                "streams without exactly one visible end", f"{odd:,} of {tally.asked:,}", not odd
            ),
            Check("good answers that were finished", f"{share:.3%}", share >= GOOD_MIN),
            Check("windows in which /metrics was silent", f"{self._lost}", not self._lost),
        ]

    async def _rest(self, before: Rest) -> list[Check]:
        """What is left in the gateway and in its store, and how it ends."""
        gateway, tally = self._gateway, self._tally
        after = await self._at_rest(before)
        clean = await asyncio.to_thread(verified, gateway)
        log = await asyncio.to_thread(stop, gateway)
        found = await asyncio.to_thread(books, gateway)
        bad = sum(mark in line for line in log.splitlines() for mark in ("Traceback", " ERROR "))
        lost = len(tally.ids - found.ids)
        unknown = len(found.ids - tally.ids)
        sums = f"{found.ledger_nano:,} and {found.journal_nano:,}"
        return [
            Check("tasks at rest, before and after", f"{before.tasks:g}, {after.tasks:g}",
                  after.tasks <= before.tasks),
            Check("requests in flight at rest", f"{after.in_flight:g}", not after.in_flight),
            Check("descriptors at rest, before and after",
                  f"{before.descriptors}, {after.descriptors}",
                  after.descriptors <= before.descriptors + IDLE_POOL),
            Check("holds that are open", f"{found.open_holds}", not found.open_holds),
            Check("ledger verify, beside the server", "clean" if clean else "NOT clean", clean),
            Check("ledger verify, after its end", f"{found.faults} faults", not found.faults),
            Check("paid in ledger and journal, nano", sums,
                  found.ledger_nano == found.journal_nano),
            Check("losses, nano", f"{found.loss_nano:,}", not found.loss_nano),
            Check("told requests that the journal lacks", f"{lost}", not lost),
            # The first one was for nobody's tally; the others' callers left before the head.
            Check("further rows, and callers gone before the head",
                  f"{unknown - 1}, {tally.headless}", unknown - 1 <= tally.headless),
            Check("errors in its log", f"{bad}", not bad),
        ]  # fmt: skip

    async def _at_rest(self, before: Rest | None) -> Rest:
        """Wait until the gateway has nothing to do, but not for ever."""
        until = time.monotonic() + GRACE_S
        while True:
            tasks, in_flight = await self._watch.gauges()
            try:
                open_ = descriptors(self._gateway.process.pid)
            except FileNotFoundError:
                open_ = 0
            lost = float("inf")
            now = Rest(
                lost if tasks is None else tasks, lost if in_flight is None else in_flight, open_
            )
            settled = now.in_flight == 0 and (
                before is None
                or (now.tasks <= before.tasks and now.descriptors <= before.descriptors + IDLE_POOL)
            )
            if settled or time.monotonic() > until:
                return now
            await asyncio.sleep(0.2)


def _show(passed_s: float, whole_s: float, window: Window) -> None:
    line = (
        f"{passed_s / 60:.1f} of {whole_s / 60:g} min: {window.open} open, {window.asked:,} ended, "
        f"{window.rss_mb:.0f} MB, {window.tasks} tasks, {window.descriptors} descriptors, "
        f"{window.cpu:.0f} % CPU"
    )
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


async def soak(told: argparse.Namespace) -> Soaked:
    """Start everything, soak it, stop everything."""
    with (
        tempfile.TemporaryDirectory() as folder,
        standing(Path(folder), pace_s=told.pace, tokens=told.tokens) as gateway,
    ):
        return await Soak(gateway, told).run()


def main() -> None:
    """Soak, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--pace", type=float, default=0.2, help="seconds between two events")
    parser.add_argument("--tokens", type=int, default=55, help="events of an answer, by median")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    told = parser.parse_args()
    # Also while everything is being started: whatever unwinds here ends the children.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soaked = uvloop.run(soak(told))
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    show(soaked)
    if told.json is not None:
        told.json.write_bytes(msgspec.json.format(msgspec.json.encode(soaked)) + b"\n")
    sys.exit(0 if soaked.ok else 1)


if __name__ == "__main__":
    main()
