"""This file knows how tests get a vendor's bill: by what the sandbox itself says it has answered."""

import csv
import io
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from droveway.catalog.pricelists import built_in_book
from droveway.chat import Usage
from droveway.clock import StillClock
from droveway.engine.engine import Engine
from droveway.engine.journal_store import StoredJournal
from droveway.engine.records import AttemptEntry
from droveway.engine.records import Row as Kept
from droveway.money import Money
from droveway.resilience.retry import RetryPolicy
from droveway.sandbox import Profile, Rule, Sandbox, Script
from droveway.sandbox.journal import Seen
from droveway.settings import ProviderSettings, Settings
from droveway.storage import Store
from lab import ask, converse, terms

# A Monday before the first peak of DeepSeek's prices.
AT: Final = datetime(2026, 11, 23, 0, 30, tzinfo=UTC)
MODELS: Final = ("deepseek-flash", "deepseek-v4-pro")
PICO: Final = Decimal(10) ** 12

# Some are refused, and asked again at once: the journal's clock stands still.
REFUSING: Final = Script(rules=tuple(Rule(nth=nth, fault="500") for nth in (3, 10, 40)))
AGAIN: Final = RetryPolicy(max_attempts=3, base_s=0.0)

Row = dict[str, Any]


def kept(
    number: int = 0, *, model: str = "deepseek-flash", cost: Money | None = None, **fields: Any
) -> Kept:
    """A row of the journal, of a request with one attempt."""
    usage = fields.pop("usage", Usage(input=10, output=5))
    told = {"usage": usage, "cost": cost, "outcome": "completed"}
    account = fields.pop("account", 1)
    entry = AttemptEntry(provider="deepseek", account=account, model=model, at=AT, **told)
    return Kept(
        **{"id": f"req_{number}", "at": AT, "asked": model, "own_cost": cost, **told,
           "attempts": (entry,), **fields}
    )  # fmt: skip


@asynccontextmanager
async def deepseek(
    store: Store, clock: StillClock, *, accounts: int = 1
) -> AsyncIterator[tuple[Sandbox, Engine]]:
    """A sandbox that is called deepseek, and an engine that asks it and keeps a journal."""
    keys = {f"KEY_{number}": f"k-{number}" for number in range(1, accounts + 1)}
    async with Sandbox(profile=Profile(instant=True), clock=clock) as box:
        references = tuple(f"env:{name}" for name in keys)
        told = ProviderSettings(base_url=box.base_url, api_keys=references)
        journal = StoredJournal(store, clock=clock)
        settings = Settings(providers={"deepseek": told})
        async with Engine(settings, environ=keys, clock=clock, journal=journal) as engine:
            yield box, engine
        await journal.aclose()


async def worked(store: Store, *, hours: int = 30) -> list[Seen]:
    """Have requests answered over some hours, and return what the vendor saw of them.

    Every hour one of each model, streams and whole answers in turn; some are answered at the
    second attempt only, and the same prompts come again, so that caches are read.
    """
    clock = StillClock(AT)
    async with deepseek(store, clock) as (box, engine):
        box.direct(REFUSING)
        for hour in range(hours):
            for model in MODELS:
                text = f"Tell me something short about the number {hour % 5}. " * 20
                asked = ask(text, model=f"deepseek/{model}", stream=bool(hour % 2))
                exchange, _ = await converse(engine, asked, terms(AGAIN))
                assert exchange.error is None
            await clock.advance(3600)
        return [seen for seen in box.journal if seen.status == 200]


def billed(seen: Iterable[Seen]) -> list[Row]:
    """A row for each answer, as the vendor would bill it: by its own counts and list prices."""
    book = built_in_book()
    rows: list[Row] = []
    for each in seen:
        assert each.model is not None
        price = book.lookup(
            provider="deepseek",
            prices="deepseek",
            model=each.model,
            at=each.at,
            currency="USD",
            input_tokens=each.prompt_tokens,
        )
        miss = each.prompt_tokens - each.cached_tokens
        assert price.cached_read is not None
        pico = price.input * miss + price.cached_read * each.cached_tokens
        rows.append(
            {
                "at": each.at,
                "model": each.model,
                "hit": each.cached_tokens,
                "miss": miss,
                "out": each.completion_tokens,
                "cost": Decimal(pico + price.output * each.completion_tokens) / PICO,
                "prices": (price.input, price.cached_read, price.output),
            }
        )
    return rows


def wide(rows: Iterable[Row]) -> str:
    """An export with a row for each answer."""
    return _written(
        ["created_at", "model", "generation_id", "input_cache_hit_tokens",
         "input_cache_miss_tokens", "output_tokens", "cost", "currency"],
        [
            [row["at"].isoformat(), row["model"], number, row["hit"], row["miss"], row["out"],
             f"{row['cost']:.16f}", "USD"]
            for number, row in enumerate(rows)
        ],
    )  # fmt: skip


def deepseeks(rows: Iterable[Row], *, offset_h: int = 8) -> tuple[str, str]:
    """The two files of DeepSeek's export, by days of some offset: quantities and costs."""
    days: dict[tuple[datetime, str], list[Row]] = {}
    for row in rows:
        local = row["at"] + timedelta(hours=offset_h)
        days.setdefault((local.replace(hour=0, minute=0), row["model"]), []).append(row)
    amounts, costs = [], []
    sign = f"{offset_h:+03d}:00"
    for (day, model), each in days.items():
        start = day.strftime("%Y-%m-%dT%H:%M:%S") + sign
        end = (day + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S") + sign
        head = ["u1", start, end, model]
        for price in sorted({row["prices"] for row in each}):
            alike = [row for row in each if row["prices"] == price]
            for kind, name, pico in zip(
                ("input_cache_miss_tokens", "input_cache_hit_tokens", "output_tokens"),
                ("miss", "hit", "out"),
                price,
                strict=True,
            ):
                amount = sum(row[name] for row in alike)
                per_token = f"{Decimal(pico) / PICO:.12f}"
                amounts.append([*head, "a key", "sk-***1", kind, per_token, amount])
        amounts.append([*head, "a key", "sk-***1", "request_count", "", len(each)])
        costs.append([*head, "Paid", f"{sum(row['cost'] for row in each):.16f}", "USD"])
    begin = ["user_id", "start_time_iso", "end_time_iso", "model"]
    return (
        _written([*begin, "api_key_name", "api_key", "type", "price", "amount"], amounts),
        _written([*begin, "wallet_type", "cost", "currency"], costs),
    )


def _written(header: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()
