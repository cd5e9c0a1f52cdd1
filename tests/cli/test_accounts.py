"""`droveway accounts` and `droveway ledger`: beside a running server, on one file."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from books import add_epoch, captured, damage, released, taken, usd
from droveway.accounts import KeyRing
from droveway.ledger import Book, faults
from droveway.storage import Store
from lab import run

Call = Callable[..., Result]
HERE = Path("droveway.db")
TOPUP = ("accounts", "topup", "acme")


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def amounts(document: dict[str, Any]) -> tuple[str, str, str]:
    return document["available"], document["held"], document["posted"]


def one_line(result: Result, code: int) -> str:
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def acme(droveway: Call) -> dict[str, Any]:
    """An account with 10 USD, of which 2 are held and 0.5 were used."""
    made = told(droveway("accounts", "add", "acme", "--json"))
    droveway(*TOPUP, "10", "--currency", "USD", "--reference", "wire-1")

    async def use(store: Store) -> None:
        account = Book(store).show("acme")
        await add_epoch(store)
        for hold_id in ("req_1", "req_2"):
            await taken(store, hold_id, usd("2"), account=account)
        await captured(store, "req_1", usd("0.5"))

    with Store(HERE) as store:
        run(use(store))
    return dict(made)


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
        "created_at": "",
        "frozen_at": None,
    }
    assert (
        told(droveway("accounts", "add", "b", "--currency", "cny", "--json"))["currency"] == "CNY"
    )
    assert "0.00 CNY" in droveway("accounts", "add", "c", "--currency", "CNY").stdout


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


def test_list_shows_every_account(droveway: Call, acme: dict[str, Any]) -> None:
    droveway("accounts", "add", "other", "--currency", "CNY")
    droveway("accounts", "freeze", "other")
    documents = told(droveway("accounts", "list", "--json"))
    assert [each["name"] for each in documents] == ["acme", "other"]
    assert amounts(documents[0]) == ("7.50", "2.00", "9.50")
    lines = droveway("accounts", "list").stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2].split() == ["acme", acme["id"], "open", "7.50", "2.00", "9.50", "USD"]
    assert lines[3].split()[2:] == ["frozen", "0.00", "0.00", "0.00", "CNY"]


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


# Top-ups.


def test_a_topup_is_booked_once_for_its_reference(droveway: Call) -> None:
    droveway("accounts", "add", "acme")
    given = (*TOPUP, "25.000000001", "--currency", "usd", "--reference", "wire-1")
    first = told(droveway(*given, "--json"))
    assert first | {"id": "", "account": "", "at": ""} == {
        "id": "",
        "account": "",
        "amount": "25.000000001",
        "currency": "USD",
        "reference": "wire-1",
        "at": "",
        "again": False,
        "available": "25.000000001",
    }
    assert told(droveway(*given, "--json")) == first | {"again": True}
    again = droveway(*given)
    assert again.exit_code == 0
    assert "'wire-1' was booked at" in again.stdout
    assert "nothing has changed" in again.stdout
    assert told(droveway("accounts", "show", "acme", "--json"))["posted"] == "25.000000001"
    other = droveway(*TOPUP, "1.5", "--currency", "USD", "--reference", "wire-2")
    assert other.stdout == "1.50 USD booked for 'acme', which has 26.500000001 USD available\n"


@pytest.mark.parametrize(
    "amount", ["1e3", "1,5", "0x1", "ten", "", " 1", "nan", "1.0000000001", "0", "0.00", "1_000",
               "99999999999"],
)  # fmt: skip
def test_a_bad_amount_is_wrong_usage(amount: str, droveway: Call) -> None:
    droveway("accounts", "add", "acme")
    given = (*TOPUP, amount, "--currency", "USD", "--reference", "wire-1")
    assert "see droveway accounts topup --help" in one_line(droveway(*given), 2)
    assert told(droveway("accounts", "show", "acme", "--json"))["posted"] == "0.00"


def test_wrong_usage_and_other_refusals_are_one_line(droveway: Call) -> None:
    droveway("accounts", "add", "acme")
    droveway(*TOPUP, "1", "--currency", "USD", "--reference", "wire-1")
    for given in (
        ("-1", "--currency", "USD", "--reference", "a"),
        ("1", "--reference", "a"),
        ("1", "--currency", "USD"),
        ("1", "--currency", "dollars", "--reference", "a"),
    ):
        one_line(droveway(*TOPUP, *given), 2)
    for given, said in (
        (("1", "--currency", "CNY", "--reference", "a"), "is in USD, not in CNY"),
        (("2", "--currency", "USD", "--reference", "wire-1"), "is that of a top-up of 1.00 USD"),
        (("1", "--currency", "USD", "--reference", " "), "no reference"),
    ):
        assert said in one_line(droveway(*TOPUP, *given), 1)
    assert told(droveway("accounts", "show", "acme", "--json"))["posted"] == "1.00"


# Statements.


def test_a_statement_is_what_moved_the_money(droveway: Call, acme: dict[str, Any]) -> None:
    entries = told(droveway("accounts", "statement", "acme", "--json"))
    assert [(each["kind"], each["reference"], each["amount"], each["currency"]) for each in entries] == [
        ("topup", "wire-1", "10.00", "USD"),
        ("usage", "req_1", "-0.50", "USD"),
    ]  # fmt: skip
    text = droveway("accounts", "statement", "acme")
    assert [line.split()[2:] for line in text.stdout.splitlines()[2:]] == [
        ["topup", "wire-1", "10.00", "USD"],
        ["usage", "req_1", "-0.50", "USD"],
    ]
    assert "9.50 USD" in text.stderr


def test_a_statement_is_of_a_time(droveway: Call, acme: dict[str, Any]) -> None:
    at = {
        each["kind"]: each["at"]
        for each in told(droveway("accounts", "statement", "acme", "--json"))
    }
    # The tests' holds are of 2026-11-23 12:00; the top-up is of now.
    assert at["usage"] == "2026-11-23T12:00:00Z"

    def kinds(*given: str) -> set[str]:
        found = told(droveway("accounts", "statement", "acme", "--json", *given))
        return {each["kind"] for each in found}

    assert kinds("--from", "2026-11-23T12:00", "--to", "2026-11-23T12:00:01") == {"usage"}
    assert "usage" not in kinds("--to", "2026-11-23T12:00")
    assert "topup" in kinds("--from", at["topup"])
    assert "topup" not in kinds("--to", at["topup"])
    one_line(droveway("accounts", "statement", "acme", "--from", "soon"), 2)


def test_a_statement_for_a_spreadsheet(droveway: Call, acme: dict[str, Any]) -> None:
    """Ours: a reference may be a stranger's, and is no formula."""
    given = ("--currency", "USD", "--reference", '=HYPERLINK("x"), y')
    assert droveway(*TOPUP, "1", *given).exit_code == 0
    shown = droveway("accounts", "statement", "acme", "--csv")
    head, *lines = csv.reader(shown.stdout.splitlines())
    assert head == ["at", "kind", "reference", "amount", "currency"]
    assert [line[1:] for line in lines] == [
        ["topup", "wire-1", "10.00", "USD"],
        ["usage", "req_1", "-0.50", "USD"],
        ["topup", '\'=HYPERLINK("x"), y', "1.00", "USD"],
    ]
    one_line(droveway("accounts", "statement", "acme", "--csv", "--json"), 2)


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
