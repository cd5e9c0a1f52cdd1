"""Refunds in any order: never more than came in, and always what a queue of money says."""

from datetime import date, timedelta
from functools import partial
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from books import AT, EPOCH
from droveway.errors import BadRequestError
from droveway.ledger import Rate, Refund, statements
from droveway.ledger.book import open_account
from droveway.ledger.holds import capture, take
from droveway.ledger.topups import Payment, refund, top_up, topups_of, unspent
from droveway.money import Money
from droveway.storage import Connection, Store
from lab import run

ON: Final = date(2026, 11, 1)
ANY_ORDER: Final = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
STEPS = st.tuples(st.sampled_from(["use", "part", "rest"]), st.integers(1, 300))


@ANY_ORDER
@given(st.data())
def test_no_order_of_refunds_and_uses_pays_out_more_than_came_in(
    store: Store, data: st.DataObject
) -> None:
    """Spec: rounding is never the operator's loss, and what is untouched goes back to the unit."""
    paid, wanted = data.draw(st.integers(1, 400)), data.draw(st.lists(STEPS, max_size=8))
    rate = Rate(data.draw(st.sampled_from(["1", "0.14", "7.3", "0.013", "88.000000001"])), ON)
    amount = rate.convert(Money(paid, "CNY"), "USD").nano
    if not amount:
        return
    run(store.write(partial(Journey(paid, amount).make, rate=rate, steps=wanted)))


class Journey:
    """A converted top-up, and what was paid out, taken and used of it so far."""

    def __init__(self, paid: int, amount: int) -> None:
        self.paid, self.amount = paid, amount
        self.out = self.taken = self.used = self.parts = 0

    def make(self, db: Connection, rate: Rate, steps: list[tuple[str, int]]) -> None:
        name = f"{db.rows('SELECT count(*) FROM account')[0][0]}"
        account = open_account(db, name, currency="USD", at=AT)
        top_up(db, account, Payment(Money(self.paid, "CNY"), account, rate), at=AT)
        for number, (kind, nano) in enumerate([*steps, ("rest", 0)]):
            reference = f"{name}-{number}"
            if kind == "use":
                cost = Money(min(nano, self.amount - self.taken - self.used), "USD")
                take(db, reference, cost, account_id=account, epoch_id=EPOCH, at=AT)
                capture(db, reference, cost, at=AT)
                self.used += cost.nano
            else:
                back = Money(nano, "CNY") if kind == "part" else None
                self.refund(partial(refund, db, account, back, reference=reference, at=AT))
        if not self.used:
            # Each part takes less than a unit too much; without parts nothing is lost at all.
            assert self.paid - self.out <= self.parts * self.paid / self.amount

    def refund(self, work: partial[Refund]) -> None:
        try:
            done = work()
        except BadRequestError:
            return
        self.out, self.taken = self.out + done.paid.nano, self.taken + done.amount.nano
        self.parts += work.args[2] is not None
        assert self.out <= self.paid
        assert self.taken + self.used <= self.amount
        # By value, too: what was used does not come back.
        assert self.out * self.amount <= (self.amount - self.used) * self.paid


LOTS = st.tuples(st.sampled_from(["in", "use", "back", "rest"]), st.integers(0, 3),
                 st.integers(1, 20))  # fmt: skip


@ANY_ORDER
@given(st.lists(LOTS, max_size=12))
def test_what_is_unspent_is_what_a_queue_of_money_says(
    store: Store, steps: list[tuple[str, int, int]]
) -> None:
    """Ours: a queue from whose head uses take, and out of whose middle refunds take."""

    def work(db: Connection) -> None:
        name = f"{db.rows('SELECT count(*) FROM account')[0][0]}"
        account, queue = open_account(db, name, currency="USD", at=AT), list[int]()
        for n, (kind, which, nano) in enumerate(steps):
            reference, money = f"{name}/{n}", Money(nano, "USD")
            if kind == "in":
                at = AT + timedelta(seconds=n)
                top_up(db, account, Payment(money, f"{name}-{len(queue)}"), at=at)
                queue.append(nano)
            elif kind == "use":
                cost = Money(min(nano, sum(queue)), "USD")
                take(db, reference, cost, account_id=account, epoch_id=EPOCH, at=AT)
                capture(db, reference, cost, at=AT)
                left = cost.nano
                for place, lot in enumerate(queue):
                    queue[place], left = lot - min(lot, left), left - min(lot, left)
            elif which < len(queue):
                back = money if kind == "back" else None
                mine = queue[which] if back is None else nano
                if mine and mine <= queue[which]:
                    refund(db, f"{name}-{which}", back, reference=reference, at=AT)
                    queue[which] -= mine
            topups = topups_of(db.rows(statements.TOPUPS_OF, (account,)))
            assert [unspent(db, each).nano for each in topups] == queue

    run(store.write(work))
