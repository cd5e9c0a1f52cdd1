"""A server that takes money is killed at random moments: no charge is lost, none is there twice."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from books import usd
from droveway.accounts import KeyRing
from droveway.ledger import Account, Book, faults
from droveway.money import Money
from droveway.sandbox import Profile, Sandbox
from droveway.storage import Store
from lab import run
from processes import command, until

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at /proc")

KILLS: Final = int(os.environ.get("LEDGER_CRASH_KILLS", "200"))
STORE: Final = Path("droveway.db")
CLIENTS: Final = 20
# The kill comes after so many bytes of answers at the latest: some five answers for each client.
BYTES_MAX: Final = 150_000
# A client gives up after so many requests: the kill must have come long before.
REQUESTS_MAX: Final = 400
# The command asks what `faults` asks, which is asked each time; as a process it takes its time.
VERIFY_EVERY: Final = 3
TOP_UP: Final = "3"
PACE: Final = Profile(
    first_token_s=0.004, token_s=0.0005, tokens_per_chunk=2, answer_tokens=24, reasoning_tokens=0
)
SETTINGS: Final = """
[server]
workers = {workers}
drain_s = 5
[billing]
enabled = true
[providers.box]
base_url = "{url}"
[prices."box/m"]
input = "1"
output = "100"
"""
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
_COST: Final = re.compile(rb"(?i)\r\nx-droveway-cost: *([\d.]+)\r\n")
_NAME: Final = re.compile(rb"(?i)\r\nx-droveway-request-id: *(\S+)\r\n")
_BILL: Final = re.compile(rb": droveway (\{[^\n]*\})\n\n")

# What the clients ask for, and how often: `hang-up` goes away amid its stream.
KINDS: Final = {"whole": 4, "stream": 4, "open-ended": 2, "too-large": 2, "hang-up": 3}
FIELDS: Final[dict[str, dict[str, Any]]] = {
    "whole": {"max_tokens": 40},
    "stream": {"max_tokens": 40, "stream": True},
    "open-ended": {"stream": True},
    "too-large": {"max_tokens": 10_000_000},
    "hang-up": {"max_tokens": 40, "stream": True},
}


# What the test starts.


@dataclass(slots=True)
class Server:
    """A server that is paid, as its killer sees it."""

    process: asyncio.subprocess.Process
    port: int

    def workers(self) -> set[int]:
        """The processes that the parent has now."""
        pid = self.process.pid
        with suppress(FileNotFoundError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
            return {int(each) for each in children.split()}
        return set()

    def kill(self, whom: str, chance: random.Random) -> set[int]:
        """Send SIGKILL to the parent, to one worker, or to all; return who is no more."""
        workers = sorted(self.workers())
        victims = {
            "parent": [self.process.pid],
            "worker": [chance.choice(workers)] if workers else [],
            "all": [self.process.pid, *workers],
        }[whom]
        assert victims, "there is somebody to kill"
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        return set(victims)


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """A server in the working directory; whatever fails, none of its processes is left."""
    with Path("stderr.txt").open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "droveway", "serve", "--port", "0"),
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(Path.cwd())},
        )
    left: set[int] = set()
    try:
        assert process.stdout is not None
        said = (await process.stdout.readline()).decode()
        assert said.startswith("listening on "), Path("stderr.txt").read_text("utf-8")
        server = Server(process, int(said.rsplit(":", 1)[1]))
        left = server.workers()
        yield server
        left |= server.workers()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.communicate()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def stopped(server: Server) -> None:
    """End it in order; nothing is on its way, so the second signal hurries it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not by `send_signal`, which may take the exit code of a dead child from whoever waits.
        if server.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(server.process.pid, number)
    await server.process.wait()
    # Where both wait for it at once, the kernel hands it the second one first.
    assert server.process.returncode in {0, 128 + signal.SIGINT}


