"""The door over raw sockets: slow, broken and hostile callers, and good ones in odd order."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from door import SECRET, Door, FakeKey, door
from droveway.clock import StillClock, settle_loop
from droveway.gateway.connection import WRITE_BYTES_HIGH, Connection
from droveway.sandbox import Profile
from lab import run

WAIT_S = 5.0
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ENTRY = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n"
LONG = Profile(
    instant=True, answer_tokens=60_000, answer_sigma=0, reasoning_tokens=0, tokens_per_chunk=16
)


@dataclass(frozen=True)
class Said:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_last(self) -> bool:
        return self.headers.get("connection") == "close"

    @property
    def code(self) -> str:
        """The code of an error; anything that is no error of ours fails."""
        assert self.headers["content-type"] == "application/json"
        error = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return str(error["code"])

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["error"]["message"])


@dataclass(frozen=True)
class Caller:
    """Somebody who speaks to the door in bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def hears(self, *, head_only: bool = False) -> Said:
        """Read the next answer."""
        async with asyncio.timeout(WAIT_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = b""
            if "content-length" in headers and not head_only:
                body = await self.reader.readexactly(int(headers["content-length"]))
            while headers.get("transfer-encoding") == "chunked":
                size = int(await self.reader.readline(), 16)
                body += (await self.reader.readexactly(size + 2))[:-2]
                if size == 0:
                    break
        assert lines[0].startswith("HTTP/1.1 ")
        return Said(int(lines[0].split()[1]), headers, body)

    async def rest(self) -> bytes:
        """Read until the server says no more."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read()

    async def goes(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@asynccontextmanager
async def calling(it: Door) -> AsyncIterator[Caller]:
    host, port = it.url.removeprefix("http://").split(":")
    caller = Caller(*await asyncio.open_connection(host, int(port)))
    try:
        yield caller
    finally:
        caller.writer.close()


@asynccontextmanager
async def deaf_caller(it: Door, said: bytes) -> AsyncIterator[socket.socket]:
    """Somebody who asks and reads nothing of what comes; what the kernel would hold is little."""
    host, port = it.url.removeprefix("http://").split(":")
    others = set(connections(it))
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(made, (host, int(port)))
        await until(lambda: set(connections(it)) - others)
        (mine,) = set(connections(it)) - others
        assert mine._transport is not None
        own: socket.socket = mine._transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await loop.sock_sendall(made, said)
        yield made


def chat(model: str = "plain", *further: str, **fields: Any) -> bytes:
    """Write a chat request."""
    asked = {"model": model, "messages": [{"role": "user", "content": "Say hi."}], **fields}
    body = json.dumps(asked).encode()
    lines = "".join(f"{line}\r\n" for line in further)
    return f"{ENTRY}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def until(condition: Callable[[], object]) -> None:
    """Wait until something has come true, but not for ever."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0)


async def wait_out(it: Door, clock: StillClock) -> None:
    """Let minutes pass until nobody is kept who does not read.

    On a busy machine the kernel takes some more bytes late, and then the minute begins anew.
    """
    for _ in range(5):
        await clock.advance(63)
        await settle_loop(100)
    await until(lambda: connections(it) == [])


def connections(it: Door) -> list[Connection]:
    return list(it.server._connections)


def unsent(it: Door) -> Iterator[int]:
    """How many bytes wait for callers who do not read."""
    for connection in connections(it):
        assert connection._transport is not None
        yield connection._transport.get_write_buffer_size()


# Slow callers.


@pytest.mark.parametrize(
    ("begun", "span", "part"),
    [
        (b"GET /heal", 31, "head"),
        (HEALTH[:-1], 31, "head"),
        (chat()[:-1], 61, "body"),
        (f"{ENTRY}Transfer-Encoding: chunked\r\n\r\n3\r\nab".encode(), 61, "body"),
    ],
)
def test_a_request_that_does_not_become_whole_is_refused(
    begun: bytes, span: int, part: str
) -> None:
    async def check() -> None:
        clock = StillClock()
        async with door(clock=clock) as it, calling(it) as caller:
            await caller.say(begun)
            await until(lambda: any(each._incoming.visit for each in connections(it)))
            await clock.advance(span - 2)
            assert [each.busy for each in connections(it)] == [False]
            await clock.advance(2)
            said = await caller.hears()
            assert (said.status, said.is_last) == (400, True)
            assert f"the {part} of the request took longer" in said.message
            assert await caller.rest() == b""
            await clock.advance(7)
            assert connections(it) == []

    run(check())


def test_a_dripping_head_gains_no_time_by_its_drops() -> None:
    async def check() -> None:
        clock = StillClock()
        async with door(clock=clock) as it, calling(it) as caller:
            for at in range(31):
                await caller.say(HEALTH[at : at + 1])
                await clock.advance(1)
            assert (await caller.hears()).status == 400

    run(check())


@pytest.mark.parametrize("said", [b"", b"\r\n" * 50, HEALTH])
def test_a_connection_without_a_request_is_closed_after_a_while(said: bytes) -> None:
    async def check() -> None:
        clock = StillClock()
        async with door(clock=clock) as it, calling(it) as caller:
            await caller.say(said)
            if said == HEALTH:
                assert (await caller.hears()).status == 200
            await until(lambda: connections(it))
            await clock.advance(74)
            assert len(connections(it)) == 1
            await clock.advance(3)
            assert await caller.rest() == b""
            assert connections(it) == []

    run(check())


# Bodies that are too large, or come from nobody.


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "declared"])
def test_who_sends_too_large_a_body_can_read_why_while_still_sending(*, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 1900000"
    piece = b"2710\r\n%b\r\n" % (b" " * 10_000) if chunked else b" " * 10_000

    async def check() -> None:
        clock = StillClock()
        async with door(clock=clock) as it, calling(it) as caller:
            it.gateway.body_bytes_max = 1_000_000
            await caller.say(f"{ENTRY}{framing}\r\n\r\n")
            for _ in range(190):
                await caller.say(piece)
            said = await caller.hears()
            assert (said.status, said.code) == (413, "request_too_large")
            assert said.is_last
            assert await caller.rest() == b""
            await clock.advance(7)
            assert connections(it) == []

    run(check())


def test_a_declared_terabyte_is_refused_before_a_byte_of_it() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(f"{ENTRY}Content-Length: 1000000000000\r\n\r\n")
            said = await caller.hears()
            assert (said.status, said.is_last) == (413, True)

    run(check())


def test_what_is_dropped_is_dropped_within_bounds() -> None:
    async def check() -> None:
        clock = StillClock()
        async with door(clock=clock) as it, calling(it) as caller:
            it.gateway.body_bytes_max = 1000
            await caller.say(f"{ENTRY}Content-Length: 5000000\r\n\r\n")
            assert (await caller.hears()).status == 413
            with pytest.raises(ConnectionError):
                for _ in range(500):
                    await caller.say(b" " * 10_000)
        async with door(clock=clock) as it, calling(it) as caller:
            await caller.say(f"{ENTRY}Content-Length: 500000000\r\n\r\n")
            for _ in range(17):
                await caller.say(b" ")
                await clock.advance(4)
            await until(lambda: connections(it) == [])

    run(check())


def test_an_unknown_key_is_refused_before_its_large_body() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(chat().replace(SECRET.encode(), b"wrong", 1)[:60])
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: wrong\r\n"
            async with calling(it) as other:
                await other.say(f"{head}Content-Length: 70000\r\n\r\n")
                said = await other.hears()
                assert (said.status, said.is_last) == (401, True)
                assert await other.rest() == b""

    run(check())


def test_an_unknown_key_with_a_short_body_keeps_the_connection() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            for _ in range(3):
                await caller.say(chat().replace(SECRET.encode(), b"wrong", 1))
                said = await caller.hears()
                assert (said.status, said.code, said.is_last) == (401, "invalid_api_key", False)
            await caller.say(chat())
            assert (await caller.hears()).status == 200
            assert len(it.box.journal) == 1

    run(check())


# Connections that stay, and that do not.


def test_a_connection_is_kept_until_its_caller_says_close() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            for sent in (HEALTH, chat(), chat(stream=True), HEALTH):
                await caller.say(sent)
                said = await caller.hears()
                assert (said.status, said.is_last) == (200, False)
            await caller.say(chat("plain", "Connection: close"))
            assert (await caller.hears()).is_last
            assert await caller.rest() == b""

    run(check())


@pytest.mark.parametrize("kept", ["", "Connection: keep-alive\r\n"])
def test_http_1_0_gets_whole_answers_and_streams_that_end_with_the_connection(kept: str) -> None:
    async def check() -> None:
        async with door() as it:
            async with calling(it) as caller:
                await caller.say(f"GET /healthz HTTP/1.0\r\n{kept}\r\n")
                said = await caller.hears()
                assert (said.status, said.is_last) == (200, True)
                assert await caller.rest() == b""
            async with calling(it) as caller:
                sent = chat("plain", stream=True).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
                await caller.say(sent.replace(b"Host: x\r\n", f"Host: x\r\n{kept}".encode(), 1))
                said = await caller.hears()
                assert "transfer-encoding" not in said.headers
                assert said.is_last
                assert (await caller.rest()).endswith(b"data: [DONE]\n\n")

    run(check())


def test_a_head_request_is_answered_with_a_head() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(HEALTH.replace(b"GET", b"HEAD") + HEALTH)
            first, second = await caller.hears(head_only=True), await caller.hears()
            assert first.headers["content-length"] == second.headers["content-length"]
            await caller.say(b"HEAD /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n" + HEALTH)
            assert (await caller.hears(head_only=True)).status == 404
            assert (await caller.hears()).status == 200

    run(check())


# Expect: 100-continue, and Upgrade.


def test_a_caller_who_waits_to_continue_is_told_to() -> None:
    head, body = chat("plain", "Expect: 100-continue").split(b"\r\n\r\n")

    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(head + b"\r\n\r\n")
            assert (await caller.hears()).status == 100
            await caller.say(body)
            assert (await caller.hears()).status == 200
            # Behind another request it is told in turn, and not amid the other's answer.
            await caller.say(chat(stream=True) + head + b"\r\n\r\n")
            assert (await caller.hears()).headers["transfer-encoding"] == "chunked"
            assert (await caller.hears()).status == 100
            # Whose body has come needs no telling.
            await caller.say(body + head + b"\r\n\r\n" + body)
            assert [(await caller.hears()).status for _ in range(2)] == [200, 200]
            await caller.say(HEALTH)
            assert (await caller.hears()).status == 200

    run(check())


@pytest.mark.parametrize(
    ("change", "status"), [((SECRET, "wrong"), 401), (("Content-Length: ", "Content-Length: 9"), 0)]
)
def test_who_is_refused_is_not_told_to_continue(change: tuple[str, str], status: int) -> None:
    head = chat("plain", "Expect: 100-continue").split(b"\r\n\r\n")[0].decode()

    async def check() -> None:
        async with door() as it, calling(it) as caller:
            it.gateway.body_bytes_max = 500
            await caller.say(head.replace(*change) + "\r\n\r\n")
            said = await caller.hears()
            assert said.status == (status or 413)
            assert said.is_last

    run(check())


@pytest.mark.parametrize("stream", [True, False])
def test_a_wish_to_upgrade_is_not_granted_and_the_body_stays_a_body(*, stream: bool) -> None:
    """Ours: the parser takes what follows for the other protocol, and it was read as a request."""
    wish = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQC")
    plain = HEALTH.replace(b"\r\n\r\n", "\r\n{}\r\n{}\r\n{}\r\n\r\n".format(*wish).encode())

    async def check() -> None:
        async with door() as it, calling(it) as caller:
            sent = chat("plain", *wish, stream=stream)
            await caller.say(plain + sent + plain + sent.replace(b"Say hi", b"GET / "))
            assert [(await caller.hears()).status for _ in range(4)] == [200] * 4
            assert len(it.box.journal) == 2
            if not stream:
                assert it.box.journal[0].body == sent.split(b"\r\n\r\n")[1]

    run(check())


# Several requests at once.


def test_answers_come_in_the_order_of_asking() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(chat() + HEALTH + chat(stream=True) + HEALTH + chat())
            said = [await caller.hears() for _ in range(5)]
            assert [each.status for each in said] == [200] * 5
            assert said[1].body == said[3].body
            assert b"[DONE]" in said[2].body
            assert b'"choices"' in said[0].body
            assert b'"choices"' in said[4].body

    run(check())


def test_a_malformed_request_is_answered_behind_a_good_one() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(chat() + b"NONSENSE\r\n\r\n" + HEALTH)
            first, second = await caller.hears(), await caller.hears()
            assert (first.status, first.is_last) == (200, False)
            assert (second.status, second.is_last) == (400, True)
            assert await caller.rest() == b""

    run(check())


def test_what_follows_a_last_request_is_not_answered() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(chat("plain", "Connection: close") + HEALTH + b"NONSENSE")
            assert (await caller.hears()).is_last
            assert await caller.rest() == b""

    run(check())


def test_a_hundred_requests_at_once_are_answered_in_order() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(b"".join(chat(f"m{n}") + HEALTH for n in range(50)))
            for n in range(50):
                assert (await caller.hears()).headers["x-droveway-model"] == f"m{n}"
                assert (await caller.hears()).status == 200

    run(check())


# The forms of a request.


def test_a_head_may_come_byte_by_byte_and_a_body_in_chunks_with_trailers() -> None:
    head, body = chat().split(b"\r\n\r\n")
    head = head[: head.index(b"Content-Length")] + b"Transfer-Encoding: chunked"
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (1, body[at : at + 1]) for at in range(len(body)))

    async def check() -> None:
        async with door() as it, calling(it) as caller:
            sent = head + b"\r\n\r\n" + chunks + b"0\r\nContent-Encoding: br\r\nHost: y\r\n\r\n"
            for at in range(len(sent)):
                await caller.say(sent[at : at + 1])
                await asyncio.sleep(0)
            assert (await caller.hears()).status == 200
            assert it.box.journal[0].body == body
            await caller.say(HEALTH)
            assert (await caller.hears()).status == 200

    run(check())


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://x/healthz", 200),
        ("HTTPS://X/healthz?a=b", 200),
        ("http://x/healthz#part", 404),
        ("http://y/healthz", 400),
        ("http://x@y/healthz", 400),
        ("http://x:80/healthz", 400),
        ("ftp://x/healthz", 400),
        ("*", 400),
    ],
)
def test_a_target_may_name_this_host_and_no_other(target: str, status: int) -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
            said = await caller.hears()
            assert said.status == status
            assert status == 200 or said.code in {"invalid_request", "route_not_found"}

    run(check())


