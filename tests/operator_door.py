"""This file knows how tests get a gateway with its admin API over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from door import SECRET, FakeKey
from droveway.accounts import KeyRing
from droveway.engine.desk import Desk
from droveway.engine.engine import Engine
from droveway.engine.journal_store import StoredJournal
from droveway.gateway.admin import Admin, Administration
from droveway.gateway.app import Gateway
from droveway.gateway.reloading import Reloaded
from droveway.gateway.server import Served, listen
from droveway.sandbox import Sandbox
from droveway.settings import BillingSettings, ProviderSettings, Secret, Settings
from droveway.storage import Store
from lab import INSTANT

TOKEN = "an-operators-own-token"
VENDOR_KEY = "sk-vendor-own-key"


class Reload:
    """A reload that comes to what it was told."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.generation = 1

    async def __call__(self) -> Reloaded:
        if self.error is not None:
            raise self.error
        self.generation += 1
        return Reloaded(generation=self.generation, restart_needed=("server.port",))


class OperatorDoor(msgspec.Struct, kw_only=True):
    """A gateway that listens, and what stands behind it."""

    url: str
    secret: str = SECRET
    gateway: Gateway
    engine: Engine
    box: Sandbox
    keys: KeyRing
    journal: StoredJournal
    store: Store
    desk: Desk
    reload: Reload


@asynccontextmanager
async def operator_door(
    folder: Path, *, billing: BillingSettings | None = None, **sandbox: Any
) -> AsyncIterator[OperatorDoor]:
    billing, store = billing or BillingSettings(), Store(folder / "door.db")
    keys, journal, reload = KeyRing(store), StoredJournal(store), Reload()
    await keys.add("alice")
    async with Sandbox(**{"profile": INSTANT, **sandbox}) as box:
        vendor = ProviderSettings(base_url=box.base_url, api_key="env:VENDOR_KEY", concurrency=8)
        settings = Settings(providers={"vendor": vendor}, billing=billing)
        environ = {"VENDOR_KEY": VENDOR_KEY}
        async with Engine(settings, environ=environ, journal=journal) as engine:
            # One key that no operator can take back, and the keys of the ring.
            gateway = Gateway(
                engine, find_key=lambda plain: FakeKey() if plain == SECRET else keys.find(plain)
            )
            desk = Desk(store, billing)
            admin = Admin(
                Administration(
                    token=Secret(TOKEN),
                    keys=keys,
                    journal=journal,
                    store=store,
                    engine=lambda: gateway.engine,
                    desk=lambda: desk,
                    reload=reload,
                )
            )
            gateway.admin, gateway.let_operator_in = admin.serve, admin.let_in
            async with Served(gateway, listen("127.0.0.1", 0), drain_s=5) as server:
                yield OperatorDoor(
                    url=server.url,
                    gateway=gateway,
                    engine=engine,
                    box=box,
                    keys=keys,
                    journal=journal,
                    store=store,
                    desk=desk,
                    reload=reload,
                )
    await journal.aclose()
    await store.aclose()


class Said(msgspec.Struct):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> Mapping[str, Any]:
        """The error object; anything else in its place fails."""
        told = self.told
        assert set(told) == {"error"}
        assert set(told["error"]) == {"message", "type", "param", "code"}
        assert self.headers["content-type"] == "application/json"
        return dict(told["error"])


async def send(
    door: OperatorDoor, line: str, body: object = None, *headers: str, token: str | None = TOKEN
) -> Said:
    """Send a request such as "GET /admin/v1/keys", and return the answer."""
    data = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
    host, port = door.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"{line} HTTP/1.1", "host: x", "connection: close", f"content-length: {len(data)}"]
    if token is not None:
        lines.append(f"authorization: Bearer {token}")
    writer.write("\r\n".join([*lines, *headers]).encode("latin-1") + b"\r\n\r\n" + data)
    await writer.drain()
    head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    first, *others = head.decode("latin-1").split("\r\n")
    told = dict(each.lower().split(": ", 1) for each in others)
    return Said(int(first.split(" ")[1]), told, rest)