def gone(pid: int) -> bool:
    """Whether a process is no more, or nothing of it but its exit code."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


# What the clients do.


@dataclass(slots=True)
class Load:
    """Clients that ask until their server was killed, and what they were told.

    Attributes:
        chance: Decides what is asked, and when the kill comes.
        key: Whose money it is.
        bills: What every answer that came whole said it cost, by its id.
        ends: How requests ended.
        kill_at: The kill comes with this byte of answers; None for a load that nobody disturbs.
    """

    chance: random.Random
    key: str
    bills: dict[str, Money] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    kill_at: int | None = None
    came: int = 0
    now: asyncio.Event = field(default_factory=asyncio.Event)

    async def disturb(self, server: Server, whom: str) -> set[int]:
        """Kill amid a load of all clients; return who was killed, when all clients have ended."""
        self.came, self.kill_at = 0, self.chance.randrange(1, BYTES_MAX)
        self.now.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._ask_on(server.port, REQUESTS_MAX))
            await self.now.wait()
            # The byte that wakes us up is always somebody's; a few turns on, it is anybody's.
            for _ in range(self.chance.randrange(40)):
                await asyncio.sleep(0)
            victims = server.kill(whom, self.chance)
        return victims

    async def calm(self, server: Server) -> None:
        """Ask a few times each, with nobody killed: every answer must come."""
        self.kill_at = None
        self.now.clear()
        before = self.ends["cut"]
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._ask_on(server.port, 3))
        assert self.ends["cut"] == before

    async def _ask_on(self, port: int, requests: int) -> None:
        for _ in range(requests):
            kind = self.chance.choices(list(KINDS), list(KINDS.values()))[0]
            try:
                ended = await self._ask(port, kind)
            except ConnectionError:
                ended = "cut"
            self.ends[ended] += 1
            if self.now.is_set():
                return
        assert self.kill_at is None, "the kill never came"

    async def _ask(self, port: int, kind: str) -> str:
        """Ask once; return how it ended."""
        said = f"{kind} {self.chance.random()}"
        message = {"role": "user", "content": said}
        body = json.dumps({"model": "m", "messages": [message], **FIELDS[kind]}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
                % (self.key.encode(), len(body), body)
            )
            patience = self.chance.randrange(2_000) if kind == "hang-up" else None
            answer = await self._answer(reader, patience)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        return "hung up" if answer is None else self._told(answer)

    async def _answer(self, reader: asyncio.StreamReader, patience: int | None) -> bytes | None:
        """Read to the end, or to the kill's cut; None where so many bytes were enough."""
        answer = b""
        with suppress(ConnectionError):
            while patience is None or len(answer) < patience:
                data = await reader.read(512)
                if not data:
                    return answer
                answer += data
                self.came += len(data)
                if self.kill_at is not None and self.came >= self.kill_at:
                    self.now.set()
            return None
        return answer

    def _told(self, answer: bytes) -> str:
        """Write down what a whole answer said it cost; return how it ended."""
        head, _, body = answer.partition(b"\r\n\r\n")
        head += b"\r\n"
        status, length, name = head[9:12], _LENGTH.search(head), _NAME.search(head)
        if length is not None and len(body) < int(length[1]):
            return "cut"
        if status == b"402":
            assert b"insufficient_balance" in body
            return "refused"
        bill = _BILL.search(body)
        if length is not None:
            assert status == b"200", answer
            cost = _COST.search(head)
            assert cost is not None, head
            assert name is not None, head
            self._owe(name[1].decode(), cost[1].decode())
            return "whole"
        if bill is None or b"data: [DONE]\n\n" not in body[bill.end() :]:
            # A stream for which there was no more money is billed too, and says why it ended.
            return "outgrown" if bill is not None and b"insufficient_balance" in body else "cut"
        told = json.loads(bill[1])
        self._owe(told["request_id"], told["cost"])
        return "streamed"

    def _owe(self, request_id: str, cost: str) -> None:
        assert request_id not in self.bills, "no two answers have one name"
        self.bills[request_id] = usd(cost)


# What must be true of the books.


def sound(store: Store, load: Load, *, topped_up: Sequence[str], box: Sandbox) -> Account:
    """Check the books against what was paid in, what was told, and what the vendor saw.

    The sums are made here, of what stands in the tables; no rule of `ledger verify` is used.
    """
    assert faults(store) == []
    account = Book(store).show("acme")
    rows = store.read("SELECT id, cost_nano FROM request")
    costs = dict(rows)
    assert len(costs) == len(rows), "a request is written down once"
    holds = dict(store.read("SELECT id, charged_nano FROM hold"))
    charges = store.read(
        "SELECT reference, -amount_nano FROM entry JOIN transfer ON transfer.id = transfer_id "
        "WHERE kind = 'usage' AND account_id = ?",
        (account.id,),
    )
    charged = dict(charges)
    assert len(charged) == len(charges), "no request is charged twice"
    for request_id, bill in load.bills.items():
        found = (costs.get(request_id), holds.get(request_id), charged.get(request_id))
        assert found == (bill.nano, bill.nano, bill.nano), request_id
    assert charged == {name: nano for name, nano in costs.items() if nano}
    came_in = store.read(
        "SELECT reference, amount_nano FROM entry JOIN transfer ON transfer.id = transfer_id "
        "WHERE kind = 'topup' AND account_id = ?",
        (account.id,),
    )
    assert sorted(came_in) == sorted((name, usd(TOP_UP).nano) for name in topped_up)
    assert account.posted.nano == usd(TOP_UP).nano * len(topped_up) - sum(charged.values())
    assert account.held.nano >= 0
    assert account.available.nano >= 0
    asked = [seen for seen in box.journal if seen.method == "POST"]
    assert len(charged) <= len(asked) <= len(holds), "nothing is sent that is not held for"
    return account


