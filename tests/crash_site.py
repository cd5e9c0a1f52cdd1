"""This file knows a place where processes that take money die, what was told, and what must be true.

A store of its own, its settings, two vendors; clients who ask until their server is no more, and
write down what it acknowledged; and `check_books`, which asks the books about it.
"""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from click.testing import CliRunner

import crashing
from books import usd
from droveway.cli.main import commands
from droveway.ledger import Book, faults
from droveway.money import Money
from droveway.sandbox import Profile, Sandbox
from droveway.storage import Store

LAUNCHER: Final = Path(crashing.__file__)
CLIENTS: Final = 8
# A client gives up after so many requests: the point must have been reached long before.
REQUESTS_MAX: Final = 150
# So many holds are open when a server dies that the next one must resolve.
STALLED: Final = 5
# So many answers say that the load is on its way.
WARM: Final = 12
PACE: Final = Profile(
    first_token_s=0.003, token_s=0.0005, tokens_per_chunk=3, answer_tokens=24, reasoning_tokens=0
)
# A stream without a cap is held for 4,096 tokens first.
LONG: Final = Profile(
    first_token_s=0.003,
    token_s=0.00001,
    tokens_per_chunk=400,
    answer_tokens=6_000,
    answer_sigma=0.1,
    reasoning_tokens=0,
)
SETTINGS: Final = """
[server]
drain_s = 5
[billing]
enabled = true
[storage]
url = "sqlite:{store}"
[providers.box]
base_url = "{box}"
[providers.long]
base_url = "{long}"
"""
PRICE: Final = '[prices."{model}"]\ninput = "1"\noutput = "{output}"\n'
PRICES: Final = {
    "box/m": 100,
    "box/fault-400": 100,
    "box/fault-cut-event:3": 100,
    "box/fault-stall:2": 100,
    "long/novel": 10,
}
# The third one is soon at its end.
PAID_IN: Final = {"acme": "1000", "umbra": "500", "poor": "0.05"}
TOP_UP: Final = "0.07"
# What clients ask for, and how often.
KINDS: Final = {
    "whole": 4,
    "open-ended": 1,
    "stream": 4,
    "uncapped": 1,
    "outgrowing": 2,
    "too-large": 1,
    "hang-up": 2,
    "refused": 2,
    "broken": 1,
    "named": 2,
}
FIELDS: Final[dict[str, dict[str, Any]]] = {
    "whole": {"max_tokens": 40},
    "open-ended": {},
    "stream": {"max_tokens": 40, "stream": True},
    "uncapped": {"stream": True},
    "outgrowing": {"model": "long/novel", "stream": True},
    "too-large": {"max_tokens": 100_000_000},
    "hang-up": {"max_tokens": 40, "stream": True},
    "refused": {"model": "fault-400", "max_tokens": 40},
    "broken": {"model": "fault-cut-event:3", "max_tokens": 40, "stream": True},
    "named": {"max_tokens": 40},
    "stalled": {"model": "fault-stall:2", "max_tokens": 40, "stream": True},
}
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
_COST: Final = re.compile(rb"(?i)\r\nx-droveway-cost: *([\d.]+)\r\n")
_NAME: Final = re.compile(rb"(?i)\r\nx-droveway-request-id: *(\S+)\r\n")
_AGAIN: Final = re.compile(rb"(?i)\r\nx-droveway-replayed: *true\r\n")
_BILL: Final = re.compile(rb": droveway (\{[^\n]*\})\n\n")


# What was acknowledged, and what must be true of the books.


