"""`droveway accounts statement`: for people, for programs, for a spreadsheet."""

import csv
from pathlib import Path
from typing import Any

import pytest

from printed import RATES, Call, one_line, open_acme, sound, told, top_up


@pytest.fixture
def acme(droveway: Call) -> dict[str, Any]:
    """An account with 10 USD, of which 2 are held and 0.5 were used."""
    return open_acme(droveway)


def busy(droveway: Call, folder: Path) -> None:
    """Both funds, both directions, and another currency."""
    (folder / "droveway.toml").write_text(RATES, encoding="utf-8")
    told(droveway("accounts", "add", "acme", "--json"))
    top_up(droveway, "100", currency="CNY", reference='=HYPERLINK("x"), y')
    top_up(droveway, "1", reference="@wire")
    droveway("accounts", "refund", '=HYPERLINK("x"), y', "50", "--reference", "-1+1")
    droveway("accounts", "grant", "acme", "3", "--reference", "sorry", "--days", "1")


def test_a_statement_is_what_moved_the_money(droveway: Call, acme: dict[str, Any]) -> None:
    entries = told(droveway("accounts", "statement", "acme", "--json"))
    assert [(each["kind"], each["reference"], each["amount"], each["currency"]) for each in entries] == [
        ("topup", "wire-1", "10.00", "USD"),
        ("usage", "req_1", "-0.50", "USD"),
    ]  # fmt: skip
    text = droveway("accounts", "statement", "acme")
    assert [line.split()[2:] for line in text.stdout.splitlines()[2:]] == [
        ["topup", "wire-1", "money", "10.00", "USD"],
        ["usage", "req_1", "money", "-0.50", "USD"],
    ]
    assert "Together 9.50 USD, in both funds." in text.stderr


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


def test_a_statement_tells_both_funds_and_what_was_paid_elsewhere(
    droveway: Call, tmp_path: Path
) -> None:
    busy(droveway, tmp_path)
    found = told(droveway("accounts", "statement", "acme", "--json"))
    assert [
        (each["kind"], each["fund"], each["amount"], each["paid"], each["paid_currency"])
        for each in found
    ] == [
        ("grant", "promo", "2.50", None, None),
        ("topup", "money", "14.00", "100.00", "CNY"),
        ("topup", "money", "1.00", None, None),
        ("refund", "money", "-7.00", "-50.00", "CNY"),
        ("grant", "promo", "3.00", None, None),
    ]
    text = droveway("accounts", "statement", "acme")
    assert text.stderr == "Together 13.50 USD, in both funds.\n"
    assert max(map(len, text.stdout.splitlines())) <= 100
    assert "100.00 CNY" in text.stdout
    assert told(droveway("accounts", "show", "acme", "--json"))["available"] == "13.50"
    assert sound()


def test_a_statement_for_a_spreadsheet_holds_no_formula(droveway: Call, tmp_path: Path) -> None:
    """Ours: a reference may be a stranger's, and is no formula."""
    busy(droveway, tmp_path)
    shown = droveway("accounts", "statement", "acme", "--csv")
    head, *lines = csv.reader(shown.stdout.splitlines())
    columns = ["at", "kind", "reference", "amount", "currency", "fund", "paid", "paid_currency"]
    assert head == columns
    assert [line[1:] for line in lines[1:]] == [
        ["topup", '\'=HYPERLINK("x"), y', "14.00", "USD", "money", "100.00", "CNY"],
        ["topup", "'@wire", "1.00", "USD", "money", "", ""],
        ["refund", "'-1+1", "-7.00", "USD", "money", "-50.00", "CNY"],
        ["grant", "sorry", "3.00", "USD", "promo", "", ""],
    ]
    one_line(droveway("accounts", "statement", "acme", "--csv", "--json"), 2)


def test_a_statement_of_nothing_has_no_sum(droveway: Call) -> None:
    droveway("accounts", "add", "acme")
    shown = droveway("accounts", "statement", "acme")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert told(droveway("accounts", "statement", "acme", "--json")) == []
