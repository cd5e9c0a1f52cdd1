"""This file knows how the fault tests get an engine, and a gateway whose one key pays, anywhere.

It differs from `paying.paid` in three things: the vendor is whoever listens at a URL, speaks in an
accent, and chance is taken out of the waits.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from door import SECRET, FakeKey, SteadyClock
from droveway.engine.engine import Engine
from droveway.engine.journal_store import StoredJournal
from droveway.engine.till import Tills
from droveway.errors import InvalidKeyError
from droveway.gateway.app import Gateway
from droveway.gateway.server import Served, listen
from droveway.ledger import Book, Epoch, faults
from droveway.money import Money
from droveway.sandbox import Profile
from droveway.settings import (
    BillingSettings,
    PriceSettings,
    ProviderSettings,
    Settings,
    StreamsSettings,
)
from droveway.storage import Store
from faults.matrix import Accent

MODELS: Final[dict[Accent, str]] = {"plain": "plain", "deepseek": "deepseek-flash"}
# Long enough that every cut of the matrix falls within a whole answer, too: where an answer is
# complete and its vendor hangs up unannounced, the next request on that connection may be lost.
SPEECH: Final = Profile(instant=True, answer_tokens=80, answer_sigma=0.0, reasoning_tokens=4)
PRICE: Final = PriceSettings(input="1", output="2", cached="0.5")
INPUT_NANO, CACHED_NANO, OUTPUT_NANO = 1_000, 500, 2_000
ROOMY: Final = StreamsSettings(connect_s=10, first_token_s=10, idle_s=10, total_s=20)
HASTY: Final = StreamsSettings(connect_s=0.9, first_token_s=0.25, idle_s=0.25, total_s=0.95)
# For a vendor that is silent once: its second answer must not be late on a busy machine.
FORGIVING: Final = StreamsSettings(connect_s=10, first_token_s=0.4, idle_s=1, total_s=20)
HOLDS: Final = "SELECT state, charged_nano FROM hold ORDER BY id"


class Stand(msgspec.Struct, kw_only=True):
    """A gateway that takes money, and what stands behind it."""

    url: str
    engine: Engine
    book: Book
    store: Store

    def rows(self) -> list[dict[str, Any]]:
        """The journal."""
        names = (
            "id, outcome, code, attempts, cost_nano, usage_source, input, cached_read, output, "
            "own_cost_nano"
        )
        kept = self.store.read(f"SELECT {names} FROM request ORDER BY id")
        return [dict(zip(names.split(", "), row, strict=True)) for row in kept]

    def holds(self) -> list[tuple[str, int]]:
        """How each hold has ended, and what it was charged."""
        return [(str(state), int(charged or 0)) for state, charged in self.store.read(HOLDS)]

    def spent(self) -> list[int]:
        """What was taken from the account for requests, each in nano-units."""
        entries = self.book.entries("alice")
        return [-entry.amount.nano for entry in entries if entry.kind == "usage"]


def settings(
    base_url: str, *, accent: Accent = "plain", streams: StreamsSettings = ROOMY
) -> Settings:
    """One vendor that has every model of this test at one price."""
    return Settings(
        providers={
            "vendor": ProviderSettings(
                base_url=base_url, accent=accent, concurrency=64, failures_max=0
            )
        },
        prices={f"vendor/{model}": PRICE for model in MODELS.values()},
        streams=streams,
    )


@asynccontextmanager
async def standing(folder: Path, told: Settings, *, balance: str = "1.00") -> AsyncIterator[Stand]:
    """A gateway whose one key pays from alice's account; the ledger is checked at the end."""
    clock = SteadyClock()
    told = msgspec.structs.replace(told, billing=BillingSettings(enabled=True))
    store = Store(folder / "money.db")
    epoch = await Epoch.begin(store, at=clock.now())
    book, journal = Book(store), StoredJournal(store)
    account = await book.open("alice")
    await book.top_up("alice", Money.parse(balance, "USD"), reference="first")
    key = FakeKey(account=account.id)

    def find(secret: str) -> FakeKey:
        if secret != SECRET:
            raise InvalidKeyError("this API key opens nothing here")
        return key

    async with Engine(told, environ={}, journal=journal, clock=clock) as engine:
        tills = Tills(store, epoch, billing=engine.billing, clock=clock)
        gateway = Gateway(engine, find_key=find, tills=tills)
        async with Served(gateway, listen("127.0.0.1", 0), drain_s=5) as server:
            yield Stand(url=server.url, engine=engine, book=book, store=store)
    await tills.aclose()
    assert faults(store) == []
    assert book.show("alice").held.nano == 0
    await journal.aclose()
    await epoch.end(at=clock.now())
    await store.aclose()
