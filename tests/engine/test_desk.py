"""The desk: what joins accounts, keys and money, where no face has its own test."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from droveway.engine.desk import Desk
from droveway.errors import BadRequestError
from droveway.ledger import faults
from droveway.money import Money
from droveway.settings import BillingSettings, RateSettings
from droveway.storage import Store
from lab import run

TERMS = BillingSettings(
    enabled=True,
    signup_credit="1.50",
    rates={"CNY": RateSettings(per_unit="0.14", on=date(2026, 11, 20))},
)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Store(tmp_path / "a.db") as store:
        yield Desk(store, TERMS)
        assert faults(store) == []


def test_a_rate_leads_into_the_currency_of_the_settings_alone(desk: Desk) -> None:
    async def check() -> None:
        await desk.open_account("home")
        await desk.open_account("abroad", currency="EUR")
        booked = await desk.top_up("home", Money.parse("100", "CNY"), reference="one")
        assert booked.amount == Money.parse("14", "USD")
        with pytest.raises(BadRequestError, match="CNY"):
            await desk.top_up("abroad", Money.parse("100", "CNY"), reference="two")

    run(check())


def test_sign_up_credit_is_of_the_currency_of_the_settings_alone(desk: Desk) -> None:
    async def check() -> None:
        assert (await desk.open_account("home")).promo == Money.parse("1.50", "USD")
        assert (await desk.open_account("abroad", currency="EUR")).promo == Money.zero("EUR")

    run(check())


def test_a_budget_that_would_bound_nothing_is_refused(desk: Desk) -> None:
    async def check() -> None:
        await desk.open_account("abroad", currency="EUR")
        await desk.issue_key("theirs", account="abroad")
        for subject in ("account:abroad", "key:theirs"):
            with pytest.raises(BadRequestError, match="bound nothing"):
                await desk.set_budget(subject, Money.parse("1", "USD"), period="day")
            budget = await desk.set_budget(subject, Money.parse("1", "EUR"), period="day")
            assert budget.left == Money.parse("1", "EUR")

    run(check())


def test_what_came_by_a_voucher_is_not_paid_out(desk: Desk) -> None:
    from droveway.ledger.vouchers import Terms

    async def check() -> None:
        await desk.open_account("home")
        ((voucher, code),) = await desk.issue_vouchers(Terms(amount=Money.parse("5", "USD")))
        await desk.redeem("home", code)
        with pytest.raises(BadRequestError, match="voucher"):
            await desk.refund(voucher.id, None, reference="cash, please")

    run(check())


def test_an_account_that_nobody_could_open_leaves_no_credit(desk: Desk) -> None:
    async def check() -> None:
        await desk.open_account("home")
        with pytest.raises(BadRequestError, match="already"):
            await desk.open_account("home")
        assert [each.name for each in desk.book.list()] == ["home"]

    run(check())
