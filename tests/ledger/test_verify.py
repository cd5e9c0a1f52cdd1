"""`faults`: nothing where all is well, and every kind of damage by its rule."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from books import EPOCH, add_epoch, captured, damage, funded, released, taken, usd
from droveway.ledger import Book, audit, faults
from droveway.ledger.verify import RULES
from droveway.storage import Store
from lab import run

SUMS = "the entries of a transfer sum to zero, and are two at least"
MIXED = "a transfer is of one currency"
BALANCE = "a balance is the sum of its entries"
HELD = "what is held is the sum of the open holds"
CHARGED = "a hold was charged what it says, and once"
USAGE = "only a captured hold is charged, to its account"
TOPUP = "a top-up goes from clearing to one customer"
STUCK = "a process that has ended holds nothing"
MISSING = "whatever is named is there"
SETTLED = "a request that has ended is settled"
BELOW = "nobody has less than nothing"

OTHER = "(SELECT id FROM account WHERE name = 'other')"
A_REQUEST = """
INSERT INTO request (id, at_us, tags, asked, total_us, attempts, outcome, client_gone, drift)
VALUES ('held', 0, '{}', 'fast', 1, 1, 'completed', 0, 0)
"""


def booked(kind: str, reference: str, **nano: int) -> str:
    """SQL that moves money between accounts, by name, and keeps their balances right."""
    sql = f"""
        INSERT INTO transfer (id, kind, at_us, reference, told)
        VALUES ('x', '{kind}', 0, '{reference}', '{{}}');
    """
    for name, amount in nano.items():
        account = f"(SELECT id FROM account WHERE name IN ('{name}', ':{name}:USD'))"
        sql += f"""
            INSERT INTO entry (transfer_id, account_id, amount_nano)
            VALUES ('x', {account}, {amount});
            UPDATE account SET posted_nano = posted_nano + {amount} WHERE id = {account};
        """
    return sql


@pytest.fixture
def sound(tmp_path: Path) -> Iterator[Store]:
    """A ledger in which every kind of thing has happened."""
    with Store(tmp_path / "a.db") as store:
        run(fill(store))
        assert faults(store) == []
        yield store


async def fill(store: Store) -> None:
    await add_epoch(store)
    acme, other = await funded(store, "10"), await funded(store, "5", name="other")
    await Book(store).open("cn", currency="CNY")
    for hold_id in ("captured", "lost", "released", "resolved", "free", "held"):
        await taken(store, hold_id, usd("1"), account=acme)
    await taken(store, "of-other", usd("2"), account=other)
    await captured(store, "captured", usd("0.5"))
    await captured(store, "lost", usd("100"))
    await captured(store, "free", usd("0"))
    await released(store, "released")
    await released(store, "resolved", resolved=True)


def test_a_sound_ledger_is_counted(sound: Store) -> None:
    told = audit(sound)
    assert (told.accounts, told.transfers, told.holds, told.faults) == (3, 4, 7, ())


DAMAGES: dict[str, tuple[str, set[str]]] = {
    "an entry is changed": (
        "UPDATE entry SET amount_nano = amount_nano + 1 WHERE seq = 1",
        {SUMS, BALANCE},
    ),
    "an entry is gone": ("DELETE FROM entry WHERE seq = 1", {SUMS, BALANCE, TOPUP}),
    "all entries of a transfer are gone": (
        "DELETE FROM entry WHERE transfer_id = 'use_captured'",
        {SUMS, BALANCE, CHARGED},
    ),
    "a transfer is gone": ("DELETE FROM transfer WHERE id = 'use_captured'", {MISSING, CHARGED}),
    "a transfer has one entry": (booked("topup", "x", acme=7), {SUMS, TOPUP}),
    "a transfer does not sum to zero": (booked("topup", "x", acme=7, clearing=-6), {SUMS}),
    "an entry is of another currency": (
        "UPDATE entry SET account_id = (SELECT id FROM account WHERE name = 'cn') WHERE seq = 1",
        {MIXED, BALANCE},
    ),
    "a balance is written by hand": (
        "UPDATE account SET posted_nano = posted_nano + 1 WHERE name = 'acme'",
        {BALANCE},
    ),
    "our own balance is written by hand": (
        "UPDATE account SET posted_nano = 0 WHERE id = ':revenue:USD'",
        {BALANCE},
    ),
    "an account is gone": ("DELETE FROM account WHERE name = 'other'", {MISSING, TOPUP}),
    "held is written by hand": ("UPDATE account SET held_nano = 0 WHERE name = 'other'", {HELD}),
    "a hold is larger than what is held": (
        "UPDATE hold SET amount_nano = amount_nano + 1 WHERE id = 'held'",
        {HELD},
    ),
    "a hold ended and nothing was given back": (
        "UPDATE hold SET state = 'released', ended_at_us = 1 WHERE id = 'held'",
        {HELD},
    ),
    "a hold is gone": ("DELETE FROM hold WHERE id = 'held'", {HELD}),
    "a captured hold is gone": ("DELETE FROM hold WHERE id = 'captured'", {USAGE}),
    "a hold was captured without a charge": (
        "UPDATE hold SET state = 'captured', charged_nano = 3 WHERE id = 'released'",
        {CHARGED},
    ),
    "a hold says another charge": (
        "UPDATE hold SET charged_nano = charged_nano + 1 WHERE id = 'captured'",
        {CHARGED},
    ),
    "a released hold was charged": (
        booked("usage", "released", other=-5, revenue=5),
        {USAGE},
    ),
    "a released hold was charged to its account": (
        booked("usage", "released", acme=-5, revenue=5),
        {CHARGED, USAGE},
    ),
    "what was never held was charged": (
        booked("usage", "never", other=-5, revenue=5),
        {USAGE},
    ),
    "a loss was booked for what was never held": (
        booked("usage", "never", loss=-5, revenue=5),
        {USAGE},
    ),
    "a hold was charged to another account": (
        booked("usage", "free", other=-5, revenue=5),
        {USAGE},
    ),
    "a top-up takes money from another customer": (
        booked("topup", "x", acme=7, other=-7),
        {TOPUP},
    ),
    "a process ended and went on holding": (
        f"UPDATE epoch SET ended_at_us = 1 WHERE id = '{EPOCH}'",
        {STUCK},
    ),
    "a process was never there": (f"DELETE FROM epoch WHERE id = '{EPOCH}'", {MISSING}),
    "a request ended and is still held for": (A_REQUEST, {SETTLED}),
    "a balance fell below zero": (
        f"""
        INSERT INTO hold VALUES ('x', {OTHER}, '{EPOCH}', 4000000000, 'held', 0, NULL, NULL);
        UPDATE account SET held_nano = held_nano + 4000000000 WHERE id = {OTHER}
        """,
        {BELOW},
    ),
}


@pytest.mark.parametrize(("sql", "rules"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_by_its_rule(sql: str, rules: set[str], sound: Store) -> None:
    damage(sound, sql)
    found = faults(sound)
    assert {each.rule for each in found} == rules
    assert all(each.what and each.found for each in found)
    assert audit(sound).faults == tuple(found)


def test_every_rule_finds_some_damage() -> None:
    assert set().union(*(rules for _, rules in DAMAGES.values())) == set(RULES)


def test_a_fault_says_where_it_is_and_what_stands_there(sound: Store) -> None:
    damage(sound, f"UPDATE account SET posted_nano = 7 WHERE id = {OTHER}")
    other = Book(sound).show("other").id
    assert next((each.rule, each.what, each.found) for each in faults(sound)) == (
        BALANCE,
        other,
        "7, 5000000000",
    )


def test_requests_on_their_way_are_no_faults(sound: Store) -> None:
    """Spec: it may be asked beside a running server."""
    assert Book(sound).show("other").held == usd("2")
    assert faults(sound) == []
