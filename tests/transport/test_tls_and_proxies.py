"""Connections under TLS and through proxies, against real sockets, on both event loops."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import trustme
import uvloop

from droveway.clock import SystemClock
from droveway.errors import APIConnectionError, UpstreamError
from droveway.transport import Origin, Pool, Proxy, ProxyRules, Request, ResponseHead

Play = Callable[[Coroutine[Any, Any, None]], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Collector:
    """A sink that remembers; `ended` has the error, or None when the response is whole."""

    def __init__(self) -> None:
        self.body = b""
        self.ended: asyncio.Future[UpstreamError | None] = (
            asyncio.get_running_loop().create_future()
        )

    def on_head(self, head: ResponseHead) -> None:
        assert head.status == 200

    def on_chunk(self, data: bytes) -> None:
        self.body += data

    def on_done(self) -> None:
        self.ended.set_result(None)

    def on_error(self, error: UpstreamError) -> None:
        self.ended.set_result(error)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Play:
    """Run a scene within a time limit; it must leave no task behind."""

    async def bounded(scene: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(10):
            await scene
            # A server's half of a handshake that failed ends a moment later than ours.
            await until(lambda: len(asyncio.all_tasks()) == 1)

    def run(scene: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded(scene))

    return run


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def certified(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


class Raw(asyncio.Protocol):
    """A server that answers each request head with the same bytes, and keeps the heads."""

    def __init__(self, heads: list[bytes], lost: Callable[[], None]) -> None:
        self.heads = heads
        self.lost = lost
        self.got = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        while b"\r\n\r\n" in self.got:
            head, _, self.got = self.got.partition(b"\r\n\r\n")
            self.heads.append(head)
            self.transport.write(OK)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost()


class Upstream:
    """What a test sees of the server."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.lost = 0
        self.port = 0

    def count(self) -> None:
        self.lost += 1


