"""Accounts over the admin API, on a real socket: each path that moves money ends in sound books."""

from datetime import date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from accounts_door import ACCOUNTS, ACME, ADMIN, BUDGETS, funded, refused, said, through
from books import add_epoch, captured, taken, usd
from droveway.settings import BillingSettings, RateSettings
from operator_door import OperatorDoor, send

BILLING = BillingSettings(
    signup_credit="2", rates={"CNY": RateSettings(per_unit="0.14", on=date(2026, 11, 1))}
)


async def use(door: OperatorDoor, *subjects: str) -> None:
    """Hold 2 twice, and charge 0.5 for one of them, now."""
    account, at = door.desk.book.show("acme"), door.engine.clock.now()
    await add_epoch(door.store)
    for hold_id in ("req_1", "req_2"):
        await taken(door.store, hold_id, usd("2"), account=account, at=at, subjects=subjects)
    await captured(door.store, "req_1", usd("0.5"), at=at)


# Accounts.


def test_an_account_is_opened_with_its_sign_up_credit_and_told_with_its_forecast(
    tmp_path: Path,
) -> None:
    async def work(door: OperatorDoor) -> None:
        made = await said(door, f"POST {ACCOUNTS}", {"name": " acme "}, status=201)
        assert made | {"id": "", "created_at": ""} == {
            "id": "",
            "name": "acme",
            "currency": "USD",
            "available": "2.00",
            "held": "0.00",
            "posted": "0.00",
            "promo": "2.00",
            "created_at": "",
            "frozen_at": None,
        }
        assert made["created_at"].endswith("Z")
        assert (await said(door, f"GET {ACCOUNTS}"))["data"] == [made]
        for word in ("acme", made["id"]):
            shown = await said(door, f"GET {ACCOUNTS}/{word}")
            expires_at = datetime.fromisoformat(shown.pop("promo_expires_at"))
            assert timedelta(29) < expires_at - door.engine.clock.now() <= timedelta(30)
            assert (shown.pop("daily"), shown.pop("days_left")) == ("0.00", None)
            assert shown == made
        cny = await said(door, f"POST {ACCOUNTS}", {"name": "cn", "currency": "CNY"}, status=201)
        assert (cny["currency"], cny["promo"]) == ("CNY", "0.00")
        status, message = await refused(door, f"POST {ACCOUNTS}", {"name": "acme"})
        assert (status, "there is an account 'acme' already" in message) == (400, True)

    through(tmp_path, work, BILLING)


