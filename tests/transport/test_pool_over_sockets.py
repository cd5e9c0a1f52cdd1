"""The pool against scripted raw servers on loopback sockets, on both event loops."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from droveway.clock import StillClock, SystemClock
from droveway.errors import APIConnectionError, ProtocolError, UpstreamError
from droveway.transport import Call, Origin, Pool, Request, ResponseHead
from droveway.transport.connection import Connection

Play = Callable[[Coroutine[Any, Any, None]], None]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Collector:
    """A sink that remembers; `ended` has the error, or None when the response is whole."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = b""
        self.calls = 0
        self.began = asyncio.Event()
        self.ended: asyncio.Future[UpstreamError | None] = (
            asyncio.get_running_loop().create_future()
        )

    def on_head(self, head: ResponseHead) -> None:
        self.calls += 1
        self.head = head
        self.began.set()

    def on_chunk(self, data: bytes) -> None:
        self.calls += 1
        self.body += data

    def on_done(self) -> None:
        self.calls += 1
        self.ended.set_result(None)

    def on_error(self, error: UpstreamError) -> None:
        self.calls += 1
        self.ended.set_result(error)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Play:
    """Run a scene within a time limit; it must leave no task behind."""

    async def bounded(scene: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(10):
            await scene
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def run(scene: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded(scene))

    return run


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Origin]:
    tasks: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
            ):
                await handler(reader, writer)
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        left = tuple(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def pooling(pool: Pool) -> AsyncIterator[Pool]:
    try:
        yield pool
    finally:
        await pool.aclose()
        assert pool.sockets == 0


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return head + await reader.readexactly(int(length or b"0"))


async def polite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)