@dataclass(slots=True)
class Told:
    """What processes that are no more have acknowledged.

    Attributes:
        bills: What each answer that came whole said it cost, by its id.
        free: Requests that were told an error and no cost.
        top_ups: What was said to be booked, by its reference.
    """

    bills: dict[str, Money] = field(default_factory=dict)
    free: set[str] = field(default_factory=set)
    top_ups: dict[str, Money] = field(default_factory=dict)

    def read(self, answer: bytes) -> str:
        """Write down what an answer acknowledges, if it is whole; return how it ended."""
        head, _, body = answer.partition(b"\r\n\r\n")
        head += b"\r\n"
        length, name, cost = _LENGTH.search(head), _NAME.search(head), _COST.search(head)
        if length is not None and len(body) >= int(length[1]):
            assert name is not None, head
            if _AGAIN.search(head) is not None:
                assert cost is not None, head
                return self._again(name[1].decode(), usd(cost[1].decode()))
            return self._whole(head[9:12].decode(), name[1].decode(), cost)
        found = _BILL.search(body)
        if found is None:
            return "cut"
        bill = json.loads(found[1])
        self._owe(bill["request_id"], bill["cost"])
        return "streamed" if b"data: [DONE]\n\n" in body[found.end() :] else "broken off"

    def _whole(self, status: str, name: str, cost: re.Match[bytes] | None) -> str:
        assert status in {"200", "400", "402", "403", "502", "503"}, (status, name)
        assert (status == "200") == (cost is not None), (status, name)
        self._owe(name, None if cost is None else cost[1].decode())
        return "whole" if status == "200" else f"refused with {status}"

    def _again(self, name: str, cost: Money) -> str:
        assert self.bills.setdefault(name, cost) == cost, "told again, it is told the same"
        return "again"

    def _owe(self, name: str, cost: str | None) -> None:
        assert name not in self.bills, "no two answers have one name"
        if cost is None:
            self.free.add(name)
        else:
            self.bills[name] = usd(cost)


_SUMS: Final = """
SELECT account.kind, transfer.kind, reference, account_id, sum(amount_nano) FROM entry
JOIN transfer ON transfer.id = transfer_id JOIN account ON account.id = account_id
GROUP BY transfer.id, account_id
"""


def check_books(store: Store, told: Told, *, tried: Collection[str] = ()) -> None:
    """Check that what was acknowledged is there once, and that no money was made or lost.

    The sums are made here, of what stands in the tables; no rule of `ledger verify` is used.

    Args:
        store: Whose books.
        told: What was acknowledged.
        tried: Top-ups that were cut off, and may be there or not.
    """
    assert faults(store) == []
    sums = store.read(_SUMS)
    usage = [(name, -nano) for who, kind, name, _, nano in sums if (who, kind) == _USED]
    booked = [(name, nano) for who, kind, name, _, nano in sums if (who, kind) == _CAME_IN]
    charged, came_in = dict(usage), dict(booked)
    assert len(charged) == len(usage), "no request is charged twice"
    assert len(came_in) == len(booked), "no top-up is booked twice"
    rows = store.read("SELECT id, cost_nano FROM request")
    costs = dict(rows)
    assert len(costs) == len(rows), "a request is written down once"
    holds = dict(store.read("SELECT id, charged_nano FROM hold"))
    for name, bill in told.bills.items():
        found = (costs.get(name), holds.get(name), charged.get(name, 0))
        assert found == (bill.nano, bill.nano, bill.nano), (name, bill, found)
    assert not told.free & charged.keys(), "who was told no cost pays none"
    assert charged == {name: nano for name, nano in holds.items() if nano}
    assert charged.keys() <= costs.keys(), "whatever is charged is written down"
    for reference, amount in told.top_ups.items():
        assert came_in.get(reference) == amount.nano, reference
    assert came_in.keys() <= told.top_ups.keys() | set(tried)
    for account in Book(store).list():
        entered = sum(nano for *_, whose, nano in sums if whose == account.id)
        assert account.available.nano + account.held.nano == entered, "balances are their entries"
        assert account.held.nano >= 0
        assert account.available.nano >= 0
    assert sum(nano for *_, nano in sums) == 0, "money only moves; all of it is in one currency"


_USED: Final = ("customer", "usage")
_CAME_IN: Final = ("customer", "topup")


# The place.


@dataclass(slots=True)
class Server:
    """A server in a process of its own; its port is 0 where it died before it listened."""

    process: asyncio.subprocess.Process
    port: int

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal; `Process.send_signal` would take the exit code of a dead one away."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