@contextlib.asynccontextmanager
async def upstream(tls: ssl.SSLContext | None) -> AsyncIterator[Upstream]:
    seen = Upstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Raw(seen.heads, seen.count), "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def proxying(
    answer: bytes, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A CONNECT proxy that answers so, and pipes bytes both ways after a 200."""
    heads: list[bytes] = []
    tasks: set[asyncio.Task[Any]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.transport.abort()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            with contextlib.suppress(
                ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError
            ):
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
                if b" 200 " not in answer:
                    return
                port = int(heads[-1].split(b" ")[1].rpartition(b":")[2])
                back, there = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(pipe(reader, there), pipe(back, writer))
        finally:
            for side in (writer, there):
                if side is not None:
                    await close(side)
            tasks.discard(task)

    async def close(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        left = tuple(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def pooling(
    *, tls: ssl.SSLContext | None = None, proxy: ProxyRules | None = None
) -> AsyncIterator[Pool]:
    pool = Pool(clock=SystemClock(), tls=tls, proxy=proxy)
    try:
        yield pool
    finally:
        await pool.aclose()
        assert pool.sockets == 0


async def ask(pool: Pool, origin: Origin) -> Collector:
    sink = Collector()
    await pool.send(Request("GET", origin, "/v1"), sink)
    return sink


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_certificate_of_a_trusted_authority_is_good(play: Play, authority: trustme.CA) -> None:
    async def scene() -> None:
        async with (
            upstream(certified(authority, "localhost")) as server,
            pooling(tls=trusting(authority)) as pool,
        ):
            origin = Origin("https", "localhost", server.port)
            for _ in range(3):
                sink = await ask(pool, origin)
                assert await sink.ended is None
                assert sink.body == b"hi"
            assert pool.sockets == 1
            (connection,) = pool._connections
            connection.drop()
            await until(lambda: server.lost == 1)

    play(scene())


def test_an_unknown_authority_is_refused_with_advice(play: Play, authority: trustme.CA) -> None:
    async def scene() -> None:
        async with upstream(certified(authority, "localhost")) as server, pooling() as pool:
            with pytest.raises(APIConnectionError) as caught:
                await ask(pool, Origin("https", "localhost", server.port))
            message = caught.value.message
            assert message.startswith(
                f"the certificate of localhost:{server.port} cannot be trusted"
            )
            assert "unable to get local issuer certificate" in message
            assert "set SSL_CERT_FILE" in message
            assert "\n" not in message
            assert not caught.value.sent
            assert pool.sockets == 0
            assert server.heads == []

    play(scene())


def test_the_default_trust_is_that_of_the_system(
    play: Play, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        with authority.cert_pem.tempfile() as path:
            monkeypatch.setenv("SSL_CERT_FILE", path)
            async with upstream(certified(authority, "localhost")) as server, pooling() as pool:
                sink = await ask(pool, Origin("https", "localhost", server.port))
                assert await sink.ended is None

    play(scene())


def test_a_certificate_for_another_host_is_refused(play: Play, authority: trustme.CA) -> None:
    async def scene() -> None:
        async with (
            upstream(certified(authority, "other.example")) as server,
            pooling(tls=trusting(authority)) as pool,
        ):
            with pytest.raises(APIConnectionError, match=r"(?i)hostname mismatch") as caught:
                await ask(pool, Origin("https", "localhost", server.port))
            assert not caught.value.sent
            assert server.heads == []

    play(scene())


def test_tls_to_a_plain_server_asks_about_the_scheme(play: Play) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read(4000)
        writer.close()

    async def scene() -> None:
        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with pooling() as pool:
            with pytest.raises(APIConnectionError, match="does base_url want http:// instead"):
                await ask(pool, Origin("https", "127.0.0.1", port))
            assert pool.sockets == 0
        server.close()
        await server.wait_closed()

    play(scene())


def test_cancelled_amid_the_handshake_closes_the_socket(play: Play) -> None:
    async def scene() -> None:
        hello, gone = asyncio.Event(), asyncio.Event()

        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            hello.set()
            with contextlib.suppress(ConnectionError):
                while await reader.read(4000):
                    pass
            writer.close()
            gone.set()

        server = await asyncio.start_server(deaf, "127.0.0.1", 0)
        async with pooling() as pool:
            origin = Origin("https", "127.0.0.1", server.sockets[0].getsockname()[1])
            task = asyncio.create_task(ask(pool, origin))
            await hello.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await gone.wait()
            assert pool.sockets == 0
        server.close()
        await server.wait_closed()

    play(scene())


def tunnel_rules(port: int, *, scheme: str = "http", host: str = "127.0.0.1") -> ProxyRules:
    """As the environment would say it; the origins of these tests are no loopback names."""
    return ProxyRules.from_environment({"https_proxy": f"{scheme}://me:p%40ss@{host}:{port}"})


@pytest.mark.parametrize("secure", [False, True], ids=["http proxy", "https proxy"])
def test_https_goes_through_a_tunnel(play: Play, authority: trustme.CA, *, secure: bool) -> None:
    async def scene() -> None:
        tls = certified(authority, "localhost") if secure else None
        async with (
            upstream(certified(authority, "api.example")) as server,
            proxying(b"HTTP/1.1 200 Connection established\r\n\r\n", tls=tls) as (port, heads),
        ):
            rules = tunnel_rules(port, scheme="https" if secure else "http", host="localhost")
            async with pooling(tls=trusting(authority), proxy=rules) as pool:
                for _ in range(2):
                    sink = await ask(pool, Origin("https", "api.example", server.port))
                    assert await sink.ended is None
                    assert sink.body == b"hi"
            assert len(heads) == 1
            lines = heads[0].decode().split("\r\n")
            assert lines[0] == f"CONNECT api.example:{server.port} HTTP/1.1"
            assert "Proxy-Authorization: Basic bWU6cEBzcw==" in lines
            assert server.heads[0].startswith(b"GET /v1 HTTP/1.1\r\n")
            assert b"Proxy" not in server.heads[0]
            await until(lambda: server.lost == 1)

    play(scene())


def test_a_certificate_is_checked_behind_a_tunnel_too(play: Play, authority: trustme.CA) -> None:
    async def scene() -> None:
        async with (
            upstream(certified(authority, "other.example")) as server,
            proxying(b"HTTP/1.1 200 OK\r\n\r\n") as (port, _),
            pooling(tls=trusting(authority), proxy=tunnel_rules(port)) as pool,
        ):
            with pytest.raises(APIConnectionError, match=r"certificate of api\.example"):
                await ask(pool, Origin("https", "api.example", server.port))
            assert pool.sockets == 0

    play(scene())


REFUSALS = {
    b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n": "status 407; check the user and password",
    b"HTTP/1.1 502 Bad\r\n\r\n": "status 502",
    b"HTTP/1.1 200 OK\r\n\r\nextra": "does not answer CONNECT as a proxy would",
    b"nonsense\r\n\r\n": "does not answer CONNECT as a proxy would",
    b"HTTP/1.1 403": "closed the connection instead of opening a tunnel",
}


@pytest.mark.parametrize(("answer", "told"), REFUSALS.items(), ids=range(len(REFUSALS)))
def test_a_proxy_that_refuses_is_named(play: Play, answer: bytes, told: str) -> None:
    async def scene() -> None:
        async with (
            proxying(answer) as (port, _),
            pooling(proxy=tunnel_rules(port)) as pool,
        ):
            with pytest.raises(APIConnectionError) as caught:
                await ask(pool, Origin("https", "api.example", 1))
            assert told in caught.value.message
            assert f"the proxy 127.0.0.1:{port}" in caught.value.message
            assert "p@ss" not in caught.value.message
            assert not caught.value.sent
            assert pool.sockets == 0

    play(scene())


def test_cancelled_amid_a_tunnel_closes_the_socket(play: Play) -> None:
    async def scene() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            gone.set()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        rules = tunnel_rules(server.sockets[0].getsockname()[1])
        async with pooling(proxy=rules) as pool:
            task = asyncio.create_task(ask(pool, Origin("https", "api.example", 443)))
            await asked.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await gone.wait()
            assert pool.sockets == 0
        server.close()
        await server.wait_closed()

    play(scene())


def test_plain_http_gives_the_proxy_the_whole_url(play: Play) -> None:
    async def scene() -> None:
        async with upstream(None) as proxy:
            rules = ProxyRules.from_environment(
                {"HTTP_PROXY": f"http://me:pw@127.0.0.1:{proxy.port}"}
            )
            async with pooling(proxy=rules) as pool:
                sink = await ask(pool, Origin("http", "api.example", 8080))
                assert await sink.ended is None
            lines = proxy.heads[0].split(b"\r\n")
            assert lines[0] == b"GET http://api.example:8080/v1 HTTP/1.1"
            assert b"Host: api.example:8080" in lines
            assert b"Proxy-Authorization: Basic bWU6cHc=" in lines

    play(scene())


def test_a_proxy_shows_no_password() -> None:
    rules = tunnel_rules(1)
    assert isinstance(rules.https, Proxy)
    assert rules.https.authorization.startswith("Basic ")
    assert "Basic" not in repr(rules)
