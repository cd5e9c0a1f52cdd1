"""This file knows what must become of money: the ledger once more, in plain Python.

It checks before it changes, has no tables and cannot crash. Wherever its picture differs from
that of the store, one of the two is wrong.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction

from droveway import errors
from droveway.ledger.budgets import Period
from droveway.ledger.claims import ANSWER_KEPT, CLAIM_KEPT
from droveway.money import Money
from ledger.pictures import RATE, Bound, Held, Kept, Lot, Paid, State, start_of


class RefusedError(Exception):
    """What the ledger must refuse, and how."""

    def __init__(self, kind: type[errors.DrovewayError]) -> None:
        super().__init__(kind.__name__)
        self.kind = kind


def refuse_unless(allowed: bool, kind: type[errors.DrovewayError]) -> None:  # noqa: FBT001 - as `assert`
    if not allowed:
        raise RefusedError(kind)


class Model(State):
    """What must be true of one store."""

    # Money that comes in and goes back.

    def top_up(self, account_id: str, money: Money, *, reference: str, at: datetime) -> bool:
        """Whether it was booked before."""
        kept, known = self.accounts[account_id], self.topups.get(reference)
        paid, currency = money.nano, money.currency
        if known is not None:
            same = (known.account, known.paid, known.currency) == (account_id, paid, currency)
            refuse_unless(same, errors.BadRequestError)
            return True
        foreign = currency != kept.currency
        amount = round(Fraction(RATE.per_unit) * paid) if foreign else paid
        refuse_unless(amount > 0, errors.BadRequestError)
        self.topups[reference] = Paid(account_id, amount, paid, currency, at)
        self._paid(kept, amount, Money(paid, currency))
        return False

    def refund(self, topup: str, paid: int | None, *, reference: str) -> tuple[bool, int]:
        """Whether it was booked before, and how much is paid out."""
        refuse_unless(topup in self.topups, errors.BadRequestError)
        known, mine = self.refunds.get(reference), self.topups[topup]
        if known is not None:
            refuse_unless(known[0] == topup and paid in (None, known[1]), errors.BadRequestError)
            return True, known[1]
        refuse_unless(not mine.by_voucher, errors.BadRequestError)
        kept, rest = self.accounts[mine.account], mine.amount - mine.refunded
        of_account = [each for each in self.topups.values() if each.account == mine.account]
        later = sum(each.amount - each.refunded for each in of_account if each.at > mine.at)
        left = max(0, min(rest, min(kept.posted, kept.all - kept.held) - later))
        rest_paid, share = mine.paid - mine.refunded_paid, Fraction(mine.paid, mine.amount)
        if paid is None:
            taken, back = left, rest_paid if left == rest else min(rest_paid, int(left * share))
        else:
            taken, back = rest if paid == rest_paid else -int(-paid // share), paid
        refuse_unless(0 < taken <= left and 0 < back <= rest_paid, errors.BadRequestError)
        self.refunds[reference] = (topup, back)
        mine.refunded, mine.refunded_paid = mine.refunded + taken, mine.refunded_paid + back
        self._paid(kept, -taken, Money(-back, mine.currency))
        return False, back

    def _paid(self, kept: Kept, amount: int, paid: Money) -> None:
        kept.posted += amount
        self.own["clearing", paid.currency] -= paid.nano
        if paid.currency != kept.currency:
            self.own["exchange", paid.currency] += paid.nano
            self.own["exchange", kept.currency] -= amount

    # Credit and vouchers.

    def grant(
        self, account_id: str, nano: int, *, until: datetime, reference: str, at: datetime
    ) -> bool:
        """Whether it was given before."""
        known = self.credits.get(reference)
        if known is not None:
            refuse_unless(
                (known.account, known.given) == (account_id, nano), errors.BadRequestError
            )
            return True
        refuse_unless(nano > 0 and until > at, errors.BadRequestError)
        kept = self.accounts[account_id]
        self.credits[reference] = Lot(account_id, nano, nano, until, f"crd_{reference}")
        kept.lots.append(self.credits[reference])
        self.own["promotion", kept.currency] -= nano
        return False

    def expire(self, kept: Kept, *, at: datetime) -> bool:
        gone = kept.spend_credit(kept.lapsed(at))
        self.own["promotion", kept.currency] += gone
        return bool(gone)

    def sweep(self, *, at: datetime) -> int:
        return sum([self.expire(kept, at=at) for kept in self.accounts.values()])

    def redeem(self, account_id: str, code: str, *, at: datetime) -> bool:
        """Whether it was redeemed before."""
        slip, kept = self.vouchers[code], self.accounts[account_id]
        fresh = slip.account is None
        refuse_unless(slip.account in (None, account_id), errors.BadRequestError)
        gone = fresh and slip.expires_at is not None and slip.expires_at <= at
        refuse_unless(not gone and slip.currency == kept.currency, errors.BadRequestError)
        slip.account = account_id
        if slip.days is None:
            money = Money(slip.amount, slip.currency)
            again = self.top_up(account_id, money, reference=slip.id, at=at)
            self.topups[slip.id].by_voucher = True
            return again
        until = at + timedelta(days=slip.days)
        return self.grant(account_id, slip.amount, until=until, reference=slip.id, at=at)

    # Budgets and accounts.

    def freeze(self, account_id: str, *, thawed: bool) -> bool:
        """Whether that was new."""
        kept = self.accounts[account_id]
        was, kept.frozen = kept.frozen, not thawed
        return was != kept.frozen

    def set_budget(self, subject: str, period: Period, amount: Money) -> Money:
        new = Bound(amount.nano, amount.currency)
        bound = self.budgets.setdefault((subject, period), new)
        refuse_unless(bound.currency == amount.currency, errors.BadRequestError)
        bound.amount = amount.nano
        return amount

    def end_budget(self, subject: str, period: Period) -> None:
        refuse_unless((subject, period) in self.budgets, errors.BadRequestError)
        self.budgets.pop((subject, period)).ended = True

    # Claims.

    def look(self, word: str, digest: bytes, *, at: datetime) -> int | None:
        """What the answer cost that is told again; None where the request is to be served."""
        known, hold_id, since = self.claims.get(word, (digest, "", at - CLAIM_KEPT))
        if since <= at - CLAIM_KEPT:
            return None
        refuse_unless(known == digest, errors.IdempotencyMismatchError)
        held = self.holds[hold_id]
        refuse_unless(held.state != "held", errors.RequestInFlightError)
        if held.charged is not None:
            kept = hold_id in self.answers and self.answers[hold_id] > at - ANSWER_KEPT
            refuse_unless(kept, errors.AlreadyServedError)
        return held.charged

    def forget(self, *, at: datetime) -> int:
        old = [each for each, since in self.answers.items() if since <= at - ANSWER_KEPT]
        stale = [each for each, (*_, since) in self.claims.items() if since <= at - CLAIM_KEPT]
        for each in old:
            del self.answers[each]
        for each in stale:
            del self.claims[each]
        return len(old) + len(stale)

    # Holds.

    def take(
        self,
        hold_id: str,
        held: Held,
        *,
        currency: str,
        at: datetime,
        floor: int = 0,
        claim: tuple[str, bytes] | None = None,
    ) -> None:
        if claim is not None:
            refuse_unless(self.look(*claim, at=at) is None, errors.AlreadyServedError)
        kept = self.accounts[held.account]
        self._must_fit(kept, held.amount, held.bounds, currency=currency, at=at, floor=floor)
        self.holds[hold_id] = held
        self._set_aside(kept, held.amount, held.bounds, at=at, floor=floor)
        if claim is not None:
            self.claims[claim[0]] = (claim[1], hold_id, at)

    def extend(self, hold_id: str, more: int, *, at: datetime, floor: int = 0) -> bool:
        held = self.holds[hold_id]
        kept, open_ = self.accounts[held.account], held.state == "held"
        bounds = held.bounds if open_ else []
        self._must_fit(kept, more, bounds, currency=kept.currency, at=at, floor=floor)
        self._set_aside(kept, more, bounds, at=at, floor=floor)
        held.amount += more * open_
        kept.held -= more * (not open_)
        return open_

    def note_progress(self, hold_id: str, cost: int) -> bool:
        held = self.holds[hold_id]
        if held.state == "held":
            held.progress = cost
        return held.state == "held"

    def capture(
        self, hold_id: str, cost: int, *, at: datetime, state: str = "captured"
    ) -> tuple[int, int, int] | None:
        """What was paid, what was lost, and what the account had in all before."""
        held = self.holds.get(hold_id)
        if held is None or held.state != "held":
            return None
        kept = self.accounts[held.account]
        self.expire(kept, at=at)
        had = kept.all
        paid = min(cost, max(0, had - (kept.held - held.amount) - kept.floor))
        kept.posted -= paid - kept.spend_credit(paid)
        self.own["revenue", kept.currency] += cost
        self.own["loss", kept.currency] -= cost - paid
        self._end(held, state, paid)
        held.charged = paid
        return paid, cost - paid, had

    def release(self, hold_id: str, *, state: str = "released") -> bool:
        held = self.holds.get(hold_id)
        if held is None or held.state != "held":
            return False
        self._end(held, state, 0)
        return True

    def resolve(self, hold_id: str, *, at: datetime) -> bool:
        held = self.holds.get(hold_id)
        if held is None or not held.progress:
            return self.release(hold_id, state="resolved")
        cost = min(held.amount, held.progress)
        return self.capture(hold_id, cost, at=at, state="resolved") is not None

    def end_epoch(self, epoch_id: str, *, at: datetime) -> None:
        for hold_id, held in self.holds.items():
            if held.owner == epoch_id:
                self.resolve(hold_id, at=at)

    def bounds_of(
        self, subjects: Sequence[str], *, currency: str, at: datetime
    ) -> list[tuple[Bound, object]]:
        """The budgets that a request counts in, each with its present spell."""
        return [
            (bound, start_of(period, at))
            for (subject, period), bound in self.budgets.items()
            if subject in subjects and bound.currency == currency
        ]

    def _must_fit(
        self,
        kept: Kept,
        nano: int,
        bounds: list[tuple[Bound, object]],
        *,
        currency: str,
        at: datetime,
        floor: int,
    ) -> None:
        refuse_unless(not kept.frozen, errors.FrozenAccountError)
        refuse_unless(kept.currency == currency, errors.BadRequestError)
        left = kept.all - kept.lapsed(at) - kept.held - nano
        refuse_unless(left >= floor, errors.BalanceTooLowError)
        fits = all(bound.has_left(start, nano) for bound, start in bounds)
        refuse_unless(fits, errors.LimitExceededError)

    def _set_aside(
        self,
        kept: Kept,
        nano: int,
        bounds: list[tuple[Bound, object]],
        *,
        at: datetime,
        floor: int,
    ) -> None:
        self.expire(kept, at=at)
        kept.held, kept.floor = kept.held + nano, min(kept.floor, floor)
        for bound, start in bounds:
            bound.spells.setdefault(start, [0, 0])[1] += nano

    def _end(self, held: Held, state: str, paid: int) -> None:
        self.accounts[held.account].held -= held.amount
        held.state = state
        for bound, start in held.bounds:
            spent, still = bound.spells[start]
            bound.spells[start] = [spent + paid, still - held.amount]