def answering(*parts: bytes) -> Handler:
    """Answer the first request with these bytes, then close."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    return handle


async def ask(pool: Pool, origin: Origin, *, body: bytes = b"{}") -> tuple[Call, Collector]:
    sink = Collector()
    return await pool.send(Request("POST", origin, "/v1", (), body), sink), sink


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_request_goes_out_as_written_and_its_answer_comes_back(play: Play) -> None:
    got: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await read_request(reader))
        writer.write(OK)
        await reader.read()

    async def scene() -> None:
        async with serving(handle) as origin, pooling(Pool(clock=SystemClock())) as pool:
            sink = Collector()
            request = Request("POST", origin, "/v1/chat?a=b", (("X-Key", "k é"),), b"body")
            call = await pool.send(request, sink)
            assert await sink.ended is None
            assert sink.head
            assert (sink.head.status, sink.body) == (200, b"hi")
            assert not call.reused
            assert call.peer == origin.address
            head = (
                f"POST /v1/chat?a=b HTTP/1.1\r\nHost: {origin.address}\r\nX-Key: k é\r\n"
                "Accept-Encoding: gzip, deflate\r\nContent-Length: 4\r\n\r\n"
            )
            assert got == [head.encode("latin-1") + b"body"]

    play(scene())


def test_a_small_write_leaves_at_once(play: Play) -> None:
    """ours: 40 ms of Nagle against delayed acknowledgements are what slow gateways show."""

    async def scene() -> None:
        async with serving(polite) as origin, pooling(Pool(clock=SystemClock())) as pool:
            await ask(pool, origin)
            (connection,) = pool._connections
            sock = connection._transport.get_extra_info("socket")  # type: ignore[union-attr]  # open
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    play(scene())


def test_a_hundred_callers_share_ten_connections_first_come_first_served(play: Play) -> None:
    opened = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await polite(reader, writer)

    async def scene() -> None:
        order: list[int] = []

        async def caller(number: int) -> None:
            call, sink = await ask(pool, origin)
            order.append(number)
            assert await sink.ended is None
            assert sink.body == b"hi"
            assert call.reused is (number >= 10)

        pool = Pool(clock=SystemClock(), connections_per_origin_max=10)
        async with serving(handle) as origin, pooling(pool):
            await asyncio.gather(*(caller(number) for number in range(100)))
            assert pool.sockets == pool.idle == opened == 10
            assert sorted(order[:10]) == list(range(10))
            assert order[10:] == list(range(10, 100))

    play(scene())


def test_the_connection_used_last_is_used_next(play: Play) -> None:
    async def scene() -> None:
        async with serving(polite) as origin, pooling(Pool(clock=SystemClock())) as pool:
            both = [await ask(pool, origin), await ask(pool, origin)]
            for _, sink in both:
                await sink.ended
            last = pool._lanes[origin].idle[-1]
            for _ in range(3):
                _, sink = await ask(pool, origin)
                await sink.ended
                assert pool._lanes[origin].idle[-1] is last

    play(scene())


@pytest.mark.parametrize("stage", ["asked", "head", "body"])
def test_an_aborted_call_closes_its_socket_and_says_no_more(play: Play, stage: str) -> None:
    gone: asyncio.Event
    asked: asyncio.Event

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if stage != "asked":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        if stage == "body":
            writer.write(b"part")
        asked.set()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        gone.set()

    async def scene() -> None:
        nonlocal gone, asked
        gone, asked = asyncio.Event(), asyncio.Event()
        async with serving(handle) as origin, pooling(Pool(clock=SystemClock())) as pool:
            call, sink = await ask(pool, origin)
            await asked.wait()
            calls = {"asked": 0, "head": 1, "body": 2}[stage]
            await until(lambda: sink.calls == calls)
            call.abort()
            call.abort()
            await gone.wait()
            await until(lambda: pool.sockets == 0)
            assert sink.calls == calls
            call.pause()
            call.resume()

    play(scene())


def test_aborting_a_finished_call_does_not_hurt_the_next_one(play: Play) -> None:
    async def scene() -> None:
        async with serving(polite) as origin, pooling(Pool(clock=SystemClock())) as pool:
            first, sink = await ask(pool, origin)
            await sink.ended
            second, later = await ask(pool, origin)
            first.pause()
            first.abort()
            assert await later.ended is None
            assert second.reused

    play(scene())


def test_a_call_may_be_aborted_from_inside_its_sink(play: Play) -> None:
    async def scene() -> None:
        async with (
            serving(answering(OK[:-1])) as origin,
            pooling(Pool(clock=SystemClock())) as pool,
        ):
            calls: list[Call] = []

            class Impatient(Collector):
                def on_head(self, head: ResponseHead) -> None:
                    super().on_head(head)
                    calls[0].abort()

            sink = Impatient()
            calls.append(await pool.send(Request("GET", origin, "/"), sink))
            await until(lambda: pool.sockets == 0)
            assert sink.calls == 1

    play(scene())


def test_cancelled_while_waiting_for_a_slot_leaves_the_turn_to_the_next(play: Play) -> None:
    gate: asyncio.Event

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await polite(reader, writer)

    async def scene() -> None:
        nonlocal gate
        gate = asyncio.Event()
        pool = Pool(clock=SystemClock(), connections_per_origin_max=1)
        async with serving(handle) as origin, pooling(pool):
            chosen: asyncio.Task[tuple[Call, Collector]]

            class Cancelling(Collector):
                """When this hears the end, the turn was just given to `chosen`."""

                def on_done(self) -> None:
                    super().on_done()
                    chosen.cancel()

            await pool.send(Request("POST", origin, "/"), Cancelling())
            early = asyncio.create_task(ask(pool, origin))
            chosen = asyncio.create_task(ask(pool, origin))
            patient = asyncio.create_task(ask(pool, origin))
            await until(lambda: pool._lanes[origin].waiting == 3)
            early.cancel()
            await asyncio.wait([early])
            assert pool._lanes[origin].waiting == 2
            gate.set()
            _, sink = await patient
            assert await sink.ended is None
            assert chosen.cancelled()
            assert pool.sockets == 1

    play(scene())


def test_cancelled_while_connecting_leaves_no_socket(play: Play) -> None:
    """A listener whose queue is full: the kernel answers no further connection attempt."""

    async def scene() -> None:
        with contextlib.ExitStack() as sockets:
            listener = sockets.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(4):
                filler = sockets.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            origin = Origin("http", "127.0.0.1", listener.getsockname()[1])
            async with pooling(Pool(clock=SystemClock())) as pool:
                task = asyncio.create_task(ask(pool, origin))
                await until(lambda: pool.sockets == 1)
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                assert pool.sockets == 0
                # Closing the pool ends an attempt too, and says so.
                closed = asyncio.create_task(ask(pool, origin))
                await until(lambda: pool.sockets == 1)
                await asyncio.sleep(0)
                await pool.aclose()
                with pytest.raises(APIConnectionError, match="pool was closed") as caught:
                    await closed
                assert not caught.value.sent

    play(scene())


def test_nobody_there_is_said_in_one_line(play: Play) -> None:
    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            origin = Origin("http", "127.0.0.1", listener.getsockname()[1])
        async with pooling(Pool(clock=SystemClock())) as pool:
            with pytest.raises(APIConnectionError) as refused:
                await ask(pool, origin)
            assert refused.value.message == (
                f"cannot connect to {origin.address} (connection refused);"
                " is the provider running, and is base_url right?"
            )
            assert not refused.value.sent
            with pytest.raises(APIConnectionError, match=r"cannot find 'nowhere\.invalid'") as lost:
                await ask(pool, Origin("http", "nowhere.invalid", 80))
            assert not lost.value.sent
            assert pool.sockets == 0

    play(scene())


ENDS = {
    "a length cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
    "amid a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
    "amid the head": b"HTTP/1.1 200 OK\r\nConte",
    "only an informational head": b"HTTP/1.1 100 Continue\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("raw", ENDS.values(), ids=ENDS)
def test_a_connection_that_ends_too_soon_is_an_error_and_nothing_is_sent_again(
    play: Play, raw: bytes
) -> None:
    requests = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        requests += 1
        await answering(raw)(reader, writer)

    async def scene() -> None:
        async with serving(handle) as origin, pooling(Pool(clock=SystemClock())) as pool:
            _, sink = await ask(pool, origin)
            error = await sink.ended
            assert type(error) is APIConnectionError
            assert error.sent
            assert error.message.startswith(f"{origin.address} closed the connection")
            await until(lambda: pool.sockets == 0)
            assert requests == 1

    play(scene())


def test_a_body_without_a_length_ends_with_the_connection(play: Play) -> None:
    """spec: RFC 9112, 6.3, rule 8; whether its content is whole is for the reader of it."""

    async def scene() -> None:
        raw = b"HTTP/1.1 200 OK\r\n\r\n"
        async with (
            serving(answering(raw, b"he", b"llo")) as origin,
            pooling(Pool(clock=SystemClock())) as pool,
        ):
            _, sink = await ask(pool, origin)
            assert await sink.ended is None
            assert sink.body == b"hello"

    play(scene())


def test_a_reset_is_never_the_end_of_a_body(play: Play) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await reader.readexactly(1)
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async def scene() -> None:
        async with serving(handle) as origin, pooling(Pool(clock=SystemClock())) as pool:
            _, sink = await ask(pool, origin)
            await until(lambda: sink.body == b"hello")
            (connection,) = pool._connections
            connection._transport.write(b"!")  # type: ignore[union-attr]  # the server's cue
            error = await sink.ended
            assert isinstance(error, APIConnectionError)
            assert "amid its answer" in error.message

    play(scene())


def test_what_is_no_http_is_a_protocol_error(play: Play) -> None:
    async def scene() -> None:
        async with (
            serving(answering(b"220 mail ready\r\n")) as origin,
            pooling(Pool(clock=SystemClock())) as pool,
        ):
            _, sink = await ask(pool, origin)
            error = await sink.ended
            assert isinstance(error, ProtocolError)
            assert error.message.startswith(f"{origin.address} does not answer in HTTP/1.1")
            await until(lambda: pool.sockets == 0)

    play(scene())


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"more",
        OK.replace(b"Content", b"Connection: close\r\nContent"),
        OK.replace(b"1.1", b"1.0"),
        OK.replace(b"Content", b"Keep-Alive: timeout=1\r\nContent"),
    ],
    ids=["bytes after it", "connection close", "HTTP/1.0", "kept alive for no time"],
)
def test_some_connections_are_used_once(play: Play, raw: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(raw)
        await reader.read()

    async def scene() -> None:
        async with serving(handle) as origin, pooling(Pool(clock=SystemClock())) as pool:
            for _ in range(2):
                call, sink = await ask(pool, origin)
                assert await sink.ended is None
                assert sink.body == b"hi"
                assert not call.reused
                await until(lambda: pool.sockets == 0)

    play(scene())


def test_an_answer_before_the_request_was_read_ends_the_connection(play: Play) -> None:
    """ours: the rest of that request would stand in front of the next one."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport
        writer.write(OK.replace(b"200 OK", b"413 Large"))
        await asyncio.Event().wait()

    async def scene() -> None:
        async with serving(handle) as origin, pooling(Pool(clock=SystemClock())) as pool:
            _, sink = await ask(pool, origin, body=bytes(30_000_000))
            assert await sink.ended is None
            assert sink.head
            assert sink.head.status == 413
            await until(lambda: pool.sockets == 0)

    play(scene())


