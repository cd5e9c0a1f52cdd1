"""This file knows how tests get a gateway whose one key pays from a prepaid account."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai

from door import SECRET, FakeKey
from droveway.clock import SystemClock
from droveway.engine.desk import Desk
from droveway.engine.engine import Engine
from droveway.engine.journal_store import StoredJournal
from droveway.engine.till import Tills
from droveway.errors import InvalidKeyError
from droveway.gateway.app import Gateway
from droveway.gateway.server import Served, listen
from droveway.ledger import Account, Book, Epoch, faults
from droveway.money import Money
from droveway.sandbox import Profile, Sandbox
from droveway.settings import BillingSettings, ProviderSettings, Settings
from droveway.storage import Store
from lab import INSTANT

MODEL = "deepseek-flash"
LONG = Profile(
    first_token_s=0.01, token_s=0.0002, tokens_per_chunk=20, answer_tokens=9_000, answer_sigma=0.0
)


class Till(msgspec.Struct, kw_only=True):
    """A gateway where requests are paid, and what stands behind it."""

    url: str
    gateway: Gateway
    engine: Engine
    box: Sandbox
    book: Book
    desk: Desk
    tills: Tills
    store: Store
    server: Served

    @property
    def account(self) -> Account:
        return self.book.show("alice")

    @property
    def sdk(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=SECRET, max_retries=0)


@asynccontextmanager
async def paid(
    folder: Path,
    balance: str = "1.00",
    *,
    billing: BillingSettings | None = None,
    tags: dict[str, str] | None = None,
    **sandbox: Any,
) -> AsyncIterator[Till]:
    """A gateway whose one key pays from alice's account; the ledger is checked at the end."""
    terms = billing or BillingSettings(enabled=True)
    clock = SystemClock()
    store = Store(folder / "money.db")
    epoch = await Epoch.begin(store, at=clock.now())
    book, journal = Book(store), StoredJournal(store)
    account = await book.open("alice")
    await book.top_up("alice", Money.parse(balance, "USD"), reference="first")
    key = FakeKey(account=account.id, tags=tags or {})

    def find(secret: str) -> FakeKey:
        if secret != SECRET:
            raise InvalidKeyError("this API key opens nothing here")
        return key

    async with Sandbox(**{"profile": INSTANT, **sandbox}) as box:
        vendor = ProviderSettings(base_url=box.base_url, prices="deepseek")
        settings = Settings(providers={"vendor": vendor}, billing=terms)
        async with Engine(settings, environ={}, journal=journal) as engine:
            tills = Tills(store, epoch, billing=engine.billing, clock=clock)
            gateway = Gateway(engine, find_key=find, tills=tills)
            async with Served(gateway, listen("127.0.0.1", 0), drain_s=5) as server:
                yield Till(
                    url=server.url,
                    gateway=gateway,
                    engine=engine,
                    box=box,
                    book=book,
                    desk=Desk(store, terms, clock=clock),
                    tills=tills,
                    store=store,
                    server=server,
                )
        await tills.aclose()
        assert faults(store) == []
        assert book.show("alice").held.nano == 0
    await journal.aclose()
    await epoch.end(at=clock.now())
    await store.aclose()


def costs(till: Till) -> int:
    """What the journal says that all requests cost together, in nano-units."""
    rows = till.store.read("SELECT coalesce(sum(cost_nano), 0) FROM request")
    return int(rows[0][0])


def spent(till: Till) -> int:
    """What the ledger says that alice has paid, in nano-units."""
    return -sum(e.amount.nano for e in till.book.entries("alice") if e.kind == "usage")


def dear(till: Till, per_million: str) -> str:
    """Give the model a price, so that a hold of tokens is a hold of money one can count."""
    till.engine.book = till.engine.book.with_own(
        "vendor/dear", input="0", output=per_million, currency="USD"
    )
    return "dear"
