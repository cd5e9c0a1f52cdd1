"""This file knows how tests get a gateway over a real socket, with the sandbox behind it."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import openai
import pytest

from droveway.clock import Clock, SystemClock
from droveway.engine.engine import Engine
from droveway.errors import InvalidKeyError
from droveway.gateway.app import Gateway
from droveway.gateway.server import Served, listen
from droveway.sandbox import Sandbox, Seen
from lab import INSTANT

SECRET = "dw_test"
VENDOR_KEY = "sk-vendor"
MODEL = "plain"
WAIT_S: Final = 5.0
START_S: Final = 10.0
HI: list[Any] = [{"role": "user", "content": "Say hi."}]


class FakeKey(msgspec.Struct, frozen=True, kw_only=True):
    id: str = "key_1"
    account: str | None = None
    tags: dict[str, str] = msgspec.field(default_factory=lambda: {"team": "blue"})
    models: tuple[str, ...] | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    weight: int = 1


class Door(msgspec.Struct, kw_only=True):
    """A gateway that listens, and what stands behind it."""

    url: str
    gateway: Gateway
    engine: Engine
    box: Sandbox
    server: Served

    @property
    def sdk(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=SECRET, max_retries=0)


@asynccontextmanager
async def door(
    key: FakeKey | None = None,
    *,
    keepalive_s: float = 15,
    clock: Clock | None = None,
    **sandbox: Any,
) -> AsyncIterator[Door]:
    def find(secret: str) -> FakeKey:
        if secret != SECRET:
            raise InvalidKeyError("this API key opens nothing here")
        return key or FakeKey()

    options = {"profile": INSTANT, "journal_bodies": True, **sandbox}
    async with (
        Sandbox(**options) as box,
        Engine.at(box.base_url, VENDOR_KEY, clock=clock) as engine,
    ):
        streams = msgspec.structs.replace(engine.settings.streams, keepalive_s=keepalive_s)
        engine.settings = msgspec.structs.replace(engine.settings, streams=streams)
        gateway = Gateway(engine, find_key=find)
        async with Served(gateway, listen("127.0.0.1", 0), drain_s=5) as server:
            yield Door(url=server.url, gateway=gateway, engine=engine, box=box, server=server)


async def raw(door: Door, body: bytes, *headers: str, path: str = "/v1/chat/completions") -> bytes:
    """Send bytes, return all bytes that come back until the server closes."""
    host, port = door.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [
        f"POST {path} HTTP/1.1",
        "host: x",
        f"content-length: {len(body)}",
        "connection: close",
        *headers,
    ]
    if not any(line.lower().startswith(("authorization", "x-api-key")) for line in headers):
        lines.append(f"authorization: Bearer {SECRET}")
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


class SteadyClock(SystemClock):
    """The machine's clock without chance: a retry that has a backoff waits for the least of it."""

    def jitter(self) -> float:
        return 0.0


@contextmanager
def running_gateway(**settings: Any) -> Iterator[Door]:
    """Run a gateway and its sandbox on a thread of their own, for clients without an event loop.

    Args:
        **settings: What `door` takes.

    Yields:
        The gateway, listening.
    """
    started = threading.Event()
    running: list[tuple[Door, Callable[[], object]]] = []
    failed: list[BaseException] = []

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with door(**settings) as it:
            running.append((it, lambda: loop.call_soon_threadsafe(stopped.set)))
            started.set()
            await stopped.wait()

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work, name="gateway", daemon=True)
    thread.start()
    assert started.wait(START_S), "the gateway does not start"
    if failed:
        raise failed[0]
    it, stop = running[0]
    try:
        yield it
    finally:
        stop()
        thread.join(START_S)
        assert not thread.is_alive(), "the gateway does not stop"
    if failed:
        raise failed[0]


@dataclass(frozen=True)
class Way:
    """One of the two ways to the sandbox."""

    door: Door
    through: bool

    @property
    def options(self) -> dict[str, Any]:
        url = f"{self.door.url}/v1" if self.through else self.door.box.base_url
        key = SECRET if self.through else VENDOR_KEY
        return {"base_url": url, "api_key": key, "max_retries": 0, "timeout": 10}

    def sdk(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(**{**self.options, **options})

    def async_sdk(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**{**self.options, **options})

    @property
    def seen(self) -> list[Seen]:
        """What the vendor saw."""
        return self.door.box.journal

    @property
    def body(self) -> Any:
        """The last body that the vendor saw."""
        return json.loads(self.seen[-1].body or b"")


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does, but not for ever."""
    never = threading.Event()
    for _ in range(int(WAIT_S / 0.005)):
        if condition():
            return
        never.wait(0.005)
    pytest.fail(f"did not come true within {WAIT_S} s")