def test_bytes_on_an_idle_connection_close_it(play: Play) -> None:
    """Vendor quirk: proxies send an unasked 408 before they hang up."""
    goodbye: asyncio.Event

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await goodbye.wait()
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    async def scene() -> None:
        nonlocal goodbye
        goodbye = asyncio.Event()
        async with serving(handle) as origin, pooling(Pool(clock=SystemClock())) as pool:
            _, sink = await ask(pool, origin)
            await sink.ended
            assert pool.idle == 1
            goodbye.set()
            await until(lambda: pool.sockets == 0)
            assert pool.idle == 0

    play(scene())


def test_a_connection_the_server_closed_is_not_used_again(play: Play) -> None:
    """The close is in the kernel and the event loop has not seen it: the pool asks the kernel."""

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        clock = StillClock()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            origin = Origin("http", "127.0.0.1", listener.getsockname()[1])
            async with pooling(Pool(clock=clock)) as pool:
                for _ in range(3):
                    call, sink = await ask(pool, origin)
                    assert not call.reused
                    server, _ = await loop.sock_accept(listener)
                    with server:
                        server.setblocking(False)
                        while b"{}" not in await loop.sock_recv(server, 1000):
                            pass
                        await loop.sock_sendall(server, OK)
                        assert await sink.ended is None
                    clock._passed += 2.0
                    assert pool.idle == 1

    play(scene())


