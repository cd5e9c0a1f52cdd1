"""`droveway accounts` and `droveway ledger`: beside a running server, on one file."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from books import damage, released, usd
from droveway.accounts import KeyRing
from droveway.ledger import Book, faults
from droveway.storage import Store
from lab import run
from printed import HERE, RATES, TOPUP, Call, amounts, one_line, open_acme, sound, told


@pytest.fixture
def acme(droveway: Call) -> dict[str, Any]:
    """An account with 10 USD, of which 2 are held and 0.5 were used."""
    return open_acme(droveway)


# Accounts.


def test_add_makes_the_store_and_an_account_with_nothing(droveway: Call) -> None:
    made = told(droveway("accounts", "add", "acme", "--json"))
    assert made | {"id": "", "created_at": ""} == {
        "id": "",
        "name": "acme",
        "currency": "USD",
        "available": "0.00",
        "held": "0.00",
        "posted": "0.00",
        "promo": "0.00",
        "created_at": "",
        "frozen_at": None,
    }
    assert (
        told(droveway("accounts", "add", "b", "--currency", "cny", "--json"))["currency"] == "CNY"
    )
    shown = droveway("accounts", "add", "c", "--currency", "CNY")
    assert "0.00 CNY" in shown.stdout
    assert shown.stderr == ""


def test_add_tells_the_sign_up_credit(droveway: Call, tmp_path: Path) -> None:
    """Ours: it is given in the currency of the settings only."""
    settings = tmp_path / "droveway.toml"
    settings.write_text(RATES, encoding="utf-8")
    shown = droveway("accounts", "add", "acme")
    until = datetime.now(UTC) + timedelta(days=10)
    assert "2.50 USD" in shown.stdout
    assert "2.50 USD of sign-up credit, until" in shown.stderr
    document = told(droveway("accounts", "show", "acme", "--json"))
    assert (*amounts(document), document["promo"]) == ("2.50", "0.00", "0.00", "2.50")
    expires_at = datetime.fromisoformat(document["promo_expires_at"])
    assert timedelta(0) <= until - expires_at < timedelta(minutes=5)
    page = " ".join(droveway("accounts", "show", "acme").stdout.split())
    assert f"promotional 2.50 USD, the first of it expires at {expires_at:%Y-%m-%d %H:%M}" in page
    assert droveway("accounts", "add", "cn", "--currency", "CNY").stderr == ""
    settings.write_text('[billing]\ncurrency = "EUR"\n', encoding="utf-8")
    assert told(droveway("accounts", "add", "eu", "--json"))["currency"] == "EUR"
    assert sound()


def test_show_says_decimal_strings(droveway: Call, acme: dict[str, Any]) -> None:
    """Spec: scripts rely on available, held and posted."""
    for word in ("acme", acme["id"]):
        assert amounts(told(droveway("accounts", "show", word, "--json"))) == (
            "7.50",
            "2.00",
            "9.50",
        )
    text = droveway("accounts", "show", "acme").stdout
    assert all(word in text for word in ("7.50 USD", "2.00 USD", "9.50 USD", "open", acme["id"]))
    assert "frozen" not in text


def test_show_says_for_how_long_it_will_do(droveway: Call) -> None:
    open_acme(droveway, now=True)
    document = told(droveway("accounts", "show", "acme", "--json"))
    assert (document["daily"], document["days_left"]) == ("0.50", 15)
    assert document["promo_expires_at"] is None
    text = droveway("accounts", "show", "acme").stdout
    assert text.endswith("days left 15, at 0.50 USD a day in the last week\n")


def test_where_nothing_was_used_no_days_are_told(droveway: Call) -> None:
    droveway("accounts", "add", "acme")
    document = told(droveway("accounts", "show", "acme", "--json"))
    assert (document["daily"], document["days_left"]) == ("0.00", None)
    assert "nothing was used in the last week" in droveway("accounts", "show", "acme").stdout


def test_list_shows_every_account(droveway: Call, acme: dict[str, Any]) -> None:
    droveway("accounts", "add", "other", "--currency", "CNY")
    droveway("accounts", "freeze", "other")
    documents = told(droveway("accounts", "list", "--json"))
    assert [each["name"] for each in documents] == ["acme", "other"]
    assert amounts(documents[0]) == ("7.50", "2.00", "9.50")
    lines = droveway("accounts", "list").stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2].split() == ["acme", acme["id"], "open", "7.50", "2.00", "9.50", "0.00", "USD"]
    assert lines[3].split()[2:] == ["frozen", "0.00", "0.00", "0.00", "0.00", "CNY"]


def test_freeze_and_thaw_are_harmless_twice(droveway: Call, acme: dict[str, Any]) -> None:
    first = told(droveway("accounts", "freeze", "acme", "--json"))["frozen_at"]
    assert first is not None
    assert told(droveway("accounts", "freeze", acme["id"], "--json"))["frozen_at"] == first
    assert "frozen" in droveway("accounts", "show", "acme").stdout
    assert told(droveway("accounts", "thaw", "acme", "--json"))["frozen_at"] is None
    assert "open" in droveway("accounts", "thaw", "acme").stdout


def test_what_is_taken_or_unknown_is_one_line(droveway: Call, acme: dict[str, Any]) -> None:
    assert "there is an account 'acme' already" in one_line(droveway("accounts", "add", "acme"), 1)
    for command in ("show", "freeze", "thaw", "statement"):
        assert "there is no account 'x'" in one_line(droveway("accounts", command, "x"), 1)
    unknown = droveway("accounts", "topup", "x", "1", "--currency", "USD", "--reference", "r")
    assert "there is no account 'x'" in one_line(unknown, 1)


def test_without_a_store_only_add_makes_one(droveway: Call) -> None:
    for command in (
        ("accounts", "list"),
        ("accounts", "freeze", "a"),
        (*TOPUP, "1", "--currency", "USD", "--reference", "r"),
        ("ledger", "verify"),
    ):
        assert "there is no store" in one_line(droveway(*command), 2)
    assert not HERE.exists()


def test_the_settings_name_the_store(droveway: Call, tmp_path: Path) -> None:
    settings = tmp_path / "own.toml"
    settings.write_text('[storage]\nurl = "sqlite:own.db"\n', encoding="utf-8")
    assert droveway("accounts", "add", "acme", "--config", settings).exit_code == 0
    assert droveway("ledger", "verify", "--config", settings).exit_code == 0
    assert (tmp_path / "own.db").exists()
    assert not HERE.exists()


# Keys.


def test_a_key_belongs_to_an_account_by_its_name_or_id(
    droveway: Call, acme: dict[str, Any]
) -> None:
    for word in ("acme", acme["id"]):
        made = told(droveway("keys", "add", f"of {word}", "--account", word, "--json"))
        assert made["account"] == acme["id"]
        with Store(HERE) as store:
            assert KeyRing(store).find(made["key"]).account == acme["id"]
    droveway("keys", "add", "nobody's")
    shown = told(droveway("keys", "list", "--json"))
    assert [each["account"] for each in shown] == [acme["id"], acme["id"], None]
    lines = droveway("keys", "list").stdout
    assert lines.count("acme") >= 3
    assert max(map(len, lines.splitlines())) <= 100
    assert ["account", "acme"] in [
        line.split() for line in droveway("keys", "show", "of acme").stdout.splitlines()
    ]
    assert "account" not in droveway("keys", "show", "nobody's").stdout
    # It stays with it.
    assert told(droveway("keys", "rotate", "of acme", "--json"))["account"] == acme["id"]
    assert told(droveway("keys", "revoke", "of acme", "--json"))["account"] == acme["id"]


def test_a_key_of_an_unknown_account_is_not_made(droveway: Call, acme: dict[str, Any]) -> None:
    refused = droveway("keys", "add", "alice", "--account", "acm")
    assert "there is no account 'acm'; see droveway accounts list" in one_line(refused, 1)
    assert told(droveway("keys", "list", "--json")) == []


# The ledger.


def test_a_sound_ledger_is_one_line(droveway: Call, acme: dict[str, Any]) -> None:
    """Spec: requests on their way are no faults."""
    shown = droveway("ledger", "verify")
    assert (shown.exit_code, shown.stdout) == (
        0,
        "the ledger is as it must be: 1 accounts, 2 transfers, 2 holds\n",
    )
    assert told(droveway("ledger", "verify", "--json")) == {
        "accounts": 1,
        "transfers": 2,
        "holds": 2,
        "faults": [],
    }


def test_a_damaged_ledger_is_a_table_and_fails(droveway: Call, acme: dict[str, Any]) -> None:
    with Store(HERE) as store:
        damage(store, "UPDATE account SET posted_nano = 1 WHERE name = 'acme'")
    shown = droveway("ledger", "verify")
    assert shown.exit_code == 1
    assert shown.stderr == ""
    assert "a balance is the sum of its entries" in shown.stdout
    assert acme["id"] in shown.stdout
    as_json = droveway("ledger", "verify", "--json")
    assert as_json.exit_code == 1
    assert {
        "rule": "a balance is the sum of its entries",
        "what": acme["id"],
        "found": "1, 9500000000",
    } in json.loads(as_json.stdout)["faults"]


def test_a_command_resolves_nobodys_holds(droveway: Call, acme: dict[str, Any]) -> None:
    """Spec: that is for a server that starts."""
    for command in (("accounts", "list"), ("ledger", "verify"), ("keys", "add", "k")):
        assert droveway(*command).exit_code == 0
    with Store(HERE) as store:
        assert Book(store).show("acme").held == usd("2")
        assert run(released(store, "req_2"))
        assert faults(store) == []
