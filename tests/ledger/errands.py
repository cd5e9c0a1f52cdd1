"""This file knows what people want done in a simulated world, and how they ask for it.

An errand is asked for until somebody says what came of it. Who loses a process asks another, by
the same reference or the same claim; a request without a claim is given up.
"""

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from books import AT
from droveway.errors import AlreadyServedError, RequestInFlightError
from droveway.ledger.budgets import PERIODS, subjects_of
from droveway.ledger.claims import CLAIM_KEPT, claim_of, look
from droveway.money import Money
from droveway.storage import Store
from ledger import deeds
from ledger.deeds import ANSWER, Deed
from ledger.model import Model

BODY: Final = b"a body"
KEPT_US: Final = CLAIM_KEPT // timedelta(microseconds=1)
Read = Callable[..., list[tuple[Any, ...]]]


class Said(NamedTuple):
    """What somebody is told in the end, and how much was paid."""

    what: str
    nano: int | None = None


AGAIN: Final = Said("ask again")
Script = Generator[Deed, Any, Said]


@dataclass(eq=False)
class Errand:
    """Something that somebody wants done once.

    Attributes:
        script: How it is done: deeds, each of which is sent back what came of it.
        found: What the store must say of it when all is over.
        patient: Whether it is asked for again when nobody answers.
        told: What came of it, once that was said.
        process: Who does it now.
        deed: What that one shall do next.
        tries: How often it was asked for.
    """

    script: Callable[["Errand"], Script]
    found: Callable[["Errand", Read], None] = lambda _errand, _read: None
    patient: bool = True
    told: Said | None = None
    process: Any = None
    deed: Deed | None = None
    tries: int = 0
    at: datetime = AT
    _steps: Script | None = None

    @property
    def is_open(self) -> bool:
        """Whether somebody has to ask for it."""
        return self.told is None and self.process is None

    @property
    def store(self) -> Store:
        store: Store = self.process.as_store()
        return store

    def ask(self, process: object, *, at: datetime) -> Said | None:
        """Begin, from the start; None where a deed is to be done first."""
        self.process, self.at = process, at
        self.tries += 1
        self._steps = self.script(self)
        return self._go_on(None)

    def hear(self, came: object, *, at: datetime) -> Said | None:
        """Go on with what came of the deed."""
        self.at = at
        return self._go_on(came)

    def lose(self) -> None:
        """Hear nothing more from the process."""
        self.process = self._steps = self.deed = None
        if not self.patient:
            self.told = Said("nothing")

    def _go_on(self, came: object) -> Said | None:
        assert self._steps is not None
        try:
            self.deed = self._steps.send(came)
        except StopIteration as end:
            said: Said = end.value
            self.process = self._steps = self.deed = None
            self.told = None if said is AGAIN else said
            return said
        return None


def errand(chance: random.Random, model: Model, *, number: int) -> Errand:
    """Think of something to do."""
    account = chance.choice(list(model.accounts))
    currency = model.accounts[account].currency
    kind = chance.choices(
        ("request", "top up", "refund", "grant", "redeem", "operate"), (10, 3, 2, 2, 1, 3)
    )[0]
    if kind == "request":
        # Sometimes the same word as somebody else's: they are served once, together.
        word = chance.choice([None, f"word {number // 2}", f"word {number // 2}", f"word {number}"])
        return request(Plan.drawn(chance, account, currency), word, number=number)
    if kind == "top up":
        paid = Money(chance.randint(10, 60), chance.choice([currency, "USD"]))
        return topping_up(account, paid, reference=f"top-up {number}")
    if kind == "refund":
        topup = chance.choice(list(model.topups))
        nano = chance.choice([None, chance.randint(1, 30)])
        paid_back = None if nano is None else Money(nano, model.topups[topup].currency)
        return refunding(topup, paid_back, reference=f"refund {number}")
    if kind == "grant":
        amount, hours = Money(chance.randint(5, 40), currency), chance.randint(0, 30)
        return granting(account, amount, reference=f"grant {number}", hours=hours)
    if kind == "redeem":
        code = chance.choice(list(model.vouchers))
        return redeeming(account, code, voucher=model.vouchers[code].id)
    return operating(chance, account, currency)


# By reference.


def booked(again: object) -> Said:
    """What is said of what is booked once for each reference."""
    if isinstance(again, type):
        return Said("it is refused")
    return Said("it was booked before" if again else "it is booked")


def once(sql: str, *key: str) -> Callable[[Errand, Read], None]:
    """A look at the store: what was told to be booked is there once, and what was not, is not."""

    def found(asked: Errand, read: Read) -> None:
        assert asked.told is not None
        count = 0 if asked.told.what == "it is refused" else 1
        assert read(sql, key) == [(count,)], (key, asked.told)

    return found


def topping_up(account: str, paid: Money, *, reference: str) -> Errand:
    def script(asked: Errand) -> Script:
        return booked((yield deeds.top_up(account, paid, reference=reference, at=asked.at)))

    count = f"SELECT count(*) FROM topup WHERE reference = ? AND paid_nano = {paid.nano}"
    return Errand(script, once(count, reference))


