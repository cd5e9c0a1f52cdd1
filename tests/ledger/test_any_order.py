"""The ledger against a small model: whatever is done, in whatever order, however often."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from books import AT, captured, extended, released, states, taken, totals
from droveway.errors import BadRequestError, BalanceTooLowError, FrozenAccountError
from droveway.ledger import Account, Book, Epoch, faults
from droveway.ledger.holds import Charged
from droveway.money import Money
from droveway.storage import Store

T = TypeVar("T")
NANO = st.integers(0, 30)
# One of eight is False.
MOSTLY = st.integers(0, 7).map(bool)
CURRENCIES = st.sampled_from(["USD", "CNY"])


@dataclass
class Kept:
    """An account as the model keeps it."""

    currency: str
    posted: int = 0
    held: int = 0
    frozen: bool = False


@dataclass
class Model:
    """What must be true."""

    accounts: dict[str, Kept] = field(default_factory=dict)
    topups: dict[str, tuple[str, int]] = field(default_factory=dict)
    holds: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    came_in: dict[str, int] = field(default_factory=lambda: {"USD": 0, "CNY": 0})
    earned: dict[str, int] = field(default_factory=lambda: {"USD": 0, "CNY": 0})
    lost: dict[str, int] = field(default_factory=lambda: {"USD": 0, "CNY": 0})

    def end(self, hold_id: str, state: str) -> Kept | None:
        """End a hold once; None where it had ended."""
        if self.states.get(hold_id) != "held":
            return None
        account, amount, _ = self.holds[hold_id]
        self.states[hold_id] = state
        self.accounts[account].held -= amount
        return self.accounts[account]

    def capture(self, hold_id: str, cost: int) -> tuple[int, int] | None:
        account = self.end(hold_id, "captured")
        if account is None:
            return None
        paid = min(cost, account.posted - account.held)
        account.posted -= paid
        self.earned[account.currency] += cost
        self.lost[account.currency] += cost - paid
        return paid, cost - paid


class Ledger(RuleBasedStateMachine):
    """Drives a real store beside the model."""

    accounts: Bundle[Account] = Bundle("accounts")
    holds: Bundle[str] = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "a.db")
        self.book = Book(self.store)
        self.runner = asyncio.Runner()
        self.model = Model()
        self.alive: dict[str, Epoch] = {}

    def run_(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await work

        return self.runner.run(bounded())

    def teardown(self) -> None:
        self.begin()  # it resolves what the dead have left
        for epoch in self.alive.values():
            self.run_(epoch.end(at=AT))
        assert faults(self.store) == []
        assert all(each.held.nano == 0 for each in self.book.list())
        self.runner.close()
        self.store.close()
        shutil.rmtree(self.folder)

    @initialize(target=accounts, currency=CURRENCIES)
    def first_account(self, currency: str) -> Account:
        return self.open_account(currency)

    @rule(target=accounts, currency=CURRENCIES)
    def another_account(self, currency: str) -> Account:
        return self.open_account(currency)

    def open_account(self, currency: str) -> Account:
        """With something in it, or hardly anything would ever be held."""
        name = f"account {len(self.model.accounts)}"
        account = self.run_(self.book.open(name, currency=currency))
        self.model.accounts[account.id] = Kept(currency)
        self.top_up(account, 50, word=len(self.model.accounts) + 10)
        return account

    @rule()
    def begin(self) -> None:
        epoch = self.run_(Epoch.begin(self.store, at=AT))
        self.alive[epoch.id] = epoch
        for hold_id, (_, _, owner) in self.model.holds.items():
            if owner not in self.alive:
                self.model.end(hold_id, "resolved")

    @rule(number=st.integers(0, 9))
    def die(self, number: int) -> None:
        if self.alive:
            os.close(self.alive.pop(self.one_of_the_living(number))._lock)

    def one_of_the_living(self, number: int) -> str:
        return list(self.alive)[number % len(self.alive)]

    @rule(account=accounts, nano=st.integers(-1, 60), word=st.integers(0, 9))
    def top_up(self, account: Account, nano: int, word: int) -> None:
        kept, known = self.model.accounts[account.id], self.model.topups.get(f"{word}")
        work = self.book.top_up(account.id, Money(nano, kept.currency), reference=f"{word}")
        if nano <= 0 or known not in (None, (account.id, nano)):
            with pytest.raises(BadRequestError):
                self.run_(work)
            return
        assert self.run_(work).again == (known is not None)
        if known is None:
            self.model.topups[f"{word}"] = (account.id, nano)
            self.model.came_in[kept.currency] += nano
            kept.posted += nano

    @rule(account=accounts, thawed=MOSTLY)
    def freeze(self, *, account: Account, thawed: bool) -> None:
        self.run_((self.book.thaw if thawed else self.book.freeze)(account.id))
        self.model.accounts[account.id].frozen = not thawed

    @rule(target=holds, account=accounts, number=st.integers(0, 9), nano=NANO, own=MOSTLY)
    def take(self, *, account: Account, number: int, nano: int, own: bool) -> str:
        kept, hold_id = self.model.accounts[account.id], f"hold {len(self.model.holds)}"
        currency = kept.currency if own else {"USD": "CNY", "CNY": "USD"}[kept.currency]
        if not self.alive:
            self.begin()
        epoch_id = self.one_of_the_living(number)
        self.model.holds[hold_id] = (account.id, nano, epoch_id)
        expected: type[Exception] | None = None
        if kept.frozen:
            expected = FrozenAccountError
        elif not own:
            expected = BadRequestError
        elif nano > kept.posted - kept.held:
            expected = BalanceTooLowError
        work = taken(self.store, hold_id, Money(nano, currency), account=account, epoch_id=epoch_id)
        if expected is not None:
            with pytest.raises(expected) as refused:
                self.run_(work)
            assert type(refused.value) is expected
        else:
            self.run_(work)
            kept.held += nano
            self.model.states[hold_id] = "held"
        return hold_id

    @rule(hold_id=holds, nano=NANO)
    def extend(self, hold_id: str, nano: int) -> None:
        account_id, amount, owner = self.model.holds[hold_id]
        kept = self.model.accounts[account_id]
        work = extended(
            self.store, hold_id, Money(nano, kept.currency), account=self.book.show(account_id)
        )
        if kept.frozen or nano > kept.posted - kept.held:
            with pytest.raises(FrozenAccountError if kept.frozen else BalanceTooLowError):
                self.run_(work)
            return
        held = self.model.states.get(hold_id) == "held"
        assert self.run_(work) == held
        if held:
            kept.held += nano
            self.model.holds[hold_id] = (account_id, amount + nano, owner)

    @rule(hold_id=holds, cost=st.integers(0, 90))
    def capture(self, hold_id: str, cost: int) -> None:
        currency = self.currency_of(hold_id)
        charged = self.run_(captured(self.store, hold_id, Money(cost, currency)))
        expected = self.model.capture(hold_id, cost)
        assert charged == (expected and Charged(*(Money(nano, currency) for nano in expected)))

    @rule(hold_id=holds, resolved=st.booleans())
    def release(self, *, hold_id: str, resolved: bool) -> None:
        done = self.run_(released(self.store, hold_id, resolved=resolved))
        state = "resolved" if resolved else "released"
        assert done == (self.model.end(hold_id, state) is not None)

    @rule(hold_id=holds, cost=NANO, count=st.integers(2, 5), release_first=st.booleans())
    def end_at_once(self, *, hold_id: str, cost: int, count: int, release_first: bool) -> None:
        """Several come to end it in one group: the first one does."""
        amount = Money(cost, self.currency_of(hold_id))
        ends: list[Coroutine[Any, Any, Any]] = []
        for _ in range(count):
            pair = [released(self.store, hold_id), captured(self.store, hold_id, amount)]
            ends += pair if release_first else pair[::-1]

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*ends)

        ended = self.run_(all_of_them())
        if release_first:
            won = self.model.end(hold_id, "released") is not None
        else:
            won = self.model.capture(hold_id, cost) is not None
        assert [bool(each) for each in ended] == [won] + [False] * (2 * count - 1)

    def currency_of(self, hold_id: str) -> str:
        return self.model.accounts[self.model.holds[hold_id][0]].currency

    @invariant()
    def the_ledger_is_as_it_must_be(self) -> None:
        assert faults(self.store) == []

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        assert states(self.store) == dict(sorted(self.model.states.items()))
        for account in self.book.list():
            kept = self.model.accounts[account.id]
            assert (account.posted.nano, account.held.nano, account.frozen_at is not None) == (
                kept.posted,
                kept.held,
                kept.frozen,
            )
            assert account.available.nano >= 0
        for currency in ("USD", "CNY"):
            told = {kind: money.nano for kind, money in totals(self.store, currency).items()}
            assert told == {
                "clearing": -self.model.came_in[currency],
                "revenue": self.model.earned[currency],
                "loss": -self.model.lost[currency],
            }


@pytest.mark.parametrize(
    ("examples", "steps"), [(30, 30), pytest.param(1_000, 60, marks=pytest.mark.long)]
)
def test_the_ledger_does_what_the_model_does(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Ledger,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