MALFORMED = {
    "length and chunks": "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "the same length twice": "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": "Content-Length: 3, 3\r\n\r\nabc",
    "no length": "Content-Length:\r\n\r\nabc",
    "a signed length": "Content-Length: +3\r\n\r\nabc",
    "a negative length": "Content-Length: -3\r\n\r\nabc",
    "a length beyond all": "Content-Length: 99999999999999999999999999\r\n\r\n",
    "a length of many zeros": f"Content-Length: {'0' * 9000}3\r\n\r\nabc",
    "a further coding": "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a vertical tab": "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a chunk ended by LF": "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "a chunk too long": "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "a chunk in hex": "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond all": "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "a length in a trailer": "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n",
    "an endless trailer": f"Transfer-Encoding: chunked\r\n\r\n0\r\na: {'b' * 90_000}",
    "an endless extension": f"Transfer-Encoding: chunked\r\n\r\n3;{'b' * 90_000}",
    "two hosts": "Host: x\r\n\r\n",
    "a space before the colon": "Accept : x\r\n\r\n",
    "a name with a space": "Ac cept: x\r\n\r\n",
    "no name": ": x\r\n\r\n",
    "no colon": "Accept\r\n\r\n",
    "a NUL": "Accept: \x00\r\n\r\n",
    "a control sign": "Accept: \x01\r\n\r\n",
    "a bare CR": "Accept: a\rb\r\n\r\n",
    "a bare LF": "Accept: a\nContent-Length: 3\r\n\r\n",
    "a folded line": "Accept: a\r\n b\r\n\r\n",
    "a header of a megabyte": f"Accept: {'a' * 2**20}\r\n\r\n",
    "a name of a megabyte": f"{'a' * 2**20}: b\r\n\r\n",
    "a key of a megabyte": f"x-api-key: {'a' * 2**20}\r\n\r\n",
    "40 KB in ten headers": "".join(f"a-{n}: {'b' * 4000}\r\n" for n in range(10)) + "\r\n",
    "101 headers": "".join(f"a-{n}: b\r\n" for n in range(99)) + "\r\n",
    "3,000 headers": "".join(f"a-{n}: b\r\n" for n in range(3000)) + "\r\n",
}
NO_REQUESTS = {
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "an empty Host": b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n",
    "a Host with a path": b"GET /healthz HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "a Host with a user": b"GET /healthz HTTP/1.1\r\nHost: a@x\r\n\r\n",
    "two names in a Host": b"GET /healthz HTTP/1.1\r\nHost: x, y\r\n\r\n",
    "chunks in HTTP/1.0": ENTRY.replace("1.1", "1.0").encode()
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b'30\r\n{"model":"a","messages":[{"content":"Say hi."}]}\r\n0\r\n\r\n',
    "lines ended by LF": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "a target of a megabyte": b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a NUL in the target": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100f1010000ed0303") + bytes(range(200)),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "HTTP/2.0 in words": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/0.9 in words": b"GET /healthz HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n",
    "a method in small letters": b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT y:443 HTTP/1.1\r\nHost: y:443\r\n\r\n" + HEALTH,
    "CONNECT to a path": b"CONNECT /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT with a body": b"CONNECT y:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "an upgrade with both framings": ENTRY.encode()
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an upgrade with another coding": ENTRY.encode()
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: identity\r\n\r\n"
    + HEALTH,
}
NO_REQUESTS |= {name: (ENTRY + wrong).encode("latin-1") for name, wrong in MALFORMED.items()}


