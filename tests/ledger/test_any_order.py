"""The ledger against a small model: whatever is done, in whatever order, however often."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from droveway.errors import DrovewayError
from droveway.ledger import claims
from droveway.ledger.budgets import Period, subjects_of
from droveway.ledger.vouchers import Terms, issue
from droveway.money import Money
from ledger import deeds
from ledger.deeds import ANSWER, Deed
from ledger.driven import NUMBER, Driven
from ledger.pictures import Slip

NANO = st.integers(0, 30)
WORD = st.sampled_from(["one", "two", "three"])
# One of eight is False.
MOSTLY = st.integers(0, 7).map(bool)
CURRENCIES = st.sampled_from(["USD", "CNY"])
PERIODS: st.SearchStrategy[Period] = st.sampled_from(["day", "week", "month", "total"])
SUBJECTS = st.sampled_from(["account", "key:k", "tag:team=a"])
BODIES = st.sampled_from([b"a body", b"a body", b"another"])


class Ledger(Driven):
    """Whatever can be done."""

    accounts: Bundle[str] = Bundle("accounts")
    holds: Bundle[str] = Bundle("holds")
    codes: Bundle[str] = Bundle("codes")

    # Accounts.

    @initialize(target=accounts, currency=CURRENCIES)
    def first_account(self, currency: str) -> str:
        return self.open_account(currency)

    @rule(target=accounts, currency=CURRENCIES)
    def another_account(self, currency: str) -> str:
        return self.open_account(currency)

    @rule(account=accounts, thawed=MOSTLY)
    def freeze(self, *, account: str, thawed: bool) -> None:
        self.do(deeds.freeze(account, thawed=thawed, at=self.tick()))

    # Money that comes in and goes back.

    @rule(account=accounts, nano=st.integers(-1, 60), word=WORD, own=st.booleans())
    def top_up(self, *, account: str, nano: int, word: str, own: bool) -> None:
        paid = self.money(nano, account, own=own)
        self.do(deeds.top_up(account, paid, reference=word, at=self.tick()))

    @rule(number=NUMBER, nano=st.none() | st.integers(-1, 40), word=WORD)
    def refund(self, number: int, nano: int | None, word: str) -> None:
        topup = [*self.model.topups, "never"][number % (len(self.model.topups) + 1)]
        known = self.model.topups.get(topup)
        paid = None if nano is None else Money(nano, known.currency if known else "USD")
        self.do(deeds.refund(topup, paid, reference=word, at=self.tick()))

    @rule(account=accounts, nano=NANO, word=WORD, hours=st.integers(0, 60))
    def grant(self, *, account: str, nano: int, word: str, hours: int) -> None:
        amount = self.money(nano, account)
        self.do(deeds.grant(account, amount, reference=word, hours=hours, at=self.tick()))

    @rule()
    def sweep(self) -> None:
        self.do(deeds.sweep(at=self.tick()))

    @rule(
        target=codes,
        amount=st.builds(Money, st.integers(1, 20), CURRENCIES),
        days=st.sampled_from([None, 1]),
        hours=st.sampled_from([None, 3]),
    )
    def issue(self, amount: Money, days: int | None, hours: int | None) -> str:
        at = self.tick()
        until = None if hours is None else at + timedelta(hours=hours)
        terms = Terms(amount=amount, credit_days=days, expires_at=until)
        ((made, code),) = self.run_(self.store.write(lambda db: issue(db, terms, count=1, at=at)))
        self.model.vouchers[code] = Slip(amount.nano, amount.currency, days, until, made.id)
        return code

    @rule(account=accounts, code=codes)
    def redeem(self, account: str, code: str) -> None:
        self.do(deeds.redeem(account, code, at=self.tick()))

    # Budgets.

    @rule(account=accounts, subject=SUBJECTS, period=PERIODS, nano=st.integers(0, 60), own=MOSTLY)
    def set_budget(
        self, *, account: str, subject: str, period: Period, nano: int, own: bool
    ) -> None:
        amount = self.money(nano, account, own=own)
        subject = f"account:{account}" if subject == "account" else subject
        self.do(deeds.set_budget(subject, amount, period=period, at=self.tick()))

    @rule(number=NUMBER)
    def end_budget(self, number: int) -> None:
        known: list[tuple[str, Period]] = [*self.model.budgets, ("key:never", "day")]
        subject, period = known[number % len(known)]
        self.do(deeds.end_budget(subject, period=period, at=self.tick()))

    # Requests.

    @rule(
        target=holds,
        account=accounts,
        number=NUMBER,
        nano=NANO,
        own=MOSTLY,
        tagged=st.booleans(),
        floor=st.sampled_from([0, 0, 0, -20]),
        claim=st.none() | st.tuples(WORD, BODIES),
    )
    def take(
        self,
        *,
        account: str,
        number: int,
        nano: int,
        own: bool,
        tagged: bool,
        floor: int,
        claim: deeds.Claimed | None,
    ) -> str | MultipleResults[str]:
        hold_id = f"hold {len(self.model.holds)}"
        tags = {"team": "a"} if tagged else {}
        deed = deeds.take(
            hold_id,
            self.money(nano, account, own=own),
            account=account,
            epoch=self.one_of_the_living(number),
            at=self.tick(),
            subjects=subjects_of(account, key_id="k", tags=tags),
            floor=floor,
            claim=claim,
        )
        return hold_id if self.do(deed) == [None] else multiple()

    @rule(claim=st.tuples(WORD, BODIES))
    def ask_again(self, claim: deeds.Claimed) -> None:
        """In every state, also after the answer was let go of."""
        at, came = self.tick(), None
        foretold = Deed(lambda _: None, lambda model: model.look(*claim, at=at))
        try:
            told = claims.look(self.store, claims.claim_of("k", *claim), at=at)
        except DrovewayError as refused:
            assert type(refused) is foretold.foretold(self.model)
        else:
            came = None if told is None else told.cost.nano
            assert came == foretold.foretold(self.model)
            assert told is None or told.body == ANSWER

    @rule()
    def forget(self) -> None:
        self.do(deeds.forget(at=self.tick()))

    @rule(hold_id=holds, nano=NANO, floor=st.sampled_from([0, 0, 0, -20]))
    def extend(self, hold_id: str, nano: int, floor: int) -> None:
        account = self.model.holds[hold_id].account
        more, at = self.money(nano, account), self.tick()
        self.do(deeds.extend(hold_id, more, account=account, at=at, floor=floor))

    @rule(hold_id=holds, nano=NANO)
    def outgrow_budgets_that_end(self, hold_id: str, nano: int) -> None:
        held = self.model.holds[hold_id]
        for (subject, period), bound in list(self.model.budgets.items()):
            if any(bound is each for each, _ in held.bounds):
                self.do(deeds.end_budget(subject, period=period, at=self.tick()))
        self.extend(hold_id=hold_id, nano=nano, floor=0)

    @rule(hold_id=holds, nano=NANO)
    def note_progress(self, hold_id: str, nano: int) -> None:
        self.do(deeds.note_progress(hold_id, self.of_hold(nano, hold_id)))

    @rule(hold_id=holds, nano=st.integers(0, 90), keep=st.booleans())
    def capture(self, *, hold_id: str, nano: int, keep: bool) -> None:
        self.do(deeds.capture(hold_id, self.of_hold(nano, hold_id), at=self.tick(), keep=keep))

    @rule(hold_id=holds)
    def release(self, hold_id: str) -> None:
        self.do(deeds.release(hold_id, at=self.tick()))

    @rule(hold_id=holds, nano=NANO, count=st.integers(2, 5), first=st.integers(0, 2))
    def end_at_once(self, *, hold_id: str, nano: int, count: int, first: int) -> None:
        """Several come to end it in one group, in each order: the first one does."""
        at = self.tick()
        ends = [
            deeds.release(hold_id, at=at),
            deeds.capture(hold_id, self.of_hold(nano, hold_id), at=at),
            deeds.resolve(hold_id, at=at),
        ]
        self.do(*(ends[first:] + ends[:first]) * count)

    def of_hold(self, nano: int, hold_id: str) -> Money:
        return self.money(nano, self.model.holds[hold_id].account)


@pytest.mark.parametrize(
    ("examples", "steps"), [(30, 40), pytest.param(1_000, 60, marks=pytest.mark.long)]
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
