"""Every guard of the ledger is taken away once, and what it kept off is seen.

A guard is a condition of a statement, or a check, a trigger or a unique key of a table, or a line
of code. Where several keep the same thing off, all of them go but one at most.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import apsw
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from droveway.ledger import statements, topups
from droveway.storage import migrating
from ledger import misdeeds
from ledger.misdeeds import Room
from ledger.test_any_order import Ledger


class Edit(NamedTuple):
    """What is taken away: from a statement, or from the tables where none is named."""

    of: str
    old: str
    new: str = ""


class Guard(NamedTuple):
    """What keeps something off.

    Attributes:
        edits: What goes.
        seen_by: What happens in the room.
        lines: Code that does nothing any more.
    """

    seen_by: Callable[[Room], None]
    edits: tuple[Edit, ...] = ()
    lines: Callable[[pytest.MonkeyPatch], None] = lambda _: None


TABLES: Final = ""
ENDS_ONCE: Final = Edit(TABLES, "WHEN OLD.state <> 'held'", "WHEN 0")
HELD: Final = "AND state = 'held'"
FITS: Final = Edit("SET_ASIDE", "AND posted_nano + promo_nano - held_nano - ?1 >= ?4")
COVERED: Final = Edit(
    TABLES, "CHECK (kind <> 'customer' OR posted_nano + promo_nano - held_nano >= floor_nano),"
)
ABOVE_FLOOR: Final = Edit(TABLES, "CHECK (kind <> 'customer' OR posted_nano >= floor_nano),")
ONCE_EACH: Final = (
    Edit(TABLES, "CHECK (json_type(told) = 'object'),\n  UNIQUE (kind, reference)",
         "CHECK (json_type(told) = 'object')"),
    Edit(TABLES, "reference TEXT NOT NULL UNIQUE", "reference TEXT NOT NULL"),
)  # fmt: skip
NO_TOPUP: Final = Edit("TOPUP_BY_REFERENCE", "WHERE reference = ?", "WHERE reference = ? AND 0")
NO_REFUND: Final = Edit("REFUND_BY_REFERENCE", "AND reference = ?", "AND reference = ? AND 0")
NO_ONE: Final = Edit("VOUCHER_BY_DIGEST", "account_id,\n  redeemed_at_us", "NULL,\n  NULL")
REDEEMED: Final = (
    Edit("REDEEM", " AND account_id IS NULL"),
    Edit(TABLES, "WHEN OLD.account_id IS NOT NULL", "WHEN 0"),
)


def all_is_unspent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(topups, "unspent", lambda _, topup: topup.amount - topup.refunded)


GUARDS: Final[dict[str, Guard]] = {
    "what is not there is not set aside": Guard(misdeeds.more_than_there_is_is_taken, (FITS,)),
    "nor is it where no check looks on": Guard(
        misdeeds.more_than_there_is_is_taken, (FITS, COVERED)
    ),
    "nothing is set aside where an account is frozen": Guard(
        misdeeds.a_frozen_account_takes, (Edit("SET_ASIDE", "AND frozen_at_us IS NULL"),)
    ),
    "a hold that has ended is not found": Guard(
        misdeeds.a_hold_is_captured_twice,
        (Edit("OPEN_HOLD", HELD), Edit("END_HOLD", HELD), ENDS_ONCE),
    ),
    "a hold ends once": Guard(
        misdeeds.a_hold_is_captured_twice, (Edit("OPEN_HOLD", HELD), ENDS_ONCE)
    ),
    "what ended is not given back": Guard(
        misdeeds.what_was_captured_is_released, (Edit("END_HOLD_FREE", HELD), ENDS_ONCE)
    ),
    "the table alone keeps an end": Guard(
        misdeeds.what_was_captured_is_released, (Edit("END_HOLD_FREE", HELD),)
    ),
    "what ended does not grow": Guard(
        misdeeds.what_was_released_is_extended, (Edit("EXTEND_HOLD", HELD), ENDS_ONCE)
    ),
    "credit that has expired stops a hold": Guard(
        misdeeds.what_has_expired_is_taken,
        (Edit("SET_ASIDE", "promo_until_us > ?5", "1"),),
    ),
    "credit stays until it expires": Guard(
        misdeeds.only_what_has_expired_goes,
        (Edit("CREDITS_EXPIRED", "AND expires_at_us <= ?", "AND ? > 0"),),
    ),
    "credit that is held stays": Guard(
        misdeeds.what_is_held_outlives_its_credit,
        (Edit("FUNDS", "held_nano,", "0,"), COVERED),
    ),
    "an expiry is of credits": Guard(
        misdeeds.only_what_has_expired_goes,
        (Edit("SPEND_CREDIT", "left_nano - ?", "left_nano - 0 * ?"),),
    ),
    "a budget bounds what is held": Guard(
        misdeeds.a_budget_is_used_up,
        (Edit("HOLD_IN_SPELL", "amount_nano - spent_nano - held_nano >= ?1", "1"),),
    ),
    "a budget counts what is spent": Guard(
        misdeeds.a_budget_is_used_up,
        (Edit("HOLD_IN_SPELL", "held_nano = held_nano + ?1", "held_nano = 0"),),
    ),
    "a budget that has ended bounds nothing": Guard(
        misdeeds.a_budget_ends_amid_a_request,
        (Edit("HOLD_IN_SPELL", "ended_at_us IS NOT NULL OR "),),
    ),
    "a hold knows that it counts in budgets": Guard(
        misdeeds.a_budget_is_spent, (Edit("OPEN_HOLD", "spells", "0"),)
    ),
    "a budget gets back what ended": Guard(
        misdeeds.a_budget_is_free_again,
        (Edit("END_IN_SPELLS", "held_nano - ?1", "held_nano - 0 * ?1"),),
    ),
    "a claim is one request's": Guard(
        misdeeds.a_claim_is_staked_while_it_is_on_its_way,
        (Edit("CLAIM", "AND at_us > ?", "AND at_us < -?"),),
    ),
    "a claim is served once": Guard(
        misdeeds.a_claim_is_staked_when_it_was_served, (Edit("CLAIM", "charged_nano,", "NULL,"),)
    ),
    "what is spent does not go back": Guard(
        misdeeds.more_goes_back_than_is_unspent, lines=all_is_unspent
    ),
    "nor does it where no check looks on": Guard(
        misdeeds.more_goes_back_than_is_unspent, (COVERED, ABOVE_FLOOR), all_is_unspent
    ),
    "what went back is noted": Guard(
        misdeeds.a_topup_goes_back_twice,
        (Edit("NOTE_REFUND", "refunded_nano + ?", "refunded_nano + 0 * ?"),),
    ),
    "a top-up has a reference of its own": Guard(misdeeds.a_topup_is_told_twice, (NO_TOPUP,)),
    "nor is it booked twice where no table looks on": Guard(
        misdeeds.a_topup_is_told_twice, (NO_TOPUP, *ONCE_EACH)
    ),
    "a refund has a reference of its own": Guard(
        misdeeds.a_refund_is_told_twice, (NO_REFUND, *ONCE_EACH)
    ),
    "a voucher is redeemed once": Guard(
        misdeeds.a_voucher_is_redeemed_by_two, (NO_ONE, NO_TOPUP, *REDEEMED, *ONCE_EACH)
    ),
    "a voucher is redeemed once, says its table": Guard(
        misdeeds.a_voucher_is_redeemed_by_two, (NO_ONE, NO_TOPUP, REDEEMED[0], *ONCE_EACH)
    ),
    "a crash is charged by what was written down": Guard(
        misdeeds.a_process_dies_amid_its_request, (Edit("OPEN_HOLD", "progress_nano", "0"),)
    ),
    "what others hold is theirs": Guard(
        misdeeds.a_request_costs_more_than_there_is,
        (Edit("PURSE", "held_nano", "0"),),
    ),
}


@contextmanager
def without(guard: Guard, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """A ledger that lacks a guard."""
    with patch.context() as weaker:
        guard.lines(weaker)
        steps = migrating.steps()
        for of, old, new in guard.edits:
            if of:
                sql = getattr(statements, of)
                assert old in sql
                weaker.setattr(statements, of, sql.replace(old, new, 1))
            else:
                assert any(old in step.sql for step in steps)
                steps = [step._replace(sql=step.sql.replace(old, new)) for step in steps]
        weaker.setattr(migrating, "steps", lambda: steps)
        yield


each_guard = pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
# What may be raised where something is wrong: by the model and the rules, or by the tables.
SEEN: Final = (AssertionError, apsw.ConstraintError)
STORIES: Final = sorted({guard.seen_by for guard in GUARDS.values()}, key=lambda it: it.__name__)


@pytest.mark.parametrize("story", STORIES, ids=lambda it: it.__name__)
def test_with_its_guards_a_ledger_does_what_the_model_does(
    story: Callable[[Room], None], tmp_path: Path
) -> None:
    story(Room(tmp_path))


@each_guard
def test_what_a_guard_keeps_off_is_seen_without_it(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without(guard, monkeypatch), pytest.raises(SEEN):
        guard.seen_by(Room(tmp_path))


@pytest.mark.long
@each_guard
def test_whatever_is_done_in_any_order_finds_it_out(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without(guard, monkeypatch), pytest.raises(SEEN):
        run_state_machine_as_test(
            Ledger,
            settings=settings(
                max_examples=2_000,
                stateful_step_count=60,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
