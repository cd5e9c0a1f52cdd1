"""This file knows small stories in which something goes wrong, unless a guard keeps it off."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from books import AT, EPOCH
from droveway.ledger import faults, statements
from droveway.money import Money
from droveway.storage.writer import Job
from ledger import deeds
from ledger.deeds import Deed, came_of
from ledger.mortals import Process
from ledger.pictures import seen
from ledger.worlds import beginning


class Room:
    """A ledger of three accounts with 80 in each, and the model beside it; no two acts at once."""

    def __init__(self, folder: Path) -> None:
        self.model = beginning(folder / "a.db")
        self.process = Process(folder / "a.db")
        self.process.driver.execute(statements.ADD_EPOCH, (EPOCH, 0))
        self.account, self.other, _ = self.model.accounts
        self.codes = list(self.model.vouchers)
        self.at = AT

    def do(self, deed: Deed) -> None:
        job, foretold = Job(deed.real), deed.foretold(self.model)
        self.process.commit([job])
        assert came_of(job.result, job.error) == foretold
        store = self.process.as_store()
        assert faults(store) == []
        assert seen(store, self.at) == self.model.seen(self.at)

    def take(self, nano: int, hold_id: str = "a", **terms: Any) -> None:
        amount, subjects = usd(nano), (f"account:{self.account}",)
        self.do(
            deeds.take(
                hold_id,
                amount,
                account=self.account,
                epoch=EPOCH,
                at=self.at,
                subjects=subjects,
                **terms,
            )
        )

    def capture(self, nano: int, hold_id: str = "a") -> None:
        self.do(deeds.capture(hold_id, usd(nano), at=self.at))


def usd(nano: int) -> Money:
    return Money(nano, "USD")


# Each goes well, and goes wrong without its guard.


def more_than_there_is_is_taken(room: Room) -> None:
    room.take(70)
    room.take(20, "b")


def a_frozen_account_takes(room: Room) -> None:
    room.do(deeds.freeze(room.account, thawed=False, at=room.at))
    room.take(1)


def a_hold_is_captured_twice(room: Room) -> None:
    room.take(10)
    room.take(10, "b")
    room.capture(5)
    room.capture(5)


def what_was_captured_is_released(room: Room) -> None:
    room.take(10)
    room.take(10, "b")
    room.capture(5)
    room.do(deeds.release("a", at=room.at))


def what_was_released_is_extended(room: Room) -> None:
    room.take(10)
    room.do(deeds.release("a", at=room.at))
    room.do(deeds.extend("a", usd(5), account=room.account, at=room.at))


def what_has_expired_is_taken(room: Room) -> None:
    room.do(deeds.grant(room.account, usd(10), reference="gift", hours=1, at=room.at))
    room.at += timedelta(hours=2)
    room.take(85)


def only_what_has_expired_goes(room: Room) -> None:
    for reference, hours in (("short", 1), ("long", 9)):
        room.do(deeds.grant(room.account, usd(5), reference=reference, hours=hours, at=room.at))
    room.at += timedelta(hours=2)
    room.do(deeds.sweep(at=room.at))


def what_is_held_outlives_its_credit(room: Room) -> None:
    room.do(deeds.grant(room.account, usd(10), reference="gift", hours=1, at=room.at))
    room.take(85)
    room.at += timedelta(hours=2)
    room.do(deeds.sweep(at=room.at))
    room.capture(85)


def a_budget_is_used_up(room: Room) -> None:
    subject = f"account:{room.account}"
    room.do(deeds.set_budget(subject, usd(20), period="day", at=room.at))
    room.take(15)
    room.take(15, "b")


def a_budget_is_spent(room: Room) -> None:
    subject = f"account:{room.account}"
    room.do(deeds.set_budget(subject, usd(20), period="total", at=room.at))
    room.take(10)
    room.capture(15)
    room.take(10, "b")


def a_budget_ends_amid_a_request(room: Room) -> None:
    subject = f"account:{room.account}"
    room.do(deeds.set_budget(subject, usd(20), period="week", at=room.at))
    room.take(15)
    room.do(deeds.end_budget(subject, period="week", at=room.at))
    room.do(deeds.extend("a", usd(10), account=room.account, at=room.at))
    room.capture(25)


def a_budget_is_free_again(room: Room) -> None:
    subject = f"account:{room.account}"
    room.do(deeds.set_budget(subject, usd(20), period="day", at=room.at))
    room.take(15)
    room.do(deeds.release("a", at=room.at))
    room.take(15, "b")


def a_claim_is_staked_while_it_is_on_its_way(room: Room) -> None:
    room.take(5, claim=("word", b"body"))
    room.take(5, "b", claim=("word", b"body"))


def a_claim_is_staked_when_it_was_served(room: Room) -> None:
    room.take(5, claim=("word", b"body"))
    room.capture(5)
    room.take(5, "b", claim=("word", b"body"))


def more_goes_back_than_is_unspent(room: Room) -> None:
    room.take(50)
    room.capture(50)
    room.do(deeds.refund("first of 0", usd(40), reference="back", at=room.at))


def a_topup_goes_back_twice(room: Room) -> None:
    room.do(deeds.top_up(room.account, usd(50), reference="more", at=room.at))
    for reference in ("back", "back again"):
        room.do(deeds.refund("first of 0", usd(70), reference=reference, at=room.at))


def a_topup_is_told_twice(room: Room) -> None:
    for _ in range(2):
        room.do(deeds.top_up(room.account, usd(5), reference="wire", at=room.at))


def a_refund_is_told_twice(room: Room) -> None:
    for _ in range(2):
        room.do(deeds.refund("first of 0", usd(5), reference="back", at=room.at))


def a_voucher_is_redeemed_by_two(room: Room) -> None:
    for account in (room.account, room.other):
        room.do(deeds.redeem(account, room.codes[0], at=room.at))


def a_process_dies_amid_its_request(room: Room) -> None:
    room.take(10)
    room.do(deeds.note_progress("a", usd(25)))
    room.do(deeds.resolve("a", at=room.at))


def a_request_costs_more_than_there_is(room: Room) -> None:
    room.take(50)
    room.take(20, "b")
    room.capture(70)
    room.capture(20, "b")