@dataclass(slots=True)
class Site:
    """A store whose servers die, one after the other.

    Attributes:
        folder: Where everything lies.
        vendors: Who is asked.
        keys: A key of each account.
        chance: Decides what is asked.
        told: What was acknowledged.
        tried: The references of all top-ups that were tried.
        named: Bodies that were sent with a name of the caller's own, and what came of them.
        ends: How requests ended.
        kills: How many processes have died here.
    """

    folder: Path
    vendors: Sequence[Sandbox]
    keys: dict[str, str]
    chance: random.Random
    told: Told = field(default_factory=Told)
    tried: set[str] = field(default_factory=set)
    named: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    kills: int = 0

    @property
    def settings(self) -> Path:
        return self.folder / "droveway.toml"

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr.txt").read_text("utf-8")

    def read(self, sql: str, about: str) -> list[tuple[Any, ...]]:
        """Look into the store."""
        with Store(self.folder / "droveway.db") as store:
            return store.read(sql, (about,))

    def check(self) -> None:
        """Check everything, where nothing is on its way."""
        with Store(self.folder / "droveway.db") as store:
            ((holds, held),) = store.read("SELECT count(*), sum(state = 'held') FROM hold")
            assert not held, "what the dead held is given back before anything is served"
            check_books(store, self.told, tried=self.tried)
        asked = sum(seen.method == "POST" for box in self.vendors for seen in box.journal)
        assert asked <= holds, "nothing is sent that is not held for"

    async def started(self, *words: str, trap: Sequence[str] = ()) -> asyncio.subprocess.Process:
        """Start a command; with a trap, one that will die."""
        begin = [str(LAUNCHER), *trap, "--"] if trap else ["-m", "droveway"]
        with (self.folder / "stderr.txt").open("ab") as stderr:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, *begin, *words, "--config", str(self.settings)),
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={"PATH": "/usr/bin:/bin", "TMPDIR": str(self.folder)},
            )

    @asynccontextmanager
    async def serving(self, *, trap: Sequence[str] = ()) -> AsyncIterator[Server]:
        """A server, until the block ends."""
        process = await self.started("serve", "--port", "0", trap=trap)
        assert process.stdout is not None
        server = Server(process, 0)
        try:
            said = (await process.stdout.readline()).decode()
            assert said or trap, self.stderr
            server.port = int(said.rsplit(":", 1)[1]) if said else 0
            yield server
        finally:
            server.tell(signal.SIGKILL)
            await process.communicate()

    async def command(self, *words: str, trap: Sequence[str] = ()) -> str:
        """Run a command to its end, or to its death; return what it printed."""
        process = await self.started(*words, trap=trap)
        out, _ = await process.communicate()
        expected = -signal.SIGKILL if trap else 0
        assert process.returncode == expected, (trap, words, out, self.stderr[-2_000:])
        return out.decode()

    async def top_up(self, reference: str, *, trap: Sequence[str] = ()) -> None:
        """Pay in, and write it down where that is acknowledged."""
        self.tried.add(reference)
        words = ("poor", TOP_UP, "--currency", "USD", "--reference", reference)
        said = await self.command("accounts", "topup", *words, trap=trap)
        if said.endswith("\n"):
            self.told.top_ups[reference] = usd(TOP_UP)


def make_template(folder: Path) -> None:
    """Make a store with accounts, their money and keys, to be copied: that is faster."""
    settings = folder / "droveway.toml"
    settings.write_text(f'[storage]\nurl = "sqlite:{folder / "droveway.db"}"\n', "utf-8")

    def call(*words: str) -> str:
        done = CliRunner().invoke(commands, [*words, "--config", str(settings)])
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    keys = {}
    for name, amount in PAID_IN.items():
        call("accounts", "add", name)
        call("accounts", "topup", name, amount, "--currency", "USD", "--reference", f"for {name}")
        keys[name] = call("keys", "add", name, "--account", name)
    (folder / "keys.json").write_text(json.dumps(keys), "utf-8")


