"""`droveway accounts voucher`: codes are printed once, and are worth something once."""

import csv
import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from books import damage
from droveway.storage import Store
from printed import HERE, Call, one_line, sound, told

ISSUE = ("accounts", "voucher", "issue")
LIST = ("accounts", "voucher", "list")
REDEEM = ("accounts", "voucher", "redeem")
CODE = r"(?:[2-9A-HJKMNP-Z]{5}-){3}[2-9A-HJKMNP-Z]{5}"


def issued(droveway: Call, *given: str) -> str:
    (made,) = told(droveway(*ISSUE, *given, "--json"))
    return str(made["code"])


def test_codes_are_printed_alone_on_stdout_and_never_again(droveway: Call) -> None:
    made = droveway(*ISSUE, "5", "--count", "3")
    codes = made.stdout.splitlines()
    assert len(set(codes)) == 3
    assert all(re.fullmatch(CODE, code) for code in codes)
    assert "nobody can show a code again" in made.stderr
    for shown in (droveway(*LIST), droveway(*LIST, "--json")):
        assert shown.exit_code == 0
        assert all(code[:5] in shown.stdout for code in codes)
        assert not [code for code in codes if code in shown.output]
    # Nor does the store hold them: their SHA-256 is all it needs.
    kept = b"".join(path.read_bytes() for path in Path().glob(f"{HERE}*"))
    for code in codes:
        assert code.encode() not in kept
        assert code.replace("-", "").encode() not in kept
        assert hashlib.sha256(code.replace("-", "").encode()).digest() in kept


def test_json_and_csv_are_for_programs(droveway: Call) -> None:
    terms = ("--credit-days", "30", "--currency", "cny", "--expires", "2126-01-01")
    given = ("5", "--count", "2", *terms)
    made = told(droveway(*ISSUE, *given, "--json"))
    assert [each | {"id": "", "code": "", "shown": "", "issued_at": ""} for each in made] == [
        {
            "id": "",
            "shown": "",
            "amount": "5.00",
            "currency": "CNY",
            "credit_days": 30,
            "issued_at": "",
            "expires_at": "2126-01-01T00:00:00Z",
            "account": None,
            "redeemed_at": None,
            "code": "",
        }
    ] * 2
    shown = droveway(*ISSUE, *given, "--csv")
    head, *lines = csv.reader(shown.stdout.splitlines())
    assert head == ["code", "amount", "currency", "credit_days", "expires_at"]
    assert all(re.fullmatch(CODE, line[0]) for line in lines)
    assert [line[1:] for line in lines] == [["5.00", "CNY", "30", "2126-01-01T00:00:00+00:00"]] * 2
    one_line(droveway(*ISSUE, "5", "--csv", "--json"), 2)
    kept = told(droveway(*LIST, "--json"))
    assert {each["expires_at"] for each in kept} == {"2126-01-01T00:00:00Z"}


def test_the_currency_is_that_of_the_settings_by_default(droveway: Call, tmp_path: Path) -> None:
    (tmp_path / "droveway.toml").write_text('[billing]\ncurrency = "EUR"\n', encoding="utf-8")
    (made,) = told(droveway(*ISSUE, "5", "--json"))
    assert made["currency"] == "EUR"


def test_a_voucher_is_worth_money_once(droveway: Call) -> None:
    for name in ("acme", "other"):
        droveway("accounts", "add", name)
    code = issued(droveway, "5")
    typed = f" {code.lower().replace('-', ' ')}"
    assert droveway(*REDEEM, typed, "acme").stdout == (
        "5.00 USD booked for 'acme', which has 5.00 USD available\n"
    )
    again = droveway(*REDEEM, code, "acme")
    assert again.stdout == "'acme' has redeemed this voucher already; nothing has changed\n"
    assert "was redeemed already" in one_line(droveway(*REDEEM, code, "other"), 1)
    shown = told(droveway("accounts", "show", "acme", "--json"))
    assert (shown["posted"], shown["promo"]) == ("5.00", "0.00")
    (listed,) = told(droveway(*LIST, "--json"))
    assert listed["account"] == shown["id"]
    assert listed["redeemed_at"] is not None
    assert "acme" in droveway(*LIST).stdout
    assert sound()


def test_a_voucher_may_be_promotional_credit(droveway: Call) -> None:
    droveway("accounts", "add", "acme")
    code = issued(droveway, "5", "--credit-days", "30")
    text = droveway(*REDEEM, code, "acme").stdout
    assert text.startswith("5.00 USD of promotional credit, until ")
    document = told(droveway(*REDEEM, code, "acme", "--json"))
    assert (document["fund"], document["amount"], document["again"]) == ("promo", "5.00", True)
    left = datetime.fromisoformat(document["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    shown = told(droveway("accounts", "show", "acme", "--json"))
    assert (shown["posted"], shown["promo"]) == ("0.00", "5.00")
    assert sound()


def test_what_cannot_be_redeemed_is_one_line_and_moves_nothing(droveway: Call) -> None:
    droveway("accounts", "add", "acme")
    code, cny = issued(droveway, "5"), issued(droveway, "5", "--currency", "CNY")
    gone = issued(droveway, "5", "--expires", "2126-01-01")
    with Store(HERE) as store:
        damage(store, "UPDATE voucher SET expires_at_us = 1 WHERE expires_at_us IS NOT NULL")
    for given, said in (
        (("AAAAA-AAAAA-AAAAA-AAAAA", "acme"), "there is no voucher with this code"),
        (("", "acme"), "there is no voucher with this code"),
        ((code, "x"), "there is no account 'x'"),
        ((cny, "acme"), "the voucher is in CNY, and the account 'acme' is in USD"),
        ((gone, "acme"), "has expired"),
    ):
        refused = droveway(*REDEEM, *given)
        assert said in one_line(refused, 1)
        assert not given[0] or given[0] not in refused.stderr
    assert told(droveway("accounts", "show", "acme", "--json"))["available"] == "0.00"
    assert sound()


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("0",), 2, "more than nothing"),
        (("five",), 2, "decimal string"),
        (("5", "--count", "0"), 2, "range"),
        (("5", "--count", "1001"), 2, "range"),
        (("5", "--credit-days", "0"), 2, "range"),
        (("5", "--currency", "dollars"), 2, "currency"),
        (("5", "--expires", "soon"), 2, "no moment"),
        (("5", "--expires", "9999-12-31T23:59:59-14:00"), 2, "leave it out for ever"),
        (("5", "--expires", "2020-01-01"), 1, "gone already"),
    ],
)
def test_what_cannot_be_issued_is_one_line_and_makes_nothing(
    given: tuple[str, ...], code: int, said: str, *, droveway: Call
) -> None:
    droveway("accounts", "add", "acme")
    assert said in one_line(droveway(*ISSUE, *given), code)
    assert told(droveway(*LIST, "--json")) == []