def refunding(topup: str, paid: Money | None, *, reference: str) -> Errand:
    def script(asked: Errand) -> Script:
        came = yield deeds.refund(topup, paid, reference=reference, at=asked.at)
        return booked(came if isinstance(came, type) else came[0])

    count = "SELECT count(*) FROM transfer WHERE kind = 'refund' AND reference = ?"
    return Errand(script, once(count, reference))


def granting(account: str, amount: Money, *, reference: str, hours: int) -> Errand:
    def script(asked: Errand) -> Script:
        return booked(
            (yield deeds.grant(account, amount, reference=reference, hours=hours, at=asked.at))
        )

    count = f"SELECT count(*) FROM credit WHERE id = 'crd_' || ? AND amount_nano = {amount.nano}"
    return Errand(script, once(count, reference))


def redeeming(account: str, code: str, *, voucher: str) -> Errand:
    def script(asked: Errand) -> Script:
        return booked((yield deeds.redeem(account, code, at=asked.at)))

    count = """SELECT (SELECT count(*) FROM topup WHERE reference = ?1 AND account_id = ?2) +
      (SELECT count(*) FROM credit WHERE id = 'crd_' || ?1 AND account_id = ?2)"""
    return Errand(script, once(count, voucher, account))


def operating(chance: random.Random, account: str, currency: str) -> Errand:
    """Something that is as well done twice."""
    subject, period = chance.choice([f"account:{account}", "key:k"]), chance.choice(PERIODS)
    amount, what = Money(chance.randint(20, 200), currency), chance.randrange(6)

    def script(asked: Errand) -> Script:
        if what == 0:
            yield deeds.freeze(account, thawed=False, at=asked.at)
            yield deeds.freeze(account, thawed=True, at=asked.at)
        elif what == 1:
            yield deeds.end_budget(subject, period=period, at=asked.at)
        elif what in (2, 3):
            yield deeds.set_budget(subject, amount, period=period, at=asked.at)
        else:
            yield deeds.sweep(at=asked.at)
        return Said("it is done")

    return Errand(script)


# Requests.


class Plan(NamedTuple):
    """A request, and what it comes to."""

    account: str
    currency: str
    amount: int
    steps: tuple[tuple[str, int], ...]
    cost: int | None

    @classmethod
    def drawn(cls, chance: random.Random, account: str, currency: str) -> "Plan":
        count = chance.choice([0, 0, 1, 3])
        steps = [(chance.choice(["progress", "extend"]), chance.randint(1, 20))] * count
        cost = chance.choice([None, *[chance.randint(0, 40)] * 4])
        return cls(account, currency, chance.randint(0, 30), tuple(steps), cost)

    def money(self, nano: int) -> Money:
        return Money(nano, self.currency)


def request(plan: Plan, word: str | None, *, number: int) -> Errand:
    name = word or f"unnamed {number}"

    def script(asked: Errand) -> Script:
        if word is not None:
            said = looked(asked, word)
            if said is not None:
                return said
        hold_id = f"{name}:{number}/{asked.tries}"
        came = yield deeds.take(
            hold_id,
            plan.money(plan.amount),
            account=plan.account,
            epoch=asked.process.epoch.id,
            at=asked.at,
            subjects=subjects_of(plan.account, key_id="k", tags={}),
            claim=None if word is None else (word, BODY),
        )
        if came is not None:
            soon = came in (RequestInFlightError, AlreadyServedError)
            return AGAIN if soon else Said("it is refused")
        return (yield from _served(asked, plan, hold_id=hold_id))

    def found(asked: Errand, read: Read) -> None:
        rows = read("SELECT taken_at_us, charged_nano FROM hold WHERE id GLOB ?", (f"{name}:*",))
        taken, charged = [at for at, _ in rows], [nano for _, nano in rows if nano is not None]
        # Where the clock was set ahead, its claim was too old, and it was served as if it were new.
        too_old = max(taken, default=0) - min(taken, default=0) >= KEPT_US
        assert len(charged) <= 1 or too_old, (name, "is charged twice")
        assert asked.told is not None
        if asked.told.nano is not None:
            assert asked.told.nano in charged, (name, asked.told)

    return Errand(script, found, patient=word is not None)


def looked(asked: Errand, word: str) -> Said | None:
    """What is said before anything is held; None where it is to be served."""
    try:
        told = look(asked.store, claim_of("k", word, BODY), at=asked.at)
    except RequestInFlightError:
        return AGAIN
    except AlreadyServedError as served:
        assert served.cost is not None
        return Said("it was served before", served.cost.nano)
    if told is None:
        return None
    assert told.body == ANSWER
    return Said("the same answer again", told.cost.nano)


def _served(asked: Errand, plan: Plan, *, hold_id: str) -> Script:
    """Nobody else ends a hold whose process lives: it is held until it is ended here."""
    for what, nano in plan.steps:
        if what == "progress":
            came = yield deeds.note_progress(hold_id, plan.money(nano))
            assert came is True, hold_id
        else:
            came = yield deeds.extend(hold_id, plan.money(nano), account=plan.account, at=asked.at)
            assert came is True or isinstance(came, type), hold_id
    if plan.cost is None:
        came = yield deeds.release(hold_id, at=asked.at)
        assert came is True, hold_id
        return Said("it failed, for free")
    came = yield deeds.capture(hold_id, plan.money(plan.cost), at=asked.at, keep=True)
    assert came is not None, hold_id
    return Said("it is served", came[0])