def held() -> int:
    """How many holds are open."""
    with Store(STORE) as store:
        ((found,),) = store.read("SELECT count(*) FROM hold WHERE state = 'held'")
    return int(found)


@dataclass(slots=True)
class Crashes:
    """A store whose servers die, one after the other."""

    box: Sandbox
    load: Load
    topped_up: list[str] = field(default_factory=list)
    resolved: int = 0
    kills: int = 0

    async def top_up(self) -> None:
        """Pay in, while the server serves."""
        reference = f"wire-{len(self.topped_up)}"
        with Store(STORE) as store:
            await Book(store).top_up("acme", usd(TOP_UP), reference=reference)
        self.topped_up.append(reference)

    def check(self) -> Account:
        with Store(STORE) as store:
            ((self.resolved,),) = store.read("SELECT count(*) FROM hold WHERE state = 'resolved'")
            return sound(store, self.load, topped_up=self.topped_up, box=self.box)

    def check_the_wreck(self) -> None:
        """Check a copy of what the dead have left; the next server finds the log as it is."""
        for name in ("", "-wal"):
            shutil.copy(f"{STORE}{name}", f"wreck.db{name}")
        with Store(Path("wreck.db")) as store:
            sound(store, self.load, topped_up=self.topped_up, box=self.box)
        for left in Path().glob("wreck.db*"):
            left.unlink()

    async def one(self, whom: str) -> None:
        """Start a server, kill, and look."""
        async with serving() as server:
            assert held() == 0, "what the dead held was given back before anything is served"
            self.check()
            await self.top_up()
            if self.kills % VERIFY_EVERY == 0:
                await command("ledger", "verify")
            self.kills += 1
            before = server.workers()
            victims = await self.load.disturb(server, whom)
            if whom == "worker":
                await until(lambda: len(server.workers() - victims) == 2, "it is replaced")
                assert before - victims < server.workers(), "the other one goes on"
                await until(lambda: held() == 0, "nothing is held for a dead worker")
                self.check()
                await stopped(server)
            else:
                await server.process.wait()
                await until(lambda: all(map(gone, before)), "the workers end")
                if whom == "all":
                    self.check_the_wreck()


async def crash(whom: Sequence[str], *, seed: int) -> Crashes:
    """Kill once for each word, then serve in peace and check everything once more."""
    chance = random.Random(seed)
    async with Sandbox(profile=PACE, seed=seed) as box:
        workers = 1 if set(whom) == {"all"} else 2
        Path("droveway.toml").write_text(
            SETTINGS.format(workers=workers, url=box.base_url), encoding="utf-8"
        )
        with Store(STORE) as store:
            account = await Book(store).open("acme")
            _, secret = await KeyRing(store).add("acme", account=account.id)
        crashes = Crashes(box, Load(chance, secret))
        for each in whom:
            await crashes.one(each)
        async with serving() as server:
            await crashes.top_up()
            await crashes.load.calm(server)
            await until(lambda: held() == 0, "nothing is held any more")
            await command("ledger", "verify")
            await stopped(server)
        assert crashes.check().held.nano == 0
        return crashes


@pytest.mark.parametrize("kills", [5, pytest.param(KILLS * 3 // 5, marks=pytest.mark.long)])
def test_every_answer_that_came_was_charged_once_however_often_the_server_died(kills: int) -> None:
    crashes = run(crash(["all"] * kills, seed=1), within_s=30 + 10 * kills)
    assert crashes.load.ends.keys() >= {"whole", "streamed", "refused", "hung up", "cut"}
    assert crashes.resolved > 0, "some died with money in their hands"


@pytest.mark.parametrize("rounds", [1, pytest.param(KILLS * 2 // 15 + 1, marks=pytest.mark.long)])
def test_the_same_holds_when_a_worker_dies_or_their_parent_or_all(rounds: int) -> None:
    crashes = run(crash(["worker", "all", "parent"] * rounds, seed=2), within_s=30 + 30 * rounds)
    assert crashes.load.ends.keys() >= {"whole", "streamed", "refused", "hung up", "cut"}
    assert crashes.resolved > 0, "some died with money in their hands"