def test_the_forecast_is_what_was_used_in_the_last_week(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        await funded(door)
        await use(door)
        shown = await said(door, f"GET {ACME}")
        told = [shown[name] for name in ("available", "held", "posted", "daily", "days_left")]
        assert told == ["7.50", "2.00", "9.50", "0.50", 15]
        assert shown["promo_expires_at"] is None

    through(tmp_path, work)


def test_any_name_that_can_be_given_can_be_asked_for(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        for name in ("a/b", "a/freeze", "..", "50%", "a b?c#d", "搜索"):
            made = await said(door, f"POST {ACCOUNTS}", {"name": name}, status=201)
            shown = await said(door, f"GET {ACCOUNTS}/{quote(name, safe='')}")
            assert shown["id"] == made["id"], name

    through(tmp_path, work)


def test_freezing_and_thawing_twice_is_freezing_and_thawing(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        await funded(door)
        first = await said(door, f"POST {ACME}/freeze")
        assert first["frozen_at"] is not None
        assert await said(door, f"POST {ACME}/freeze") == first
        for _ in range(2):
            assert (await said(door, f"POST {ACME}/thaw"))["frozen_at"] is None

    through(tmp_path, work)


# Money.


def test_a_topup_is_201_first_and_200_again_and_booked_once(tmp_path: Path) -> None:
    body = {"amount": "25.000000001", "currency": "USD", "reference": "wire-1"}

    async def work(door: OperatorDoor) -> None:
        made = await said(door, f"POST {ACCOUNTS}", {"name": "acme"}, status=201)
        first = await said(door, f"POST {ACME}/topups", body, status=201)
        assert first | {"id": "", "at": ""} == {
            "id": "",
            "account": made["id"],
            "amount": "25.000000001",
            "currency": "USD",
            "reference": "wire-1",
            "at": "",
            "paid": "25.000000001",
            "paid_currency": "USD",
            "rate": None,
            "rate_on": None,
            "source": "manual",
            "refunded": "0.00",
            "again": False,
        }
        assert await said(door, f"POST {ACME}/topups", body) == first | {"again": True}
        assert (await said(door, f"GET {ACME}/topups"))["data"] == [first]
        assert (await said(door, f"GET {ACME}"))["posted"] == "25.000000001"
        status, message = await refused(door, f"POST {ACME}/topups", {**body, "amount": "1"})
        assert (status, "each top-up has a reference of its own" in message) == (400, True)

    through(tmp_path, work)


def test_foreign_money_comes_in_by_the_declared_rate_and_goes_back_by_it(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        await said(door, f"POST {ACCOUNTS}", {"name": "acme"}, status=201)
        paid = {"amount": "100", "currency": "CNY", "reference": "alipay/1"}
        booked = await said(door, f"POST {ACME}/topups", paid, status=201)
        assert (booked["amount"], booked["paid"]) == ("14.00", "100.00")
        assert (booked["rate"], booked["rate_on"]) == ("0.14", "2026-11-01")
        refunds = f"{ADMIN}/topups/{quote('alipay/1', safe='')}/refunds"
        part = {"amount": "10", "currency": "CNY", "reference": "r-1"}
        back = await said(door, f"POST {refunds}", part, status=201)
        assert (back["amount"], back["currency"]) == ("1.40", "USD")
        assert (back["paid"], back["paid_currency"]) == ("10.00", "CNY")
        rest = await said(door, f"POST {refunds}", {"reference": "r-2"}, status=201)
        assert rest["paid"] == "90.00"
        assert await said(door, f"POST {refunds}", {"reference": "r-2"}) == rest | {"again": True}
        for body, words in (
            ({"amount": "1", "currency": "USD", "reference": "r-3"}, "came in CNY"),
            ({"reference": "r-3"}, "nothing can be given back"),
            ({"reference": "r-3", "amount": "1"}, "belong together"),
            ({"reference": "r-3", "currency": "CNY"}, "belong together"),
        ):
            status, message = await refused(door, f"POST {refunds}", body)
            assert (status, words in message) == (400, True), message
        euros = {"amount": "1", "currency": "EUR", "reference": "x"}
        status, message = await refused(door, f"POST {ACME}/topups", euros)
        assert (status, "no rate for EUR" in message) == (400, True)

    through(tmp_path, work, BillingSettings(rates=BILLING.rates))


def test_all_that_is_unspent_goes_back_and_no_more(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        await funded(door)
        await use(door)
        refunds = f"{ADMIN}/topups/wire-1/refunds"
        too_much = {"amount": "7.500000001", "currency": "USD", "reference": "r-1"}
        status, message = await refused(door, f"POST {refunds}", too_much)
        assert (status, "7.50 USD is unspent" in message) == (400, True)
        back = await said(door, f"POST {refunds}", {"reference": "r-1"}, status=201)
        assert back["paid"] == "7.50"
        shown = await said(door, f"GET {ACME}")
        assert (shown["available"], shown["held"], shown["posted"]) == ("0.00", "2.00", "2.00")

    through(tmp_path, work)


def test_credit_is_given_once_for_its_reference(tmp_path: Path) -> None:
    body = {"amount": "5", "currency": "USD", "reference": "welcome", "days": 30}

    async def work(door: OperatorDoor) -> None:
        await funded(door)
        first = await said(door, f"POST {ACME}/credits", body, status=201)
        left = datetime.fromisoformat(first["expires_at"]) - door.engine.clock.now()
        assert timedelta(29) < left <= timedelta(30)
        assert (first["amount"], first["left"], first["again"]) == ("5.00", "5.00", False)
        assert await said(door, f"POST {ACME}/credits", body) == first | {"again": True}
        for changed, words in (
            ({"currency": "CNY", "reference": "a"}, "is in USD, not in CNY"),
            ({"amount": "6"}, "of its own"),
            ({"amount": "0", "reference": "a"}, "more than nothing"),
        ):
            status, message = await refused(door, f"POST {ACME}/credits", {**body, **changed})
            assert (status, words in message) == (400, True), message
        shown = await said(door, f"GET {ACME}")
        assert (shown["available"], shown["posted"], shown["promo"]) == ("15.00", "10.00", "5.00")
        assert shown["promo_expires_at"] == first["expires_at"]

    through(tmp_path, work)


def test_a_statement_tells_both_funds_within_a_time(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        await said(door, f"POST {ACCOUNTS}", {"name": "acme"}, status=201)
        paid = {"amount": "100", "currency": "CNY", "reference": "alipay-1"}
        await said(door, f"POST {ACME}/topups", paid, status=201)
        await said(door, f"POST {ADMIN}/topups/alipay-1/refunds", {"reference": "r"}, status=201)
        lines = (await said(door, f"GET {ACME}/statement"))["data"]
        keys = ("kind", "fund", "amount", "currency", "paid", "paid_currency")
        assert [[line[key] for key in keys] for line in lines] == [
            ["grant", "promo", "2.00", "USD", None, None],
            ["topup", "money", "14.00", "USD", "100.00", "CNY"],
            ["refund", "money", "-14.00", "USD", "-100.00", "CNY"],
        ]
        at = quote(lines[1]["at"])
        assert (await said(door, f"GET {ACME}/statement?from={at}"))["data"] == lines[1:]
        assert (await said(door, f"GET {ACME}/statement?to={at}"))["data"] == lines[:1]
        assert (await said(door, f"GET {ACME}/statement?from={at}&to={at}"))["data"] == []

    through(tmp_path, work, BILLING)


# Vouchers.


def test_a_voucher_is_shown_once_and_worth_something_once(tmp_path: Path) -> None:
    worth = {"amount": "5", "currency": "USD"}

    async def work(door: OperatorDoor) -> None:
        await funded(door, "1")
        await said(door, f"POST {ACCOUNTS}", {"name": "other"}, status=201)
        make = f"POST {ADMIN}/vouchers"
        made = (await said(door, make, {**worth, "count": 2}, status=201))["data"]
        made += (await said(door, make, {**worth, "credit_days": 9}, status=201))["data"]
        code, _, promo = [each.pop("code") for each in made]
        listed = await send(door, f"GET {ADMIN}/vouchers")
        assert sorted(made, key=str) == sorted(listed.told["data"], key=str)
        assert code.encode() not in listed.body
        first = await said(door, f"POST {ACME}/vouchers", {"code": code.lower()}, status=201)
        assert (first["fund"], first["amount"], first["expires_at"]) == ("money", "5.00", None)
        again = await said(door, f"POST {ACME}/vouchers", {"code": code})
        assert again == first | {"again": True}
        given = await said(door, f"POST {ACME}/vouchers", {"code": promo}, status=201)
        assert given["fund"] == "promo"
        assert given["expires_at"] is not None
        shown = await said(door, f"GET {ACME}")
        assert (shown["posted"], shown["promo"]) == ("6.00", "5.00")
        other = f"POST {ACCOUNTS}/other/vouchers"
        for body, words in (
            ({"code": code}, "was redeemed already"),
            ({"code": "23456-23456-23456-23456"}, "there is no voucher with this code"),
        ):
            status, message = await refused(door, other, body)
            assert (status, words in message) == (400, True), message
            assert body["code"] not in message
        vouchers = (await said(door, f"GET {ADMIN}/vouchers"))["data"]
        assert [each["account"] for each in vouchers].count(shown["id"]) == 2

    through(tmp_path, work)


# Budgets.


def test_a_budget_is_set_told_and_ended(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        account = await funded(door)
        body = {"subject": "account:acme", "amount": "5", "currency": "USD", "period": "day"}
        made = await said(door, f"PUT {BUDGETS}", body)
        assert (made["subject"], made["left"]) == (f"account:{account['id']}", "5.00")
        assert await said(door, f"PUT {BUDGETS}", body) == made
        await use(door, f"account:{account['id']}")
        (told,) = (await said(door, f"GET {BUDGETS}"))["data"]
        assert (told["spent"], told["held"], told["left"]) == ("0.50", "2.00", "2.50")
        smaller = await said(door, f"PUT {BUDGETS}", {**body, "amount": "1"})
        assert (smaller["id"], smaller["spent"], smaller["left"]) == (made["id"], "0.50", "0.00")
        key = await said(door, f"PUT {BUDGETS}", {**body, "subject": "key:alice"})
        assert key["subject"] == f"key:{door.keys.show('alice').id}"
        ended = f"DELETE {BUDGETS}?subject=account:acme&period=day"
        assert await said(door, ended) == {"subject": "account:acme", "period": "day"}
        assert (await refused(door, ended))[0] == 404
        assert (await said(door, f"GET {BUDGETS}"))["data"] == [key]

    through(tmp_path, work)


# Keys.


def test_a_key_is_paid_for_by_an_account_by_its_name_or_id(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        account = await funded(door)
        for word in ("acme", account["id"]):
            body = {"name": f"of {word}", "account": word, "rpm": 5}
            made = await said(door, f"POST {ADMIN}/keys", body, status=201)
            assert (made["account"], made["rpm"]) == (account["id"], 5)
            assert door.keys.find(made["key"]).account == account["id"]
        before = door.keys.list()
        status, message = await refused(door, f"POST {ADMIN}/keys", {"name": "x", "account": "y"})
        assert (status, "there is no account 'y'" in message) == (400, True)
        assert door.keys.list() == before

    through(tmp_path, work)
