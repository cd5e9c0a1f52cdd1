"""This file knows how tests get a gateway before a narrow vendor, with a key for each caller."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from door import FakeKey
from droveway.engine.engine import Engine
from droveway.gateway.app import Gateway
from droveway.gateway.server import Served, listen
from droveway.resilience.pacing import Pacer
from droveway.routing.plan import Candidate
from droveway.sandbox import Sandbox
from droveway.settings import ProviderSettings, Settings, StreamsSettings
from lab import INSTANT

MODEL = "model"
WAIT_S = 60


class CrowdedDoor(msgspec.Struct, kw_only=True):
    """A gateway that listens, and what stands behind it."""

    url: str
    engine: Engine
    box: Sandbox

    @property
    def pacer(self) -> Pacer:
        return self.engine.line_of(Candidate("vendor", MODEL)).pacer

    async def wait_for(self, waiting: int) -> None:
        """Wait until so many stand in line."""
        async with asyncio.timeout(WAIT_S):
            while self.pacer.waiting != waiting:
                await asyncio.sleep(0.002)


@asynccontextmanager
async def crowded_door(
    *, concurrency: int, waiting_max: int = 10_000, total_s: float = WAIT_S, **sandbox: Any
) -> AsyncIterator[CrowdedDoor]:
    """A gateway where a secret is the name of its key; what follows a slash is the key's role."""

    def find(secret: str) -> FakeKey:
        name, _, role = secret.partition("/")
        return FakeKey(id=name, tags={"role": role} if role else {})

    async with Sandbox(**{"profile": INSTANT, **sandbox}) as box:
        vendor = ProviderSettings(
            base_url=box.base_url, concurrency=concurrency, waiting_max=waiting_max
        )
        streams = StreamsSettings(connect_s=5, first_token_s=WAIT_S, idle_s=WAIT_S, total_s=total_s)
        settings = Settings(providers={"vendor": vendor}, streams=streams)
        async with Engine(settings, environ={}) as engine:
            gateway = Gateway(engine, find_key=find)
            async with Served(gateway, listen("127.0.0.1", 0), drain_s=5) as server:
                yield CrowdedDoor(url=server.url, engine=engine, box=box)


class Told(msgspec.Struct):
    """An answer as it came, and whose it was."""

    secret: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        return msgspec.json.decode(self.body)["error"]


async def call(door: CrowdedDoor, secret: str, *, order: list[Told] | None = None) -> Told:
    """Ask for one whole answer on a connection of one's own."""
    body = msgspec.json.encode(
        {"model": MODEL, "messages": [{"role": "user", "content": f"from {secret}"}]}
    )
    host, port = door.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: x",
        f"content-length: {len(body)}",
        "connection: close",
        f"authorization: Bearer {secret}",
    ]
    try:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    await writer.wait_closed()
    first, *others = head.decode("latin-1").split("\r\n")
    headers = dict(each.lower().split(": ", 1) for each in others)
    told = Told(secret, int(first.split(" ")[1]), headers, rest)
    if order is not None:
        order.append(told)
    return told
