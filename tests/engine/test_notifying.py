"""Notices: signed, told until they are taken, by one process at a time, given up in the end."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pytest

from droveway.clock import Clock, StillClock, SystemClock, settle_loop
from droveway.engine.notifying import (
    AT_ONCE_MAX,
    DELAYS_S,
    LEASE_S,
    LOOK_EVERY_S,
    PATIENCE_S,
    SPREAD,
    Notifier,
)
from droveway.engine.receiver import SAID_MAX, TRY_S, sign, signing_key
from droveway.errors import SettingsError, StoreUnavailableError
from droveway.settings import Secret
from droveway.storage import Connection, Store
from droveway.storage.moments import micros
from droveway.transport import Pool
from lab import run

T = TypeVar("T")
KEY: Final = bytes(range(32))
SECRET: Final = "whsec_" + base64.b64encode(KEY).decode()
BODY: Final = '{"type": "balance.low",  "data": {"name": "Ångström"}}'
EXAMPLE: Final = Path(__file__).parents[2] / "examples/take_notices.py"


class Heard(msgspec.Struct):
    """A request as somebody's server saw it."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class TheirServer:
    """Answers with the given statuses in turn, and with 204 when they are used up.

    Attributes:
        heard: What it was told, in order.
        may_answer: Holds its answers back while it is clear.
        gone: How many connections were closed by the other side.
        at_once: How many were told it at the same time, at most.
    """

    def __init__(self, *statuses: int, text: bytes = b"") -> None:
        self.statuses = list(statuses)
        self.text = text
        self.headers = b""
        self.heard: list[Heard] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.gone = asyncio.Event()
        self.at_once = 0
        self.port = 0
        self._now = 0
        self._news = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/?who=us"

    async def has_heard(self, times: int) -> None:
        while len(self.heard) < times:
            self._news.clear()
            await self._news.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *lines = head.decode().split("\r\n")[:-2]
                pairs = (each.partition(": ") for each in lines)
                headers = {name.lower(): value for name, _, value in pairs}
                body = await reader.readexactly(int(headers["content-length"]))
                self._now += 1
                self.at_once = max(self.at_once, self._now)
                self.heard.append(Heard(line, headers, body))
                self._news.set()
                await self.may_answer.wait()
                self._now -= 1
                writer.write(self._answer())
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.transport.abort()

    def _answer(self) -> bytes:
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 204:
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        return b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (
            status, self.headers, len(self.text), self.text,
        )  # fmt: skip


@asynccontextmanager
async def listening(theirs: TheirServer) -> AsyncIterator[TheirServer]:
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(theirs.serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", theirs.port)
    theirs.port = server.sockets[0].getsockname()[1]
    try:
        yield theirs
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def notifying(
    store: Store, url: str, *, clock: Clock, secret: str = SECRET
) -> AsyncIterator[Notifier]:
    pool = Pool(clock=clock)
    try:
        yield Notifier(store, url=url, secret=Secret(secret), pool=pool, clock=clock)
    finally:
        await pool.aclose()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "a.db") as made:
        yield made


async def note(store: Store, clock: Clock, notice_id: str = "ntc_0123456789abcdef") -> str:
    """Write a notice down, as whoever made it so does it."""
    now = micros(clock.now())
    row = (notice_id, "balance.low", "acct_1", BODY, now, now)
    sql = (
        "INSERT INTO notice (id, kind, about, body, made_at_us, due_at_us)"
        " VALUES (?, ?, ?, ?, ?, ?)"
    )
    await store.write(lambda db: db.run(sql, row))
    return notice_id


def kept(store: Store, name: str) -> Any:
    ((value,),) = store.read(f"SELECT {name} FROM notice")
    return value


def wait_s(store: Store, clock: Clock) -> float:
    return float(kept(store, "due_at_us") - micros(clock.now())) / 1e6