def test_idle_connections_expire_by_one_timer(play: Play) -> None:
    async def scene() -> None:
        clock = StillClock()
        async with serving(polite) as origin, pooling(Pool(clock=clock, idle_s=30.0)) as pool:
            for _, sink in await asyncio.gather(*(ask(pool, origin) for _ in range(5))):
                await sink.ended
            assert pool.idle == 5
            assert len(clock._alarms) == 1
            await clock.advance(29.0)
            assert pool.idle == 5
            await clock.advance(10.0)
            await until(lambda: pool.sockets == 0)
            assert pool.idle == 0
            assert clock.next_at is None

    play(scene())


def test_the_server_may_keep_a_connection_for_less(play: Play) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(OK.replace(b"Content", b"Keep-Alive: timeout=9\r\nContent"))

    async def scene() -> None:
        clock = StillClock()
        async with serving(handle) as origin, pooling(Pool(clock=clock)) as pool:
            for wait_s, reused in ((0.0, False), (7.9, True), (8.1, False)):
                clock._passed += wait_s
                call, sink = await ask(pool, origin)
                await sink.ended
                assert call.reused is reused

    play(scene())


def test_no_more_connections_stay_idle_than_allowed(play: Play) -> None:
    async def scene() -> None:
        clock = StillClock()
        async with serving(polite) as origin, pooling(Pool(clock=clock, idle_max=3)) as pool:
            for _, sink in await asyncio.gather(*(ask(pool, origin) for _ in range(8))):
                assert await sink.ended is None
            assert pool.idle == 8
            await clock.advance(2.0)
            _, sink = await ask(pool, origin)
            await sink.ended
            used_last = pool._lanes[origin].idle[-1]
            await clock.advance(3.1)
            await until(lambda: pool.sockets == 3)
            assert pool.idle == 3
            assert used_last in pool._lanes[origin].idle

    play(scene())


def test_a_paused_call_makes_the_server_wait(play: Play) -> None:
    piece, pieces = bytes(300_000), 80
    written = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(piece) * pieces))
        for _ in range(pieces):
            writer.write(piece)
            await writer.drain()
            written += 1
        await reader.read()

    async def scene() -> None:
        async with serving(handle) as origin, pooling(Pool(clock=SystemClock())) as pool:
            call, sink = await ask(pool, origin)
            await sink.began.wait()
            call.pause()
            call.pause()
            before = -1
            while before != written:
                before = written
                for _ in range(20):
                    await asyncio.sleep(0.001)
            assert written < pieces // 2
            got = len(sink.body)
            await asyncio.sleep(0.001)
            assert len(sink.body) == got
            call.resume()
            assert await sink.ended is None
            assert len(sink.body) == len(piece) * pieces

    play(scene())


def test_a_call_paused_to_its_end_gives_back_a_connection_that_reads(play: Play) -> None:
    async def scene() -> None:
        async with serving(polite) as origin, pooling(Pool(clock=SystemClock())) as pool:
            calls: list[Call] = []

            class Slow(Collector):
                def on_chunk(self, data: bytes) -> None:
                    super().on_chunk(data)
                    calls[-1].pause()

            for _ in range(3):
                sink = Slow()
                calls.append(await pool.send(Request("POST", origin, "/"), sink))
                assert await sink.ended is None
            assert [call.reused for call in calls] == [False, True, True]

    play(scene())


