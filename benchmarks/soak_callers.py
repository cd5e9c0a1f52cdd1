"""This file knows the callers of a soak: a fixed number who ask again as soon as they have an end.

Most read on, some hang up midway, some read so slowly that the gateway has to wait for them.
"""

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple, cast
from urllib.parse import urlparse

import httptools
import msgspec

from soak_answer import Answer, End

LINES: Final = 4  # models of each kind: a refusal stops the line of its model
LEAVING, SLOW, GOOD, HUGE = "caller hangs up", "caller is slow", "good", "huge-event"
# How many of a thousand requests are of a kind; what is no fault gets a good answer.
FAULTS: Final = (
    "cut-event:0", "cut-event:5", "cut-event-rst:5", "cut-byte:540", "cut-byte-rst:540",
    "close-delimited-cut:5", "end-without-finish", "done-without-finish", "stall:4",
    "stall-keepalive:4", "stall:0@1", "hang-up", "refuse", "cut-head", "malformed:2", "malformed:9",
    "malformed-body", "error-event:0", "error-event:3", "429-seconds:1@1", "429-ms:200@1",
    "429-seconds:1", "503-seconds:1@1", "500", "500@1", "529", "502-html", "html-200", "error-200",
    "400", "usage-missing", "split-utf8",
)  # fmt: skip
WEIGHTS: Final[Mapping[str, int]] = {
    GOOD: 600, LEAVING: 100, SLOW: 50, HUGE: 6, **dict.fromkeys(FAULTS, 8)
}  # fmt: skip
# So that what a slow caller does not read stays in the gateway, not in the kernel.
SLOW_BUFFER_BYTES: Final = 8192
SLOW_S: Final = 0.1
SOON_S: Final = 0.1  # within this a caller leaves who does not wait for an event
REUSED: Final = 0.75
WORDS: Final = ("tariff", "ledger", "harbour", "freight", "customs", "invoice", "vessel", "quota")


class Wish(NamedTuple):
    """One request.

    Attributes:
        kind: One of `WEIGHTS`.
        body: What is sent.
        leaves: After how many events the caller hangs up; None for not at all.
    """

    kind: str
    body: bytes
    leaves: int | None


def models(kind: str) -> list[str]:
    """The names of the models that behave so; the vendor's script and the prices have them."""
    plain = kind.replace(":", ".").replace("@", ".times.").replace(" ", "-")
    return [f"{plain}-{number}" for number in range(LINES)]


class Tally:
    """What the callers have seen; latencies of good answers only, since the last window.

    Attributes:
        ends: How many requests of a kind ended so.
        odd: What is to be looked into: kinds, ends and ids of streams without a visible end.
        ids: Of all requests that had a head.
        headless: Requests whose caller left before the head.
        open: Requests on their way.
        first_ms: From the request to the first event.
        gaps_ms: Between events.
    """

    def __init__(self) -> None:
        self.ends: Counter[tuple[str, End]] = Counter()
        self.odd: list[str] = []
        self.ids: set[str] = set()
        self.headless = 0
        self.open = 0
        self.first_ms: list[float] = []
        self.gaps_ms: list[float] = []

    @property
    def asked(self) -> int:
        """Requests that have ended."""
        return sum(self.ends.values())


