"""This file knows the demo's prepaid account, and proves its statement by what the provider saw."""

import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from droveway.catalog.pricebook import PriceBook, price
from droveway.chat import Usage
from droveway.cli.same_tokens import CHEAP_MODEL
from droveway.clock import Clock
from droveway.engine.billing import billing_of
from droveway.engine.desk import Desk
from droveway.engine.records import Row
from droveway.engine.till import Till, Tills
from droveway.ledger import Epoch, faults
from droveway.money import Money
from droveway.sandbox import Seen
from droveway.settings import BillingSettings
from droveway.storage import Store

TERMS: Final = BillingSettings(enabled=True, signup_credit="0.01")
NAME: Final = "demo"
TOPPED_UP: Final = Money.parse("5.00", TERMS.currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What the demo's account came to.

    Attributes:
        topped_up: Money that was paid in.
        credit: Promotional credit of the sign-up, which is spent first.
        charged: What the statement says was used.
        charges: By how many requests.
        vendor: What the provider's own journal comes to, its tokens times the price rows, for the
            requests whose tokens it told.
        told: How many those were.
        counted: What was charged for requests whose tokens it did not tell, by our own count.
        left: What is left.
        faults: What is wrong with the ledger; none where it is as it must be.
    """

    topped_up: Money
    credit: Money
    charged: Money
    charges: int
    vendor: Money
    told: int
    counted: Money
    left: Money
    faults: int

    @property
    def unexplained(self) -> Money:
        """What the statement says beyond what was told and counted: nothing."""
        return self.charged - self.vendor - self.counted

    @property
    def is_right(self) -> bool:
        """Whether it is right to the nano-unit, and the ledger is sound."""
        return not self.unexplained.nano and not self.faults


class DemoTill:
    """The till of the demo's account, and the rows that were paid there.

    Attributes:
        till: Where requests are paid.
    """

    def __init__(self, till: Till, desk: Desk, store: Store) -> None:
        self.till = till
        self._desk = desk
        self._store = store
        self._rows: list[Row] = []

    def note(self, row: Row) -> None:
        """Take note of a row."""
        self._rows.append(row)

    def bill(self, journal: Iterable[Seen], book: PriceBook) -> Bill:
        """Read the statement, and price what the provider saw.

        Args:
            journal: What the provider saw.
            book: Prices.
        """
        seen = {each.id: each for each in journal}
        vendor = counted = Money.zero(TERMS.currency)
        told = 0
        for row in self._rows:
            if row.usage is None or row.cost is None:
                continue
            if row.usage.source == "provider":
                vendor += _price_of(seen[str(row.attempts[-1].vendor_id)], row, book)
                told += 1
            else:
                counted += row.cost
        entries = self._desk.book.entries(NAME)
        account = self._desk.book.show(NAME)
        used = [each for each in entries if each.kind == "usage"]
        return Bill(
            topped_up=TOPPED_UP,
            credit=Money.parse(TERMS.signup_credit, TERMS.currency),
            charged=Money(-sum(each.amount.nano for each in used), TERMS.currency),
            charges=len({each.reference for each in used}),
            vendor=vendor,
            told=told,
            counted=counted,
            left=account.available,
            faults=len(faults(self._store)),
        )


@asynccontextmanager
async def demo_till(clock: Clock) -> AsyncIterator[DemoTill]:
    """Open the demo's account in a store of its own, which goes with the block."""
    async with AsyncExitStack() as closing:
        folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="droveway-demo-"))
        store = Store(Path(folder) / "demo.db", clock=clock)
        closing.push_async_callback(store.aclose)
        desk = Desk(store, TERMS, clock=clock)
        account = await desk.open_account(NAME)
        await desk.top_up(NAME, TOPPED_UP, reference="demo")
        epoch = await Epoch.begin(store, at=clock.now())
        closing.push_async_callback(lambda: epoch.end(at=clock.now()))
        tills = Tills(store, epoch, billing=billing_of(TERMS), clock=clock)
        closing.push_async_callback(tills.aclose)
        yield DemoTill(tills.of(account.id), desk, store)


def _price_of(seen: Seen, row: Row, book: PriceBook) -> Money:
    """Price one request by the provider's own count, at the row in force when it was sent."""
    usage = Usage(
        input=seen.prompt_tokens - seen.cached_tokens,
        cached_read=seen.cached_tokens,
        output=seen.completion_tokens,
    )
    attempt = row.attempts[-1]
    found = book.lookup(
        provider=attempt.provider,
        prices=None,
        model=CHEAP_MODEL,
        at=attempt.at,
        currency=TERMS.currency,
        input_tokens=usage.input_total,
    )
    return price(usage, found)