def test_closing_the_pool_ends_calls_at_work_and_in_line(play: Play) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def scene() -> None:
        pool = Pool(clock=SystemClock(), connections_per_origin_max=1)
        async with serving(silent) as origin:
            _, sink = await ask(pool, origin)
            waiting = asyncio.create_task(ask(pool, origin))
            await until(lambda: pool._lanes[origin].waiting == 1)
            await pool.aclose()
            error = await sink.ended
            assert isinstance(error, APIConnectionError)
            assert error.sent
            for late in (waiting, ask(pool, origin)):
                with pytest.raises(APIConnectionError, match="pool was closed") as caught:
                    await late
                assert not caught.value.sent
            await pool.aclose()

    play(scene())


def test_a_head_request_is_answered_without_a_body(play: Play) -> None:
    async def scene() -> None:
        async with (
            serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")) as origin,
            pooling(Pool(clock=SystemClock())) as pool,
        ):
            sink = Collector()
            await pool.send(Request("HEAD", origin, "/"), sink)
            assert await sink.ended is None
            assert sink.body == b""

    play(scene())


def test_a_call_may_have_its_own_limit_of_the_body(play: Play) -> None:
    async def scene() -> None:
        async with serving(polite) as origin, pooling(Pool(clock=SystemClock())) as pool:
            sink = Collector()
            await pool.send(Request("GET", origin, "/"), sink, body_bytes_max=1)
            error = await sink.ended
            assert isinstance(error, ProtocolError)
            assert "beyond 1 bytes" in error.message

    play(scene())


class Dying:
    """A transport that breaks as soon as it is written to."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._transport.abort()


def test_a_write_that_finds_the_connection_closed_takes_another(play: Play) -> None:
    async def scene() -> None:
        async with serving(polite) as origin, pooling(Pool(clock=SystemClock())) as pool:
            for _, sink in await asyncio.gather(*(ask(pool, origin) for _ in range(3))):
                await sink.ended
            for connection in pool._connections:
                connection._transport = Dying(connection._transport)  # type: ignore[assignment]  # it breaks
            call, sink = await ask(pool, origin)
            assert not call.reused
            assert await sink.ended is None
            await until(lambda: pool.sockets == 1)

    play(scene())


def test_a_new_connection_that_is_closed_at_once_is_an_error_not_a_loop(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Connection.connection_made

    def made(self: Connection, transport: asyncio.BaseTransport) -> None:
        original(self, Dying(transport))  # type: ignore[arg-type]  # it breaks

    async def scene() -> None:
        monkeypatch.setattr(Connection, "connection_made", made)
        async with serving(polite) as origin, pooling(Pool(clock=SystemClock())) as pool:
            with pytest.raises(APIConnectionError, match="closed a new connection") as caught:
                await ask(pool, origin)
            assert not caught.value.sent
            await until(lambda: pool.sockets == 0)

    play(scene())


def test_a_free_slot_given_to_a_cancelled_caller_goes_to_the_next(play: Play) -> None:
    async def scene() -> None:
        pool = Pool(clock=SystemClock(), connections_per_origin_max=1)
        async with serving(polite) as origin, pooling(pool):
            busy, _ = await ask(pool, origin)
            chosen = asyncio.create_task(ask(pool, origin))
            patient = asyncio.create_task(ask(pool, origin))
            await asyncio.sleep(0)
            assert pool._lanes[origin].waiting == 2
            (connection,) = pool._connections
            lost = connection._on_lost

            def lost_and_cancel(gone: Connection) -> None:
                lost(gone)
                chosen.cancel()

            connection._on_lost = lost_and_cancel
            busy.abort()
            call, sink = await patient
            assert await sink.ended is None
            assert not call.reused
            assert chosen.cancelled()
            assert pool.sockets == 1

    play(scene())


def test_a_sink_that_breaks_loses_its_connection_and_nothing_else(play: Play) -> None:
    """ours: a defect of a sink is told to the event loop's handler, and the call ends."""

    async def scene() -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: told.append(context.get("exception"))
        )

        class Broken(Collector):
            def on_chunk(self, data: bytes) -> None:
                raise KeyError("a defect")

        async with serving(polite) as origin, pooling(Pool(clock=SystemClock())) as pool:
            sink = Broken()
            await pool.send(Request("GET", origin, "/"), sink)
            assert isinstance(await sink.ended, APIConnectionError)
            await until(lambda: pool.sockets == 0)
            assert [type(error) for error in told] == [KeyError]

    play(scene())