@asynccontextmanager
async def site(template: Path, folder: Path, *, seed: int) -> AsyncIterator[Site]:
    """A place, made of a template."""
    shutil.copytree(template, folder)
    keys: dict[str, str] = json.loads((folder / "keys.json").read_text("utf-8"))
    async with AsyncExitStack() as stack:
        box = await stack.enter_async_context(Sandbox(profile=PACE, seed=seed))
        long = await stack.enter_async_context(Sandbox(profile=LONG, seed=seed))
        made = Site(folder, (box, long), keys, random.Random(seed))
        made.told.top_ups.update((f"for {name}", usd(paid)) for name, paid in PAID_IN.items())
        lines = SETTINGS.format(store=folder / "droveway.db", box=box.base_url, long=long.base_url)
        prices = (PRICE.format(model=model, output=price) for model, price in PRICES.items())
        made.settings.write_text(lines + "".join(prices), "utf-8")
        yield made


# What the clients do.


@dataclass(slots=True)
class Load:
    """Clients that ask until it is over, or they have asked often enough.

    Attributes:
        site: Whose keys they have.
        port: Whom they ask.
        over: That it is enough, or that the server is no more.
        warm: That the first answers came.
        all_stalled: That so many streams have begun that never end.
    """

    site: Site
    port: int
    over: asyncio.Event = field(default_factory=asyncio.Event)
    warm: asyncio.Event = field(default_factory=asyncio.Event)
    all_stalled: asyncio.Event = field(default_factory=asyncio.Event)
    answers: int = 0
    stalled: int = 0

    async def run(self) -> None:
        """Have them all ask."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._ask_on())

    async def stall(self) -> None:
        """Have some streams begin that never end, until it is over."""
        async with asyncio.TaskGroup() as group:
            for _ in range(STALLED):
                group.create_task(self.ask("stalled", self.site.keys["acme"]))

    async def _ask_on(self) -> None:
        for _ in range(REQUESTS_MAX):
            kind = self.site.chance.choices(list(KINDS), list(KINDS.values()))[0]
            ended = await self.ask(kind, self.site.keys[self.site.chance.choice(list(PAID_IN))])
            self.site.ends[ended] += 1
            self.answers += 1
            if self.answers >= WARM:
                self.warm.set()
            if ended == "cut":
                # The end of a process is known a moment after that of its sockets.
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.over.wait(), 1)
            if self.over.is_set():
                return

    async def ask(self, kind: str, key: str) -> str:
        """Ask once; return how it ended."""
        said = f"{kind} {self.site.chance.random()}"
        message = {"role": "user", "content": said}
        body = json.dumps({"model": "m", "messages": [message], **FIELDS[kind]}).encode()
        if kind != "named":
            return await self._send(key, body, kind=kind)
        self.site.named[said] = body, "cut"
        ended = await self.ask_again(said)
        self.site.named[said] = body, ended
        return ended

    async def ask_again(self, word: str) -> str:
        """Ask what was asked before, by its name."""
        body, _ = self.site.named[word]
        return await self._send(self.site.keys["acme"], body, kind="named", word=word)

    async def _send(self, key: str, body: bytes, *, kind: str, word: str = "") -> str:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionError:
            return "cut"
        named = b"idempotency-key: %b\r\n" % word.encode() if word else b""
        try:
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                b"authorization: Bearer %b\r\n%bcontent-length: %d\r\n\r\n%b"
                % (key.encode(), named, len(body), body)
            )
            patience = self.site.chance.randrange(1_500) if kind == "hang-up" else None
            answer = await self._answer(reader, patience, stalls=kind == "stalled")
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        return "hung up" if answer is None else self.site.told.read(answer)

    async def _answer(
        self, reader: asyncio.StreamReader, patience: int | None, *, stalls: bool
    ) -> bytes | None:
        """Read to the end, or to the death; None where so many bytes were enough."""
        answer = b""
        with suppress(ConnectionError):
            while data := await reader.read(512):
                answer += data
                if patience is not None and len(answer) >= patience:
                    return None
                if stalls and b"data: " in answer:
                    self.stalled += 1
                    if self.stalled == STALLED:
                        self.all_stalled.set()
                    await self.over.wait()
        return answer
