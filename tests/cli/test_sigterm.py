"""SIGTERM with a hundred streams on their way: each ends well or is told why not, and all is paid."""

import asyncio
import json
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest
from click.testing import Result

from books import usd
from crash_site import Told, check_books
from droveway.storage import Store
from lab import run
from processes import until
from steered import WORDS, Steered, steered

Way = Literal["in time", "too short", "asked twice"]
KINDS: Final = {"early": 40, "midway": 50, "long": 10, "whole": 10}
REQUESTS: Final = sum(KINDS.values())
DRAIN_S: Final[dict[Way, int]] = {"in time": 25, "too short": 1, "asked twice": 600}
# What a caller has heard when its request is where it is meant to be.
UNDER_WAY: Final = {
    "early": (b": keep-alive", 1),
    "midway": (b'"word "', WORDS),
    "long": (b"abc", 1),
}
FUNDS: Final = "1000"
SLOWLY: Final = 32 * 1024
EVENT: Final = re.compile(rb"data: (\{\"error\":[^\n]*\})\n\n")
LINE: Final = "draining: {} requests on their way, at most {} s; signal again to cut them\n"
SETTINGS: Final = """
[server]
port = 0
drain_s = {drain_s}
workers = {workers}
[streams]
keepalive_s = 0.2
[billing]
enabled = true
[storage]
url = "sqlite:droveway.db"
[providers.box]
base_url = "{url}"
concurrency = 500
"""
USED: Final = """
SELECT -sum(amount_nano) FROM entry JOIN transfer ON transfer.id = transfer_id
JOIN account ON account.id = account_id
WHERE transfer.kind = 'usage' AND account.kind = 'customer'
"""
PRICE: Final = '[prices."box/{model}"]\ninput = "1"\noutput = "2"\n'


@dataclass(slots=True)
class Call:
    """Somebody who asks on a connection of their own.

    Attributes:
        kind: What the vendor does with it.
        heard: What came.
        under_way: That it is where it is meant to be.
        may_read: That who reads slowly goes on reading.
    """

    kind: str
    may_read: asyncio.Event
    heard: bytes = b""
    under_way: asyncio.Event = field(default_factory=asyncio.Event)

    async def make(self, port: int, key: str) -> None:
        """Ask, and hear the answer to the end of the connection."""
        with socket.socket() as made:
            if self.kind == "long":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=made, limit=SLOWLY)
            stream = self.kind != "whole"
            asked = {"model": self.kind, "messages": [{"role": "user", "content": "hi"}]}
            body = json.dumps({**asked, "stream": stream}).encode()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
                b"content-length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
            )
            try:
                while data := await reader.read(SLOWLY):
                    self.heard += data
                    self._note()
                    if self.kind == "long" and self.under_way.is_set():
                        await self.may_read.wait()
            finally:
                writer.close()

    def _note(self) -> None:
        mark, many = UNDER_WAY.get(self.kind, (b"", 0))
        if not self.under_way.is_set() and self.heard.count(mark) >= many:
            self.under_way.set()

    def ended_well(self) -> None:
        """Check that it has its finish and its [DONE], or its whole answer."""
        assert self.heard.startswith(b"HTTP/1.1 200"), self.heard[:200]
        if self.kind != "whole":
            assert b'"finish_reason": "stop"' in self.heard, self.heard[-300:]
            assert b"data: [DONE]\n\n\r\n0\r\n\r\n" in self.heard[-40:], self.heard[-300:]

    def was_told_why(self) -> None:
        """Check that it has its error, as an event or as a status, and nothing like an end."""
        assert b"[DONE]" not in self.heard
        if self.kind == "whole":
            assert self.heard.startswith(b"HTTP/1.1 503"), self.heard[:200]
            assert b'"code":"unavailable"' in self.heard
            return
        (told,) = EVENT.findall(self.heard)
        error = json.loads(told)["error"]
        assert (error["code"], error["retryable"]) == ("unavailable", True)
        assert f"x-droveway-request-id: {error['request_id']}\r\n".encode() in self.heard
        assert self.heard.endswith(b"\r\n0\r\n\r\n"), self.heard[-300:]