@pytest.mark.parametrize("sent", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_could_be_read_in_two_ways_is_refused_once_and_the_rest_is_not_read(
    sent: bytes,
) -> None:
    async def check() -> None:
        async with door() as it:
            async with calling(it) as caller:
                # Behind it comes what a second reader would take for a request.
                await caller.say(sent + HEALTH)
                said = await caller.hears()
                assert (said.status, said.code) == (400, "invalid_request")
                assert "callback" not in said.message, "no mistake of ours hides in it"
                assert said.is_last
                assert await caller.rest() == b""
            async with calling(it) as caller:
                await caller.say(HEALTH)
                assert (await caller.hears()).status == 200
            assert it.box.journal == []

    run(check())


def test_a_hundred_headers_are_taken() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            lines = "".join(f"a-{n}: {'b' * 300}\r\n" for n in range(99))
            await caller.say(HEALTH.decode().replace("\r\n\r\n", f"\r\n{lines}\r\n"))
            assert (await caller.hears()).status == 200

    run(check())


# Callers who do not read.


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_an_answer_that_nobody_reads_is_bounded_and_given_up(*, stream: bool) -> None:
    async def check() -> None:
        clock = StillClock()
        async with door(clock=clock, profile=LONG) as it:
            async with deaf_caller(it, chat(stream=stream)):
                await until(lambda: any(each.blocked for each in connections(it)))
                await settle_loop(200)
                if stream:
                    (exchange,) = it.engine._open
                    assert exchange.outbox.full
                    assert exchange.outbox.size < 2 * 256 * 1024
                    assert sum(unsent(it)) < 2 * WRITE_BYTES_HIGH
                    assert not exchange.task.done(), "what the vendor has is not read"
                await clock.advance(58)
                assert len(connections(it)) == 1
                await wait_out(it, clock)
            await until(lambda: it.engine.journal.rows)
            if stream:
                assert it.engine.journal.rows[-1].outcome == "cancelled"
                await until(lambda: it.box.open_connections == 0)

    run(check())


def test_answers_that_nobody_reads_are_not_piled_up() -> None:
    """Ours: a stranger who asked and never read once got all of them into memory."""

    async def check() -> None:
        clock = StillClock()
        async with door(clock=clock) as it:
            asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000
            async with deaf_caller(it, asked):
                await until(lambda: any(each.blocked for each in connections(it)))
                await settle_loop(500)
                assert sum(unsent(it)) < 4 * WRITE_BYTES_HIGH
                await wait_out(it, clock)

    run(check())


def test_who_reads_late_gets_everything_all_the_same() -> None:
    async def check() -> None:
        async with door(profile=LONG) as it:
            async with deaf_caller(it, chat(stream=True) + HEALTH) as made:
                await until(lambda: any(each.blocked for each in connections(it)))
                reader, writer = await asyncio.open_connection(sock=made)
                caller = Caller(reader, writer)
                assert (await caller.hears()).body.endswith(b"data: [DONE]\n\n")
                assert (await caller.hears()).status == 200
                await caller.goes()

    run(check())


# Callers who hang up.


@pytest.mark.parametrize(
    ("sent", "begins"),
    [
        (chat()[:40], False),
        (chat()[:-5], False),
        (chat("fault-slow-headers"), True),
        (chat("fault-slow-headers", stream=True), True),
        (chat("fault-stall:3", stream=True), True),
        (HEALTH[:-2] + b"\r\n" + chat("fault-stall:3", stream=True) + HEALTH + chat()[:40], True),
    ],
    ids=["head", "body", "whole", "before the first token", "amid a stream", "with more behind"],
)
@pytest.mark.parametrize("how", ["close", "reset", "end"])
def test_who_hangs_up_costs_nothing_more(sent: bytes, how: str, *, begins: bool) -> None:
    async def check() -> None:
        key = FakeKey(concurrency=1)
        async with door(key) as it, calling(it) as caller:
            await caller.say(sent)
            if begins:
                await until(lambda: it.box.open_connections)
            await until(lambda: any(each._incoming.visit or each.busy for each in connections(it)))
            if how == "end":
                caller.writer.write_eof()
            elif how == "reset":
                caller.writer.transport.abort()
            else:
                caller.writer.close()
            await until(lambda: connections(it) == [])
            await until(lambda: not it.engine._open)
            if begins:
                await until(lambda: it.box.open_connections == 0)
            rows = it.engine.journal.rows
            assert [(row.outcome, row.client_gone) for row in rows] == [
                ("cancelled", True)
            ] * begins
            async with calling(it) as other:
                await other.say(chat())
                assert (await other.hears()).status == 200, "the key's place came back"

    run(check())


def test_who_has_said_all_hears_what_was_ready() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            caller.writer.write(HEALTH + HEALTH)
            caller.writer.write_eof()
            assert (await caller.rest()).count(b"HTTP/1.1 200 OK") == 2

    run(check())


# Going down.


def test_idle_connections_are_closed_at_once_and_busy_ones_when_they_have_ended() -> None:
    head, body = chat().split(b"\r\n\r\n")

    async def check() -> None:
        async with (
            door() as it,
            calling(it) as idle,
            calling(it) as asking,
            calling(it) as streaming,
        ):
            await idle.say(HEALTH)
            assert (await idle.hears()).status == 200
            await asking.say(head + b"\r\n\r\n" + body[:9])
            await streaming.say(chat("fault-slow-tokens:0.005", stream=True))
            await until(lambda: it.box.open_connections)
            it.server.go_down()
            assert await idle.rest() == b""
            await asking.say(body[9:])
            said = await asking.hears()
            assert (said.status, said.is_last) == (200, True)
            assert await asking.rest() == b""
            assert b"[DONE]" in await streaming.rest()

    run(check())


def test_what_does_not_end_is_cut_with_an_error_when_it_is_asked_again() -> None:
    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(chat("fault-stall:3", stream=True))
            await caller.reader.readuntil(b"\r\n\r\n")
            it.server.go_down()
            await settle_loop()
            assert len(connections(it)) == 1
            it.server.go_down()
            said = await caller.rest()
            assert b'"code":"unavailable"' in said
            assert b"[DONE]" not in said

    run(check())


def test_who_never_reads_does_not_hold_the_exit() -> None:
    async def check() -> None:
        clock = StillClock()
        async with door(clock=clock, profile=LONG) as it:
            async with deaf_caller(it, chat(stream=True)), deaf_caller(it, chat()):
                await until(lambda: [each.blocked for each in connections(it)] == [True] * 2)
                gone = asyncio.create_task(it.server.gone())
                it.server.go_down()
                await clock.advance(4)
                assert not gone.done()
                await clock.advance(2)
                assert not gone.done()
                await clock.advance(5)
                async with asyncio.timeout(WAIT_S):
                    await gone

    run(check())


def test_who_comes_too_late_and_says_nothing_does_not_hold_the_exit() -> None:
    async def check() -> None:
        clock = StillClock()
        async with door(clock=clock) as it, calling(it) as busy, calling(it):
            await busy.say(chat("fault-stall:3", stream=True))
            await busy.reader.readuntil(b"\r\n\r\n")
            it.server.leaving = True
            await clock.advance(2)
            assert len(connections(it)) == 1
            it.server.leaving = False
            await busy.goes()

    run(check())


def test_who_waits_behind_a_stream_that_is_cut_is_told_so_at_once() -> None:
    """Ours: it was begun after everything had been cut, and broken off without a word."""

    async def check() -> None:
        async with door() as it, calling(it) as caller:
            await caller.say(chat("fault-stall:3", stream=True) + chat("fault-slow-headers"))
            await caller.reader.readuntil(b"\r\n\r\n")
            await until(lambda: any(each.requests == 2 for each in connections(it)))
            it.server.go_down()
            it.server.go_down()
            said = await caller.rest()
            first, _, second = said.partition(b"HTTP/1.1 503 ")
            assert first.count(b'"code":"unavailable"') == 1
            assert second.count(b'"code":"unavailable"') == 1
            assert len(it.box.journal) == 1

    run(check())
