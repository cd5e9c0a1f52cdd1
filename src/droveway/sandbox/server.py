"""This file knows how to run a sandbox: on the loop at hand, or on a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from types import TracebackType
from typing import Any, Final, Self, cast

import msgspec

from droveway.clock import Clock, SystemClock
from droveway.sandbox.answer import chance_of, compose
from droveway.sandbox.asked import RefusedError, read_request
from droveway.sandbox.chunks import Label, stream_reply, usage_of
from droveway.sandbox.connection import Connection
from droveway.sandbox.journal import Journal, Seen
from droveway.sandbox.limits import Limits
from droveway.sandbox.profile import Profile
from droveway.sandbox.script import Director, Script
from droveway.sandbox.tokens import prompt_tokens
from droveway.sandbox.vendor import Terms, Vendor

_BACKLOG: Final = 2048
_START_S: Final = 10.0
_STREAM_BYTES_CREATED: Final = 1_795_392_000


class Sandbox:
    """A provider that is not there: OpenAI's chat completions on a real socket.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        seed: Seed of every answer, pace and probability.
        profile: Pace and length of answers.
        limits: Rate limits for each API key and model.
        script: Rules for faults and answers; its seed, profile and limits count where none is
            given here.
        api_keys: Keys that are known; None takes any, and none.
        clock: Waits and tells the time.
        journal_bodies: Whether the journal keeps the raw request bodies.
        journal_most: How many requests the journal keeps at least.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        seed: int | None = None,
        profile: Profile | None = None,
        limits: Limits | None = None,
        script: Script | None = None,
        api_keys: Collection[str] | None = None,
        clock: Clock | None = None,
        journal_bodies: bool = False,
        journal_most: int = 50_000,
    ) -> None:
        script = script or Script()
        self._host = host
        self._port = port
        self._seed = seed if seed is not None else script.seed or 0
        self._clock = clock or SystemClock()
        self._journal = Journal(journal_most)
        terms = Terms(
            seed=self._seed,
            profile=profile or script.profile or Profile(),
            limits=limits or script.limits or Limits(),
            api_keys=None if api_keys is None else frozenset(api_keys),
            journal_bodies=journal_bodies,
        )
        director = Director(script, self._seed)
        self._vendor = Vendor(terms, director, self._journal, clock=self._clock)
        self._numbers = count(1)
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._emptied = asyncio.Event()

    @property
    def port(self) -> int:
        """The port that it listens on.

        Raises:
            RuntimeError: It was not started.
        """
        if self._server is None:
            raise RuntimeError("the sandbox is not running; start it first")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """`http://HOST:PORT`, the base URL of DeepSeek's kind."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The base URL of OpenAI's kind; it ends in `/v1`."""
        return f"{self.url}/v1"

    @property
    def journal(self) -> list[Seen]:
        """What it saw, oldest first: a copy of the list, of records that still change."""
        return self._journal.all()

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def forget(self) -> None:
        """Empty the journal."""
        self._journal.forget()

    def direct(self, script: Script) -> None:
        """Follow the rules of another script from now on; their counts begin anew."""
        self._vendor.director = Director(script, self._seed)

    def set_balance(self, topped_up: str, *, granted: str = "0.00", currency: str = "USD") -> None:
        """Say what `GET /user/balance` tells is left, in one currency; answers cost nothing.

        Args:
            topped_up: What was paid in and is left, as a decimal string.
            granted: What is left of gifts, likewise; the total is the sum of both.
            currency: Of both.
        """
        self._vendor.purse.put(currency, topped_up=topped_up, granted=granted)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The port is taken.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._protocol, self._host, self._port, backlog=_BACKLOG
        )

    async def close(self) -> None:
        """Stop listening and drop every connection; harmless when it is closed."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for connection in list(self._connections):
            connection.abort()
        while self._connections:
            self._emptied.clear()
            await self._emptied.wait()
        await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _protocol(self) -> asyncio.Protocol:
        connection = Connection(
            self._vendor, next(self._numbers), clock=self._clock, lost=self._disconnect
        )
        self._connections.add(connection)
        # It has the shape; to inherit would only bring empty methods.
        return cast("asyncio.Protocol", connection)

    def _disconnect(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()


async def serve(box: Sandbox, *, ready: Callable[[Sandbox], None] | None = None) -> None:
    """Run a sandbox until this is cancelled.

    Args:
        box: A sandbox that was not started.
        ready: Called once it listens; a command line prints its URL there.
    """
    async with box:
        if ready is not None:
            ready(box)
        await asyncio.get_running_loop().create_future()


@contextmanager
def running_sandbox(box: Sandbox | None = None, **settings: Any) -> Iterator[Sandbox]:  # noqa: ANN401 those of Sandbox
    """Run a sandbox on a thread of its own, for code without an event loop.

    Args:
        box: A sandbox that was not started; None makes one.
        **settings: What `Sandbox` takes, when none is given.

    Yields:
        The sandbox, listening.
    """
    box = box or Sandbox(**settings)
    started = threading.Event()
    failed: list[OSError] = []
    stop: list[Callable[[], asyncio.Handle]] = []

    async def run() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
        try:
            async with box:
                started.set()
                await stopped.wait()
        except OSError as error:
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="sandbox", daemon=True)
    thread.start()
    started.wait(_START_S)
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield box
    finally:
        stop[0]()
        thread.join(_START_S)


@contextmanager
def refused_port() -> Iterator[int]:
    """Keep a port on which connections are refused: it is bound, and nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def stream_bytes(
    request: Mapping[str, Any] | bytes, *, seed: int = 0, profile: Profile | None = None
) -> bytes:
    """Write the whole body of the stream that answers a request, without a server.

    Args:
        request: The chat request, as fields or as JSON; a fault in its model's name is ignored.
        seed: The seed.
        profile: Lengths; its pace does not matter.

    Returns:
        Server-sent events, before HTTP framing; always the same for the same request.

    Raises:
        ValueError: The request is not in order.
    """
    body = request if isinstance(request, bytes) else msgspec.json.encode(request)
    try:
        asked = read_request(body)
    except RefusedError as refused:
        raise ValueError(refused.message) from None
    profile = profile or Profile(instant=True)
    chance = chance_of(asked, seed)
    said = compose(asked, chance, profile)
    usage = usage_of(said, len(prompt_tokens(asked.messages, asked.tools)), 0)
    label = Label("chatcmpl-sandbox-0", _STREAM_BYTES_CREATED, asked.model)
    told = usage if asked.include_usage else None
    return stream_reply(label, said, told, chance=chance, profile=profile).body
