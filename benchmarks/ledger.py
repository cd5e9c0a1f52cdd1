"""This file knows what the ledger does in a second: holds taken and captured, each committed.

Run it by `make bench-ledger`. Every pair is two transactions, a hold that is committed and its
capture that is committed, in one process, beside checkpoints and with one commit in a tenth of a
second that waits for the disk, as a server with billing has it. Latencies are of the hold alone,
queueing included, and of an open loop: a pair begins when it is due, late or not.
"""

import asyncio
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import uvloop

from droveway.chat import Usage
from droveway.cli import tables
from droveway.cli.percentile import percentile
from droveway.cli.serving import USAGE_SYNCED_S
from droveway.clock import SystemClock
from droveway.engine.billing import billing_of
from droveway.engine.records import Row
from droveway.engine.settling import Bill, Bound
from droveway.engine.till import Tills
from droveway.ledger import Book, Epoch, faults
from droveway.ledger.holds import capture, take
from droveway.money import Money
from droveway.settings import BillingSettings
from droveway.storage import Store

ACCOUNTS: Final = 1_000
PAIRS_A_SECOND: Final = 2_500
SUSTAINED_S: Final = float(os.environ.get("BENCH_LEDGER_SECONDS", "60"))
CLOSED_S: Final = min(SUSTAINED_S, 5.0)
AT_ONCE: Final = (1, 17, 100)
COST: Final = Money(1_000, "USD")
HELD: Final = Money(3_000, "USD")
AT: Final = datetime(2026, 11, 23, tzinfo=UTC)
# One pair, of so many accounts' one; returns how long its hold took.
Pair = Callable[[int], Awaitable[float]]


class Bench:
    """A store with accounts in it, and the two ways to a pair."""

    def __init__(self, store: Store, epoch: Epoch, accounts: list[str]) -> None:
        self._store = store
        self._epoch = epoch
        self._accounts = accounts
        self._clock = SystemClock()
        terms = billing_of(BillingSettings(enabled=True))
        self._tills = Tills(store, epoch, billing=terms, clock=self._clock)

    async def by_ledger(self, number: int) -> float:
        """Take and capture through the ledger alone."""
        name, account = f"req_{number:015}", self._account()
        began = time.perf_counter()
        held = partial(
            take, hold_id=name, amount=HELD, account_id=account, epoch_id=self._epoch.id, at=AT
        )
        await self._store.write(held)
        took = time.perf_counter() - began
        await self._store.write(partial(capture, hold_id=name, cost=COST, at=AT))
        return took

    async def by_till(self, number: int) -> float:
        """Hold and settle as a request does: with budgets looked for and a row of the journal."""
        name, till = f"req_{number:015}", self._tills.of(self._account(), key_id="key_1")
        bound = Bound(
            input_tokens=100, input_cost=COST, estimated_cost=COST, output_pico=100,
            output_cap=20_000, output_max=100_000,
        )  # fmt: skip
        began = time.perf_counter()
        hold = await till.hold(bound, request_id=name)
        took = time.perf_counter() - began
        usage = Usage(input=90, output=10)
        row = Row(id=name, at=AT, asked="model", outcome="completed", usage=usage, cost=COST,
                  key_id="key_1")  # fmt: skip
        await till.settle(hold, Bill(cost=COST, usage=usage), row=row)
        return took

    def _account(self) -> str:
        return random.choice(self._accounts)


async def closed(pair: Pair, at_once: int, first: int) -> tuple[int, list[float]]:
    """Have so many workers do pair after pair."""
    took: list[float] = []
    until, number = time.perf_counter() + CLOSED_S, first

    async def worker() -> None:
        nonlocal number
        while time.perf_counter() < until:
            number += 1
            took.append(await pair(number))

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return number, took


async def sustained(pair: Pair, first: int) -> tuple[int, list[float], float]:
    """Begin so many pairs a second, each when it is due; returns how long all of it took, too."""
    took: list[float] = []
    began, number, tasks = time.perf_counter(), first, set[asyncio.Task[None]]()

    async def one(due: float, which: int) -> None:
        late = max(0.0, time.perf_counter() - due)
        took.append(late + await pair(which))

    whole = int(SUSTAINED_S * PAIRS_A_SECOND)
    while number - first < whole:
        due_now = min(whole, int((time.perf_counter() - began) * PAIRS_A_SECOND) + 1)
        while number - first < due_now:
            due = began + (number - first) / PAIRS_A_SECOND
            task = asyncio.create_task(one(due, number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        if sys.stderr.isatty():
            print(f"\r{number - first:,} of {whole:,} pairs", end="", file=sys.stderr)
        await asyncio.sleep(1 / PAIRS_A_SECOND)
    await asyncio.gather(*tasks)
    return number, took, time.perf_counter() - began


async def main() -> None:
    """Measure, and print the table."""
    shown = tables.table("pairs of hold and settlement", "at once", "pairs/s", "hold ms p50",
                         "p99", "p99.9")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "bench.db", sync_every_s=USAGE_SYNCED_S)
        epoch = await Epoch.begin(store, at=AT)
        book = Book(store)
        accounts = [(await book.open(f"account {n}")).id for n in range(ACCOUNTS)]
        for account in accounts:
            await book.top_up(account, Money.parse("1000", "USD"), reference=account)
        bench, number = Bench(store, epoch, accounts), 0
        for name, pair in (("ledger alone", bench.by_ledger), ("with the journal", bench.by_till)):
            for at_once in AT_ONCE:
                before = number
                number, took = await closed(pair, at_once, number + 1)
                pairs = number - before
                shown.add_row(name, f"{at_once}", f"{pairs / CLOSED_S:,.0f}", *_spread(took))
            before = number
            number, took, wall_s = await sustained(pair, number + 1)
            shown.add_row(f"{name}, due at {PAIRS_A_SECOND:,}/s for {SUSTAINED_S:g} s", "",
                          f"{(number - before) / wall_s:,.0f}", *_spread(took))  # fmt: skip
        wrong = faults(store)
        await epoch.end(at=AT)
        await store.aclose()
    tables.show(shown)
    print(f"{number:,} pairs, {len(wrong)} faults found by verify")


def _spread(took_s: list[float]) -> tuple[str, str, str]:
    told = sorted(took_s)
    last = told[math.ceil(len(told) * 0.999) - 1]
    figures = (percentile(told, 50) or 0.0, percentile(told, 99) or 0.0, last)
    p50, p99, p999 = (f"{1e3 * each:.2f}" for each in figures)
    return p50, p99, p999


if __name__ == "__main__":
    uvloop.run(main())