def assert_is_signed(heard: Heard, key: bytes, clock: Clock) -> None:
    """Verify by hand, as the standard says."""
    at = heard.headers["webhook-timestamp"]
    assert int(at) == int(clock.now().timestamp())
    signed = b".".join([heard.id.encode(), at.encode(), heard.body])
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    assert heard.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


# What is signed, and with what.


def test_the_published_example_is_signed_as_published() -> None:
    """spec: `test_sign_function` of the standard's Python library, as in its other libraries."""
    signature = sign(
        b'{"test": 2432232314}',
        key=signing_key(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
        notice_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        at_s=1614265330,
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        (SECRET, KEY),
        (SECRET.rstrip("="), KEY),
        ("plain-words", b"plain-words"),
        ("AAAA", b"AAAA"),
    ],
)
def test_a_secret_stands_for_bytes(secret: str, key: bytes) -> None:
    assert signing_key(Secret(secret)) == key


@pytest.mark.parametrize("secret", ["whsec_", "whsec_*no-base64*", "whsec_wxyz1"])
def test_a_secret_that_is_no_base64_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(SettingsError, match="goes on in base64") as refused:
        signing_key(Secret(secret))
    shown = repr(refused.value) + repr(refused.value.__cause__)
    assert (secret.removeprefix("whsec_") or "no more than the prefix") not in shown


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/hook", "over http"),
        ("http://192.0.2.1:8080/", "over http"),
        ("ftp://example.com/", "https:// or http://"),
        ("https://us:word@example.com/", "no user or password"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/?key=a b", "percent-encoded"),
        ("https://example.com/?key=å", "percent-encoded"),
        ("https://example.com/?key=a#b", "fragment"),
        ("https://example.com/#b", "fragment"),
        ("", "https:// or http://"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_at_the_start(
    store: Store, url: str, why: str
) -> None:
    clock = StillClock()
    with pytest.raises(SettingsError, match=why) as refused:
        Notifier(store, url=url, secret=Secret(SECRET), pool=Pool(clock=clock), clock=clock)
    assert "key=" not in str(refused.value)
    assert "word" not in str(refused.value).replace("password", "")


@pytest.mark.parametrize(
    "url", ["https://example.com", "http://localhost:1/", "http://[::1]:1/a?b", "http://127.0.0.9/"]
)
def test_https_and_this_machine_are_taken(store: Store, url: str) -> None:
    clock = StillClock()
    Notifier(store, url=url, secret=Secret(SECRET), pool=Pool(clock=clock), clock=clock)


# Sent, and sent again.


def test_a_notice_is_sent_at_once_signed_and_only_once(store: Store) -> None:
    async def check() -> None:
        clock = StillClock()
        async with listening(TheirServer()) as theirs:
            async with notifying(store, theirs.url, clock=clock) as notifier:
                assert await notifier.send_due() == 0
                notice_id = await note(store, clock)
                assert await notifier.send_due() == 1
                await clock.advance(2 * PATIENCE_S)
                assert await notifier.send_due() == 0
        (heard,) = theirs.heard
        assert heard.line == "POST /hook/?who=us HTTP/1.1"
        assert heard.body == BODY.encode()
        assert heard.id == notice_id
        assert heard.headers["content-type"] == "application/json"
        assert (kept(store, "tries"), kept(store, "said")) == (1, "204")
        assert kept(store, "sent_at_us") == micros(StillClock().now())
        assert kept(store, "given_up_at_us") is None

    run(check())


@pytest.mark.parametrize(("secret", "key"), [(SECRET, KEY), ("plain-words", b"plain-words")])
def test_a_refused_notice_comes_again_with_its_id_and_a_new_signature(
    store: Store, secret: str, key: bytes
) -> None:
    async def check() -> None:
        clock = StillClock()
        text = b"out of\r\norder \x1b[31m" + b"\xc3\xa5" * 400
        async with listening(TheirServer(500, 302, text=text)) as theirs:
            theirs.headers = f"Location: {theirs.url}/elsewhere\r\n".encode()
            async with notifying(store, theirs.url, clock=clock, secret=secret) as notifier:
                await note(store, clock)
                for status, delay_s in ((500, 5), (302, 30)):
                    assert await notifier.send_due() == 0
                    assert_is_signed(theirs.heard[-1], key, clock)
                    said = f"{status} out of order [31m{'å' * 400}"
                    assert kept(store, "said") == said[: SAID_MAX + len("500 ")]
                    assert delay_s <= wait_s(store, clock) <= delay_s * (1 + SPREAD)
                    await clock.advance(delay_s - 0.001)
                    assert await notifier.send_due() == 0
                    await clock.advance(delay_s * SPREAD + 0.002)
                assert await notifier.send_due() == 1
        assert_is_signed(theirs.heard[-1], key, clock)
        assert [each.line for each in theirs.heard] == ["POST /hook/?who=us HTTP/1.1"] * 3
        assert len({each.id for each in theirs.heard}) == 1
        assert len({each.headers["webhook-timestamp"] for each in theirs.heard}) == 3
        assert (kept(store, "tries"), kept(store, "said")) == (3, "204")

    run(check())


def test_a_server_that_is_down_is_tried_for_three_days_and_then_given_up(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        clock = StillClock()
        async with listening(TheirServer()) as theirs:
            pass
        waits = []
        async with notifying(store, theirs.url, clock=clock) as notifier:
            notice_id = await note(store, clock)
            while kept(store, "given_up_at_us") is None:
                assert await notifier.send_due() == 0
                waits.append(wait_s(store, clock))
                await clock.advance(max(0.0, waits[-1]) + 0.001)
            told = list(caplog.records)
            assert await notifier.send_due() == 0
            assert theirs.heard == []
        ladder = [*DELAYS_S, *[DELAYS_S[-1]] * len(waits)]
        assert all(
            least <= wait <= least * (1 + SPREAD)
            for least, wait in zip(ladder, waits[:-1], strict=False)
        )
        assert len(set(waits[DELAYS_S.index(21_600) : -1])) > 1, "they are spread"
        assert clock.monotonic() - LEASE_S - 1 <= PATIENCE_S + 21_600 * (1 + SPREAD)
        assert kept(store, "given_up_at_us") - kept(store, "made_at_us") >= PATIENCE_S * 1_000_000
        assert kept(store, "sent_at_us") is None
        reason = f"cannot connect to 127.0.0.1:{theirs.port} (connection refused)"
        assert kept(store, "said") == reason
        assert told == caplog.records
        assert [each.levelno for each in told] == [logging.WARNING, logging.ERROR]
        for word in (notice_id, "acct_1", f"{len(waits)} tries", f"127.0.0.1:{theirs.port}"):
            assert word in told[1].getMessage()

    run(check())


def test_what_nobody_could_send_for_a_week_is_not_given_up_at_the_first_failure(
    store: Store,
) -> None:
    async def check() -> None:
        clock = StillClock()
        async with listening(TheirServer(500)) as theirs:
            async with notifying(store, theirs.url, clock=clock) as notifier:
                await note(store, clock)
                await clock.advance(7 * 86_400)
                assert await notifier.send_due() == 0
                await clock.advance(DELAYS_S[0] * (1 + SPREAD))
                assert await notifier.send_due() == 1

    run(check())


def test_a_server_that_is_gone_for_good_is_told_nothing_more(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        clock = StillClock()
        async with listening(TheirServer(410, text=b"go away")) as theirs:
            async with notifying(store, theirs.url, clock=clock) as notifier:
                await note(store, clock)
                assert await notifier.send_due() == 0
                await clock.advance(PATIENCE_S)
                assert await notifier.send_due() == 0
        assert len(theirs.heard) == 1
        assert kept(store, "given_up_at_us") == micros(StillClock().now())
        assert kept(store, "said") == "410 go away"
        (told,) = caplog.records
        assert told.levelno == logging.ERROR
        assert "410" in told.getMessage()
        assert "go away" not in told.getMessage()

    run(check())


def test_a_silent_server_has_ten_seconds(store: Store) -> None:
    async def check() -> None:
        clock = StillClock()
        async with listening(TheirServer()) as theirs:
            theirs.may_answer.clear()
            async with notifying(store, theirs.url, clock=clock) as notifier:
                await note(store, clock)
                sending = asyncio.create_task(notifier.send_due())
                await theirs.has_heard(1)
                await clock.advance(TRY_S - 0.001)
                assert not sending.done()
                await clock.advance(0.001)
                assert await sending == 0
                theirs.may_answer.set()
                await theirs.gone.wait()
                assert kept(store, "said") == "timeout: no answer within 10 s"
                await clock.advance(wait_s(store, clock))
                assert await notifier.send_due() == 1

    run(check())


@pytest.mark.parametrize(("status", "taken"), [(200, 1), (500, 0)])
def test_a_status_counts_though_its_body_never_ends(store: Store, status: int, taken: int) -> None:
    async def check() -> None:
        clock = StillClock()
        answered = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 9\r\n\r\npart" % status)
            answered.set()
            await reader.read()
            writer.transport.abort()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with notifying(store, url, clock=clock) as notifier:
                await note(store, clock)
                sending = asyncio.create_task(notifier.send_due())
                await answered.wait()
                await clock.advance(TRY_S)
                assert await sending == taken
        assert kept(store, "said") == ("200" if taken else "500 part")
        assert (kept(store, "sent_at_us") is not None) == bool(taken)

    run(check())


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 ", b"I am no HTTP\x07\r\n\r\n"])
def test_what_is_no_answer_is_no_yes(store: Store, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def check() -> None:
        clock = StillClock()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with notifying(store, url, clock=clock) as notifier:
                await note(store, clock)
                assert await notifier.send_due() == 0
        assert kept(store, "said").isprintable()
        assert 0 < len(kept(store, "said")) <= SAID_MAX
        assert wait_s(store, clock) >= DELAYS_S[0]

    run(check())


# By one at a time, and at least once.


class DeafStore(Store):
    """The store of a process that dies: after so many writes it hears nothing more."""

    writes_left = 1_000
    asked: asyncio.Event

    async def write(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        if not self.writes_left:
            self.asked.set()
            await asyncio.Event().wait()
        self.writes_left -= 1
        return await super().write(work, durable=durable)


def test_what_was_taken_and_not_written_down_comes_again_with_the_same_id(tmp_path: Path) -> None:
    async def check() -> None:
        clock = StillClock()
        with DeafStore(tmp_path / "a.db") as dying, Store(tmp_path / "a.db") as other:
            await note(dying, clock)
            async with listening(TheirServer()) as theirs:
                async with notifying(dying, theirs.url, clock=clock) as first:
                    dying.writes_left, dying.asked = 1, asyncio.Event()
                    sending = asyncio.create_task(first.send_due())
                    await dying.asked.wait()
                    assert len(theirs.heard) == 1
                    sending.cancel()
                    await asyncio.wait([sending])
                async with notifying(other, theirs.url, clock=clock) as second:
                    await clock.advance(LEASE_S - 0.001)
                    assert await second.send_due() == 0
                    await clock.advance(0.001)
                    assert await second.send_due() == 1
            assert [each.id for each in theirs.heard] == ["ntc_0123456789abcdef"] * 2
            assert kept(other, "tries") == 2

    run(check())


def test_whoever_is_cancelled_while_sending_leaves_the_notice_to_others(store: Store) -> None:
    async def check() -> None:
        clock = StillClock()
        async with listening(TheirServer()) as theirs:
            theirs.may_answer.clear()
            async with notifying(store, theirs.url, clock=clock) as notifier:
                await note(store, clock)
                following = asyncio.create_task(notifier.follow())
                await theirs.has_heard(1)
                following.cancel()
                await asyncio.wait([following])
                theirs.may_answer.set()
                await theirs.gone.wait()
                assert clock.next_at is None
                await clock.advance(LEASE_S)
                assert await notifier.send_due() == 1
        assert len({each.id for each in theirs.heard}) == 1

    run(check())


def test_two_processes_send_each_notice_once(tmp_path: Path) -> None:
    async def check() -> None:
        clock = StillClock()
        many = {f"ntc_{number:016x}" for number in range(3 * AT_ONCE_MAX + 1)}
        with Store(tmp_path / "a.db") as one, Store(tmp_path / "a.db") as other:
            for notice_id in sorted(many):
                await note(one, clock, notice_id)
            async with listening(TheirServer()) as theirs:
                async with (
                    notifying(one, theirs.url, clock=clock) as first,
                    notifying(other, theirs.url, clock=clock) as second,
                ):
                    taken = await asyncio.gather(first.send_due(), second.send_due())
            assert sum(taken) == len(many)
            assert sorted(each.id for each in theirs.heard) == sorted(many)
            assert other.read("SELECT DISTINCT tries FROM notice") == [(1,)]

    run(check())


def test_a_slow_receiver_gets_eight_at_once_and_no_more(store: Store) -> None:
    async def check() -> None:
        clock = StillClock()
        for number in range(AT_ONCE_MAX + 3):
            await note(store, clock, f"ntc_{number:016x}")
        async with listening(TheirServer()) as theirs:
            theirs.may_answer.clear()
            async with notifying(store, theirs.url, clock=clock) as notifier:
                sending = asyncio.create_task(notifier.send_due())
                await theirs.has_heard(AT_ONCE_MAX)
                await settle_loop()
                theirs.may_answer.set()
                assert await sending == AT_ONCE_MAX + 3
        assert theirs.at_once == AT_ONCE_MAX

    run(check())


class SlowStore(Store):
    """A store whose writes take nearly as long as a notice is held."""

    clock: StillClock | None = None

    async def write(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        done = await super().write(work, durable=durable)
        if self.clock is not None:
            await self.clock.advance(LEASE_S - TRY_S + 1)
        return done


def test_nothing_is_sent_when_the_claim_could_end_amid_the_try(tmp_path: Path) -> None:
    async def check() -> None:
        clock = StillClock()
        with SlowStore(tmp_path / "a.db") as store:
            await note(store, clock)
            async with listening(TheirServer()) as theirs:
                async with notifying(store, theirs.url, clock=clock) as notifier:
                    store.clock = clock
                    assert await notifier.send_due() == 0
                    assert theirs.heard == []
                    store.clock = None
                    await clock.advance(LEASE_S)
                    assert await notifier.send_due() == 1

    run(check())


# For ever.


class FailingStore(Store):
    """A store that cannot be read for a while, or not be written once."""

    unreadable = False
    writes_left = 1_000

    async def write(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        self.writes_left -= 1
        if not self.writes_left:
            raise StoreUnavailableError("the disk is full")
        return await super().write(work, durable=durable)

    def read(self, *asked: Any) -> list[tuple[Any, ...]]:
        if self.unreadable:
            raise StoreUnavailableError("the disk is full")
        return super().read(*asked)


def test_following_waits_for_the_store_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        clock = StillClock()
        with FailingStore(tmp_path / "a.db") as store:
            async with listening(TheirServer()) as theirs:
                async with notifying(store, theirs.url, clock=clock) as notifier:
                    following = asyncio.create_task(notifier.follow())
                    await clock.advance(LOOK_EVERY_S)
                    store.unreadable = True
                    await note(store, clock)
                    await clock.advance(5 * LOOK_EVERY_S)
                    assert len(caplog.records) == 1
                    store.unreadable = False
                    await clock.advance(LOOK_EVERY_S)
                    await theirs.has_heard(1)
                    while kept(store, "sent_at_us") is None:
                        await asyncio.sleep(0.01)
                    await settle_loop()
                    store.unreadable = True
                    await clock.advance(5 * LOOK_EVERY_S)
                    following.cancel()
                    await asyncio.wait([following])
        assert [each.getMessage() for each in caplog.records] == [
            "notices wait for the store: the disk is full"
        ] * 2

    run(check())


def test_a_trouble_of_the_store_with_one_notice_costs_the_others_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        clock = StillClock()
        with FailingStore(tmp_path / "a.db") as store:
            for number in range(3):
                await note(store, clock, f"ntc_{number:016x}")
            async with listening(TheirServer()) as theirs:
                async with notifying(store, theirs.url, clock=clock) as notifier:
                    store.writes_left = 4  # three claims, and then the first that was sent
                    with pytest.raises(StoreUnavailableError):
                        await notifier.send_due()
                    sent = "SELECT count(*) FROM notice WHERE sent_at_us IS NOT NULL"
                    assert store.read(sent) == [(2,)]
                    await clock.advance(LEASE_S - 1)
                    assert await notifier.send_due() == 0
                    await clock.advance(1)
                    assert await notifier.send_due() == 1
            ids = [each.id for each in theirs.heard]
            assert (len(ids), len(set(ids))) == (4, 3)

    run(check())


@pytest.mark.parametrize("secret", [SECRET, "plain-words-nobody-should-see"])
def test_the_secret_is_in_no_log_line_and_in_no_row(
    store: Store, caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    async def check() -> None:
        clock = StillClock()
        async with listening(TheirServer(500, 410)) as theirs:
            async with notifying(store, theirs.url, clock=clock, secret=secret) as notifier:
                await note(store, clock)
                await notifier.send_due()
                await clock.advance(DELAYS_S[0] * (1 + SPREAD))
                await notifier.send_due()
                seen = f"{caplog.text} {notifier!r} {vars(notifier)!r} {theirs.heard!r}"
        seen += str(store.read("SELECT * FROM notice"))
        assert [each.name for each in caplog.records].count("droveway") == 2
        assert secret.removeprefix("whsec_") not in seen
        assert repr(signing_key(Secret(secret))) not in seen

    with caplog.at_level(logging.DEBUG):
        run(check())


# What the how-to page shows.


def test_the_receiver_of_the_docs_takes_what_is_genuine_once(store: Store) -> None:
    async def check() -> None:
        clock = StillClock(SystemClock().now())
        body = {"data": {"name": "acme", "available": "4.20", "currency": "USD"}}
        theirs = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLE),
            env={"PATH": os.environ["PATH"], "LOW_BALANCE_SECRET": SECRET, "PORT": "0"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert theirs.stdout is not None
        try:
            url = (await theirs.stdout.readline()).decode().split()[-1]
            await note(store, clock)
            await store.write(lambda db: db.run("UPDATE notice SET body = ?", (json.dumps(body),)))
            wrong = "whsec_" + base64.b64encode(b"another").decode()
            async with notifying(store, url, clock=clock, secret=wrong) as stranger:
                assert await stranger.send_due() == 0
            assert kept(store, "said").startswith("403")
            await clock.advance(DELAYS_S[0] * (1 + SPREAD))
            async with notifying(store, url, clock=clock) as notifier:
                assert await notifier.send_due() == 1
                await store.write(lambda db: db.run("UPDATE notice SET sent_at_us = NULL"))
                await clock.advance(LEASE_S)
                assert await notifier.send_due() == 1
            late = StillClock(clock.now() + timedelta(hours=1))
            await store.write(lambda db: db.run("UPDATE notice SET sent_at_us = NULL"))
            async with notifying(store, url, clock=late) as notifier:
                assert await notifier.send_due() == 0
        finally:
            theirs.terminate()
        assert await theirs.stdout.read() == b"acme has 4.20 USD left\n"
        await theirs.wait()

    run(check())
