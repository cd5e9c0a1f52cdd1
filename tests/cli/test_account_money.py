"""Money that comes in, goes back and is given, by `droveway accounts`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from books import usd
from droveway.ledger import Book
from droveway.storage import Store
from printed import HERE, RATES, TOPUP, Call, one_line, open_acme, sound, told, top_up

REFUND = ("accounts", "refund")
GRANT = ("accounts", "grant", "acme")


@pytest.fixture
def rates(tmp_path: Path) -> None:
    """Settings that declare a rate, where every command finds them."""
    (tmp_path / "droveway.toml").write_text(RATES.replace("2.50", "0"), encoding="utf-8")


def has(droveway: Call, name: str = "acme") -> tuple[str, str, str]:
    shown = told(droveway("accounts", "show", name, "--json"))
    return shown["available"], shown["posted"], shown["promo"]


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
        "paid": "25.000000001",
        "paid_currency": "USD",
        "rate": None,
        "rate_on": None,
        "source": "manual",
        "refunded": "0.00",
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
        (
            ("1", "--currency", "CNY", "--reference", "a"),
            "no rate for CNY is declared; set [billing.rates.CNY]",
        ),
        (("2", "--currency", "USD", "--reference", "wire-1"), "is that of a top-up of 1.00 USD"),
        (("1", "--currency", "USD", "--reference", " "), "no reference"),
    ):
        assert said in one_line(droveway(*TOPUP, *given), 1)
    assert told(droveway("accounts", "show", "acme", "--json"))["posted"] == "1.00"


def test_a_foreign_topup_is_converted_by_the_declared_rate(droveway: Call, rates: None) -> None:
    droveway("accounts", "add", "acme")
    given = (*TOPUP, "100", "--currency", "CNY", "--reference", "alipay-1")
    assert droveway(*given).stdout == (
        "100.00 CNY paid, at 0.14 of 2026-11-01 that is 14.00 USD, booked for 'acme', which has "
        "14.00 USD available\n"
    )
    again = told(droveway(*given, "--json"))
    assert again["again"] is True
    assert (again["amount"], again["currency"]) == ("14.00", "USD")
    assert (again["paid"], again["paid_currency"]) == ("100.00", "CNY")
    assert (again["rate"], again["rate_on"]) == ("0.14", "2026-11-01")
    assert has(droveway) == ("14.00", "14.00", "0.00")
    assert sound()


def test_a_rate_that_was_changed_changes_no_topup_that_was_booked(
    droveway: Call, rates: None, tmp_path: Path
) -> None:
    droveway("accounts", "add", "acme")
    top_up(droveway, "100", currency="CNY", reference="alipay-1")
    settings = tmp_path / "droveway.toml"
    settings.write_text(settings.read_text().replace("0.14", "0.20"), encoding="utf-8")
    assert (
        "nothing has changed"
        in top_up(droveway, "100", currency="CNY", reference="alipay-1").stdout
    )
    back = told(droveway(*REFUND, "alipay-1", "--reference", "closed", "--json"))
    assert (back["amount"], back["paid"], back["paid_currency"]) == ("14.00", "100.00", "CNY")
    assert has(droveway) == ("0.00", "0.00", "0.00")
    assert sound()


# Refunds.


def test_a_refund_without_an_amount_is_all_that_is_unspent(droveway: Call) -> None:
    """0.5 of the 10 are spent and 2 are held."""
    open_acme(droveway)
    given = (*REFUND, "wire-1", "--reference", "closed-1")
    assert droveway(*given).stdout == (
        "pay 7.50 USD back: it was taken from 'acme', which has 0.00 USD available\n"
    )
    assert droveway(*given).stdout == "'closed-1' was booked already; nothing has changed\n"
    document = told(droveway(*given, "--json"))
    assert document | {"id": "", "account": "", "topup": ""} == {
        "id": "",
        "topup": "",
        "account": "",
        "amount": "7.50",
        "currency": "USD",
        "paid": "7.50",
        "paid_currency": "USD",
        "reference": "closed-1",
        "again": True,
        "available": "0.00",
    }
    refused = droveway(*REFUND, "wire-1", "--reference", "closed-2")
    assert "nothing can be given back" in one_line(refused, 1)
    assert has(droveway) == ("0.00", "2.00", "0.00")
    assert sound()


def test_a_part_of_a_foreign_topup_goes_back_as_it_came(droveway: Call, rates: None) -> None:
    droveway("accounts", "add", "acme")
    top_up(droveway, "100", currency="CNY", reference="alipay-1")
    assert droveway(*REFUND, "alipay-1", "10", "--reference", "r-1").stdout == (
        "pay 10.00 CNY back: 1.40 USD was taken from 'acme', which has 12.60 USD available\n"
    )
    too_much = droveway(*REFUND, "alipay-1", "90.01", "--reference", "r-2")
    assert "90.00 CNY is unspent, which is less than 90.01 CNY" in one_line(too_much, 1)
    assert has(droveway) == ("12.60", "12.60", "0.00")
    assert sound()


def test_a_refund_that_cannot_be_is_one_line_and_moves_nothing(droveway: Call) -> None:
    open_acme(droveway)
    for given, code, said in (
        (("wire-2", "--reference", "r"), 1, "there is no top-up with the reference 'wire-2'"),
        (("wire-1", "8", "--reference", "r"), 1, "7.50 USD is unspent"),
        (("wire-1", "1", "--reference", " "), 1, "no reference"),
        (("wire-1", "0", "--reference", "r"), 2, "more than nothing"),
        (("wire-1", "much", "--reference", "r"), 2, "decimal string"),
        (("wire-1",), 2, "--reference"),
    ):
        assert said in one_line(droveway(*REFUND, *given), code)
    assert has(droveway)[1] == "9.50"
    assert sound()


# Promotional credit.


def test_credit_is_given_once_for_its_reference_and_expires(droveway: Call) -> None:
    open_acme(droveway)
    given = (*GRANT, "5", "--reference", "welcome", "--days", "30")
    shown = droveway(*given)
    assert shown.stdout.startswith("5.00 USD of promotional credit, until ")
    assert shown.stdout.endswith(" given to 'acme', which has 12.50 USD available\n")
    assert droveway(*given).stdout == "'welcome' was given already; nothing has changed\n"
    document = told(droveway(*given, "--json"))
    assert (document["amount"], document["left"]) == ("5.00", "5.00")
    assert document["again"] is True
    left = datetime.fromisoformat(document["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    assert has(droveway) == ("12.50", "9.50", "5.00")
    assert sound()


def test_credit_is_never_given_back(droveway: Call) -> None:
    droveway("accounts", "add", "acme")
    droveway(*GRANT, "5", "--reference", "welcome", "--days", "30")
    refused = droveway(*REFUND, "welcome", "--reference", "r")
    assert "there is no top-up" in one_line(refused, 1)
    top_up(droveway, "1", reference="wire-1")
    document = told(droveway(*REFUND, "wire-1", "--reference", "r", "--json"))
    assert (document["paid"], document["available"]) == ("1.00", "5.00")
    assert sound()


def test_credit_that_cannot_be_given_is_one_line(droveway: Call) -> None:
    droveway("accounts", "add", "acme")
    droveway(*GRANT, "5", "--reference", "welcome", "--days", "30")
    for given, code, said in (
        (("6", "--reference", "welcome", "--days", "30"), 1, "each has a reference of its own"),
        (("5", "--reference", "a", "--days", "0"), 2, "range"),
        (("5", "--reference", "a", "--days", "36501"), 2, "range"),
        (("0", "--reference", "a", "--days", "1"), 2, "more than nothing"),
        (("5", "--reference", "a"), 2, "--days"),
    ):
        assert said in one_line(droveway(*GRANT, *given), code)
    nobody = droveway("accounts", "grant", "x", "1", "--reference", "a", "--days", "1")
    assert "there is no account 'x'" in one_line(nobody, 1)
    assert has(droveway) == ("5.00", "0.00", "5.00")


def test_what_was_booked_is_in_the_books(droveway: Call) -> None:
    """Ours: the command and the ledger see one account."""
    open_acme(droveway)
    droveway(*GRANT, "5", "--reference", "welcome", "--days", "30")
    with Store(HERE) as store:
        account = Book(store).show("acme")
        assert (account.posted, account.promo, account.held) == (usd("9.5"), usd("5"), usd("2"))
        assert [each.reference for each in Book(store).topups("acme")] == ["wire-1"]
