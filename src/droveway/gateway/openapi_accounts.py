"""This file knows the description of accounts and of the money in them."""

from typing import Any

from droveway.gateway.operations import administer, answer, in_path, in_query
from droveway.gateway.schemas import TEXT, Schema, page, ref

_ACCOUNT = "/admin/v1/accounts/{account}"


def accounts() -> dict[str, Any]:
    """Return the paths of accounts, their money, vouchers and budgets."""
    one = {"parameters": [in_path("account", "Its name or id.", example="acme")]}
    state = {200: answer(ref("AccountState"))}
    return {
        "/admin/v1/accounts": {
            "get": administer(
                "List all accounts, oldest first.", {200: answer(page("AccountState"))}
            ),
            "post": administer(
                "Open an account, with the sign-up credit in it.",
                {201: answer(ref("AccountState"))},
                413,
                body="NewAccount",
            ),
        },
        _ACCOUNT: {
            **one,
            "get": administer(
                "Show an account, and for how long it will do.",
                {200: answer(ref("AccountForecast"))},
                404,
            ),
        },
        f"{_ACCOUNT}/freeze": {
            **one,
            "post": administer("Serve nothing more for it; done twice, it is done.", state, 404),
        },
        f"{_ACCOUNT}/thaw": {
            **one,
            "post": administer("Serve for it again; done twice, it is done.", state, 404),
        },
        **{path: {**one, **told} for path, told in _money().items()},
        **_vouchers(),
        **_budgets(),
    }


def _money() -> dict[str, Any]:
    moment = {**TEXT, "format": "date-time"}
    return {
        f"{_ACCOUNT}/topups": {
            "get": administer(
                "List all money that came in, oldest first.",
                {200: answer(page("BookedTopUp"))},
                404,
            ),
            "post": _book("Book money that came in.", "BookedTopUp", body="NewTopUp"),
        },
        f"{_ACCOUNT}/credits": {
            "post": _book("Give promotional credit.", "GivenCredit", body="NewCredit")
        },
        f"{_ACCOUNT}/vouchers": {
            "post": _book("Redeem a voucher.", "RedeemedVoucher", body="Redemption")
        },
        f"{_ACCOUNT}/statement": {
            "get": administer(
                "List what moved its money, oldest first.",
                {200: answer(page("StatementLine"))},
                404,
                parameters=[
                    in_query("from", moment, "Not what was before this moment."),
                    in_query("to", moment, "Only what was before this moment."),
                ],
            )
        },
    }


def _vouchers() -> dict[str, Any]:
    reference = in_path("reference", "That of the top-up.", example="wire-2026-117")
    return {
        "/admin/v1/topups/{reference}/refunds": {
            "parameters": [reference],
            "post": _book("Give back what is unspent.", "BookedRefund", body="NewRefund"),
        },
        "/admin/v1/vouchers": {
            "get": administer(
                "List all vouchers, oldest first.", {200: answer(page("VoucherState"))}
            ),
            "post": administer(
                "Make vouchers; their codes are shown this once.",
                {201: answer(page("IssuedVoucher"))},
                413,
                body="NewVouchers",
            ),
        },
    }


def _budgets() -> dict[str, Any]:
    subject, period = ref("NewBudget/properties/subject"), ref("NewBudget/properties/period")
    return {
        "/admin/v1/budgets": {
            "get": administer(
                "List the budgets in force, and what is left of them.",
                {200: answer(page("BudgetState"))},
            ),
            "put": administer(
                "Set what may be spent in each day, week, month, or ever.",
                {200: answer(ref("BudgetState"))},
                413,
                body="NewBudget",
            ),
            "delete": administer(
                "Let it spend without this bound again.",
                {200: answer(ref("BudgetNamed"))},
                404,
                parameters=[
                    in_query("subject", subject, "Whose.", required=True, example="tag:team=blue"),
                    in_query("period", period, "Which.", required=True, example="day"),
                ],
            ),
        }
    }


def _book(summary: str, told: str, *, body: str) -> Schema:
    """Write an operation that moves money once for its reference."""
    document = answer(ref(told))
    again = {**document, "description": "It was done before, and nothing has changed."}
    return administer(summary, {200: again, 201: document}, 404, 413, body=body)