class Connection(asyncio.Protocol):
    """A connection of a caller: one request after another."""

    def __init__(self, tally: Tally) -> None:
        self.usable = True
        self._tally = tally
        self._wish: Wish | None = None
        self._over: asyncio.Future[None] | None = None
        self._left = False
        self._at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop's is no subclass of asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Whatever has not ended by now will not."""
        del error
        self.usable = False
        self._finish()

    def data_received(self, data: bytes) -> None:
        """Take what came; a slow caller takes the next after a while."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.hang_up()
            return
        self._answer.status = self._parser.get_status_code()
        if self._answer.whole:
            self.usable = self.usable and self._parser.should_keep_alive()
            self._finish()
        elif self._wish is not None and self._wish.kind in {SLOW, HUGE} and not self._left:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(SLOW_S, self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _event(self) -> None:
        now = time.perf_counter()
        assert self._wish is not None
        if self._wish.kind == GOOD:
            into = self._tally.gaps_ms if self._answer.events > 1 else self._tally.first_ms
            into.append(1e3 * (now - self._at))
        self._at = now
        if self._wish.leaves == self._answer.events:
            self.leave()

    def leave(self) -> None:
        """Hang up amid an answer, if there is one."""
        if self._over is not None and not self._over.done() and not self._answer.whole:
            self._left = True
            self.hang_up()

    def hang_up(self) -> None:
        """Close at once."""
        self.usable = False
        self._transport.abort()

    def _finish(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def ask(self, wish: Wish, head: bytes, *, within_s: float) -> tuple[End, Answer]:
        """Ask, and return how it ended."""
        self._wish, self._left = wish, False
        answer = self._answer = Answer(self._event)
        self._parser = httptools.HttpResponseParser(answer)
        self._over = asyncio.get_running_loop().create_future()
        self._at = time.perf_counter()
        self._transport.write(head % len(wish.body) + wish.body)
        if wish.leaves == 0:
            asyncio.get_running_loop().call_later(SOON_S * random.random(), self.leave)
        try:
            async with asyncio.timeout(within_s):
                await self._over
        except TimeoutError:
            self.hang_up()
            return "never ended", answer
        return ("hung up" if self._left else answer.end), answer


class Crowd:
    """So many callers at once.

    Args:
        url: The gateway.
        key: What opens it.
        tally: Where they note what they see.
        patience_s: After what time without an end a stream counts as one that never ends.
        seed: Of what they wish.
    """

    def __init__(self, url: str, key: str, tally: Tally, *, patience_s: float, seed: int) -> None:
        where = urlparse(url)
        self._address = (where.hostname, where.port)
        self._head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {where.netloc}\r\n"
            f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        ).encode() + b"content-length: %d\r\n\r\n"
        self._tally = tally
        self._patience_s = patience_s
        self._chance = random.Random(seed)
        self._count = 0
        self._stopping = False

    def stop(self) -> None:
        """Let nobody ask any more; who has asked reads on to the end."""
        self._stopping = True

    async def call(self, count: int, *, over_s: float) -> None:
        """Be so many callers, who come one by one over a time, until stopped."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._caller(over_s * number / count))

    async def once(self) -> End:
        """Ask for one good answer."""
        end, _ = await self._ask(await self._connect(GOOD), self._wish(GOOD))
        return end

    async def _caller(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        connection: Connection | None = None
        while not self._stopping:
            kind = self._chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            if kind in {SLOW, HUGE} or connection is None or not connection.usable:
                if connection is not None:
                    connection.hang_up()
                connection = await self._connect(kind)
            end, answer = await self._ask(connection, self._wish(kind))
            self._note(kind, end, answer)
            if kind in {SLOW, HUGE} or self._chance.random() > REUSED:
                connection.hang_up()
        if connection is not None:
            connection.hang_up()

    def _note(self, kind: str, end: End, answer: Answer) -> None:
        self._tally.ends[kind, end] += 1
        if answer.request_id:
            self._tally.ids.add(answer.request_id)
        else:
            self._tally.headless += 1
        if end in {"cut", "two ends", "never ended"}:
            self._tally.odd.append(
                f"{kind}: {end}, request {answer.request_id or 'without a head'}"
            )

    async def _ask(self, connection: Connection, wish: Wish) -> tuple[End, Answer]:
        self._tally.open += 1
        try:
            return await connection.ask(wish, self._head, within_s=self._patience_s)
        finally:
            self._tally.open -= 1

    async def _connect(self, kind: str) -> Connection:
        sock = socket.socket()
        sock.setblocking(False)
        if kind in {SLOW, HUGE}:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, self._address)
        _, connection = await loop.create_connection(lambda: Connection(self._tally), sock=sock)
        return connection

    def _wish(self, kind: str) -> Wish:
        chance = self._chance
        self._count += 1
        words = " ".join(chance.choices(WORDS, k=chance.randrange(5, 300)))
        asked = {
            "model": chance.choice(models(kind)),
            "messages": [{"role": "user", "content": f"{self._count}: {words}?"}],
            "stream": True,
            "stream_options": {"include_usage": chance.random() < 0.5},
        }
        leaves = chance.randrange(40) if kind == LEAVING else None
        return Wish(kind, msgspec.json.encode(asked), leaves)