@dataclass(slots=True)
class Place:
    """A server that runs, with its vendor and its callers."""

    process: asyncio.subprocess.Process
    port: int
    key: str
    vendor: Steered
    may_read: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[Call] = field(default_factory=list)
    said: bytes = b""

    async def under_way(self, making: asyncio.TaskGroup) -> None:
        """Have everybody ask, and wait until each request is where it is meant to be."""
        for kind, many in KINDS.items():
            for _ in range(many):
                call = Call(kind, self.may_read)
                self.calls.append(call)
                making.create_task(call.make(self.port, self.key))
        for call in self.calls:
            if call.kind != "whole":
                await call.under_way.wait()
        waiting = KINDS.keys() - {"long"}
        await until(
            lambda: all(self.vendor.held[kind] == KINDS[kind] for kind in waiting),
            "the vendor has all of them",
        )
        assert self.vendor.came == REQUESTS

    async def status(self) -> int | None:
        """Ask on a new connection whether it is ready; None where that is refused."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return None
        try:
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = await reader.read()
            return int(answer[9:12]) if answer else None
        except ConnectionError:
            return None
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def tells_of_drain(self) -> None:
        """Read stderr up to the line that says what is waited for."""
        assert self.process.stderr is not None
        while b"draining" not in self.said:
            line = await self.process.stderr.readline()
            assert line, self.said
            self.said += line

    async def refuses(self) -> bool:
        return await self.status() is None

    async def says_so(self) -> bool:
        """Whether it said that it goes; nobody who is not in a process that was told hears it."""
        return await self.status() in {503, None}


def make_account(droveway: Callable[..., Result]) -> str:
    """An account with money, and its key."""

    def call(*words: str) -> str:
        done = droveway(*words)
        assert done.exit_code == 0, done.output
        return done.stdout.strip()

    call("accounts", "add", "acme")
    call("accounts", "topup", "acme", FUNDS, "--currency", "USD", "--reference", "first")
    return call("keys", "add", "acme", "--account", "acme")


@asynccontextmanager
async def serving(vendor: Steered, key: str, *, drain_s: int, workers: int) -> AsyncIterator[Place]:
    """A server in the working directory."""
    settings = SETTINGS.format(drain_s=drain_s, workers=workers, url=vendor.url)
    prices = "".join(PRICE.format(model=model) for model in KINDS)
    Path("droveway.toml").write_text(settings + prices, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "droveway", "serve"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(Path.cwd())},
    )
    try:
        assert process.stdout is not None
        said = (await process.stdout.readline()).decode()
        assert said.startswith("listening on "), (await process.communicate())[1]
        yield Place(process, int(said.rsplit(":", 1)[1]), key, vendor)
    finally:
        if process.returncode is None:
            process.kill()  # workers end when their parent has
            await process.communicate()


async def go_down(place: Place, way: Way, number: signal.Signals) -> None:
    """Tell the server to go, as somebody does who stops it in one of the ways."""
    place.process.send_signal(number)
    await place.tells_of_drain()
    await until(place.says_so, "it says that it goes")
    if way == "in time":
        place.may_read.set()
        await until(place.refuses, "nothing new is taken")
        place.vendor.may_end.set()
        return
    if way == "asked twice":
        place.process.send_signal(number)
    others = [call for call in place.calls if call.kind != "long"]
    await until(lambda: all(b"unavailable" in call.heard for call in others), "all are told")
    assert await place.refuses()
    place.may_read.set()


async def check_round(key: str, *, way: Way, workers: int, number: signal.Signals) -> Told:
    """Have a server stopped, and check what its callers and its operator were told."""
    drain_s = DRAIN_S[way]
    told = Told(top_ups={"first": usd(FUNDS)})
    async with steered(pieces=120) as vendor:
        async with serving(vendor, key, drain_s=drain_s, workers=workers) as place:
            async with asyncio.TaskGroup() as making:
                await place.under_way(making)
                await go_down(place, way, number)
            complaint = (place.said + (await place.process.communicate())[1]).decode()
        for call in place.calls:
            (call.ended_well if way == "in time" else call.was_told_why)()
            told.read(call.heard)
    assert place.process.returncode == (130 if number == signal.SIGINT else 0), complaint
    assert "Traceback" not in complaint
    assert complaint.count(LINE.format(REQUESTS, drain_s)) == complaint.count("draining") == 1
    assert complaint.endswith("stopped\n")
    return told


def check_ledger(told: Told, way: Way) -> None:
    """Check what was written down: each request once, and paid as far as it came."""
    with Store("sqlite:droveway.db", create=False) as store:
        rows = store.read("SELECT asked, outcome, client_gone, cost_nano, code FROM request")
        assert len(rows) == REQUESTS == len(told.bills) + len(told.free)
        assert store.read("SELECT id FROM hold WHERE state = 'held'") == []
        ((used,),) = store.read(USED)
        assert used == sum(row[3] or 0 for row in rows) > 0
        check_books(store, told)
    outcome = ("completed", None) if way == "in time" else ("failed", "unavailable")
    assert Counter((row[1], row[4]) for row in rows) == {outcome: REQUESTS}
    assert not any(row[2] for row in rows), "nobody hung up"
    for asked, _, _, cost, _ in rows:
        brought = way == "in time" or asked in {"midway", "long"}
        assert bool(cost) == brought, (asked, cost)


def check_way(
    droveway: Callable[..., Result], way: Way, *, workers: int = 1, number: signal.Signals
) -> None:
    key = make_account(droveway)
    told = run(check_round(key, way=way, workers=workers, number=number), within_s=90)
    check_ledger(told, way)
    verified = droveway("ledger", "verify")
    assert verified.exit_code == 0, verified.output


def test_all_streams_end_well_where_the_drain_is_long_enough(
    droveway: Callable[..., Result],
) -> None:
    check_way(droveway, "in time", number=signal.SIGTERM)


def test_what_cannot_end_in_time_is_told_why_and_pays_for_what_came(
    droveway: Callable[..., Result],
) -> None:
    check_way(droveway, "too short", number=signal.SIGTERM)


@pytest.mark.long
@pytest.mark.parametrize("turn", range(20))
def test_a_hundred_streams_again_and_again(droveway: Callable[..., Result], turn: int) -> None:
    """Ours: each way, with one process and with two, by SIGTERM and by Ctrl-C."""
    ways: tuple[Way, ...] = ("in time", "too short", "asked twice")
    number = signal.SIGINT if turn // 6 % 2 else signal.SIGTERM
    check_way(droveway, ways[turn % 3], workers=1 + turn // 3 % 2, number=number)
