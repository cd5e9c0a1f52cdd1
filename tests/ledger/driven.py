"""This file knows a machine of hypothesis that drives a real store beside the model."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from books import AT
from droveway.ledger import Epoch, faults
from droveway.ledger.book import open_account
from droveway.money import Money
from droveway.storage import Store
from ledger import deeds
from ledger.deeds import Deed, came_of
from ledger.model import Model
from ledger.pictures import Kept, seen

T = TypeVar("T")
NUMBER = st.integers(0, 9)
OTHER: Final = {"USD": "CNY", "CNY": "USD"}
# Also a clock that is set an hour back, and one that is set a year ahead.
SPANS = st.sampled_from([0.1, 1, 5, 24, 8 * 24, -1, 365 * 24])


class Driven(RuleBasedStateMachine):
    """A store and the model, in which processes begin and die while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "a.db")
        self.runner = asyncio.Runner()
        self.model = Model()
        self.alive: dict[str, Epoch] = {}
        self.dead: list[str] = []
        self.now = AT

    def teardown(self) -> None:
        self.begin()  # it resolves what the dead have left
        for epoch_id, epoch in self.alive.items():
            self.run_(epoch.end(at=self.now))
            self.model.end_epoch(epoch_id, at=self.now)
        self.it_is_as_the_model_says()
        self.the_ledger_is_as_it_must_be()
        assert all(kept.held == 0 for kept in self.model.accounts.values())
        self.runner.close()
        self.store.close()
        shutil.rmtree(self.folder)

    def run_(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await work

        return self.runner.run(bounded())

    def tick(self) -> datetime:
        """The next moment; no two are the same."""
        self.now += timedelta(microseconds=1)
        return self.now

    def do(self, *done: Deed) -> list[object]:
        """Do it in the model and in the store, in one group: the same comes of both."""
        foretold = [deed.foretold(self.model) for deed in done]

        async def together() -> list[Any]:
            works = (self.store.write(deed.real) for deed in done)
            return await asyncio.gather(*works, return_exceptions=True)

        came = [
            came_of(each, each if isinstance(each, Exception) else None)
            for each in self.run_(together())
        ]
        assert came == foretold
        return came

    # Time and processes.

    @rule(hours=SPANS)
    def pass_time(self, hours: float) -> None:
        self.now += timedelta(hours=hours)

    @rule()
    def begin(self) -> None:
        at = self.tick()
        epoch = self.run_(Epoch.begin(self.store, at=at))
        self.alive[epoch.id] = epoch
        while self.dead:
            self.model.end_epoch(self.dead.pop(), at=at)

    @rule(number=NUMBER)
    def die(self, number: int) -> None:
        epoch = self.alive.pop(self.one_of_the_living(number))
        self.dead.append(epoch.id)
        os.close(epoch._lock)

    def one_of_the_living(self, number: int) -> str:
        if not self.alive:
            self.begin()
        return list(self.alive)[number % len(self.alive)]

    # Accounts.

    def open_account(self, currency: str) -> str:
        """With something in it, or hardly anything would ever be held."""
        name, at = f"account {len(self.model.accounts)}", self.tick()
        account = self.run_(
            self.store.write(lambda db: open_account(db, name, currency=currency, at=at))
        )
        self.model.accounts[account] = Kept(currency)
        self.do(deeds.top_up(account, Money(50, currency), reference=name, at=self.tick()))
        return account

    def money(self, nano: int, account: str, *, own: bool = True) -> Money:
        currency = self.model.accounts[account].currency
        return Money(nano, currency if own else OTHER[currency])

    # What must be true.

    @invariant()
    def the_ledger_is_as_it_must_be(self) -> None:
        assert faults(self.store) == []

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        assert seen(self.store, self.now) == self.model.seen(self.now)
