"""What the admin API refuses about accounts: what cannot be used, and what is not there."""

from pathlib import Path

import pytest

from accounts_door import ACCOUNTS, ACME, ADMIN, BUDGETS, funded, said, through
from operator_door import OperatorDoor, send

PAID = b'{"amount":%b,"currency":%b,"reference":%b}'
BAD_TOPUPS = [
    b"",
    b"{}",
    b'{"amount":"1","currency":"USD"}',
    *(
        PAID % (amount, b'"USD"', b'"w"')
        for amount in (
            b"1", b"1.5", b'"0"', b'"-1"', b'"+1"', b'"1e3"', b'"1,5"', b'""', b'" 1"', b'"1\\n"',
            b'"1.0000000001"', b'"1234567890"', b'"\\u0661"', b'"NaN"', b'"0x1"', b"null", b"true",
        )
    ),
    *(PAID % (b'"1"', code, b'"w"') for code in (b'"usd"', b'"USDT"', b'""', b'"US"', b"null")),
    *(
        PAID % (b'"1"', b'"USD"', reference)
        for reference in (b'""', b'" "', b'"a\\nb"', b'"' + b"x" * 101 + b'"', b"7", b'"\\ud800"')
    ),
    b'{"amount":"1","currency":"USD","reference":"w","rate":"9"}',
]  # fmt: skip


def test_a_topup_that_cannot_be_used_is_a_typed_400_and_books_nothing(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        await said(door, f"POST {ACCOUNTS}", {"name": "acme"}, status=201)
        for body in BAD_TOPUPS:
            answer = await send(door, f"POST {ACME}/topups", body)
            assert (answer.status, answer.error["code"]) == (400, "invalid_request"), body
        assert (await said(door, f"GET {ACME}/topups"))["data"] == []

    through(tmp_path, work)


OTHER_BAD: list[tuple[str, object]] = [
    (f"POST {ACCOUNTS}", {"name": ":clearing:USD"}),
    (f"POST {ACCOUNTS}", {"name": " "}),
    (f"POST {ACCOUNTS}", {"name": "a", "currency": "dollars"}),
    (f"POST {ACCOUNTS}", {"name": "a", "posted": "5"}),
    (f"POST {ACME}/credits", {"amount": "1", "currency": "USD", "reference": "a", "days": 0}),
    (f"POST {ACME}/credits", {"amount": "1", "currency": "USD", "reference": "a", "days": 36_501}),
    (f"POST {ACME}/vouchers", {"code": ""}),
    (f"POST {ADMIN}/vouchers", {"amount": "1", "currency": "USD", "count": 0}),
    (f"POST {ADMIN}/vouchers", {"amount": "1", "currency": "USD", "count": 1_001}),
    (f"POST {ADMIN}/vouchers", {"amount": "1", "currency": "USD", "credit_days": 0}),
    (f"POST {ADMIN}/vouchers", {"amount": "1", "currency": "USD", "expires_at": "2020-01-01T00:00:00Z"}),
    (f"POST {ADMIN}/vouchers", {"amount": "1", "currency": "USD", "expires_at": "9999-12-31T23:59:59-14:00"}),
    (f"POST {ADMIN}/vouchers", {"amount": "0", "currency": "USD"}),
    (f"PUT {BUDGETS}", {"subject": "account:x", "amount": "1", "currency": "USD", "period": "day"}),
    (f"PUT {BUDGETS}", {"subject": "key:x", "amount": "1", "currency": "USD", "period": "day"}),
    (f"PUT {BUDGETS}", {"subject": "tag:a", "amount": "1", "currency": "USD", "period": "day"}),
    (f"PUT {BUDGETS}", {"subject": "tag:a=b", "amount": "1", "currency": "USD", "period": "hour"}),
    (f"PUT {BUDGETS}", {"subject": "tag:a=b", "amount": "-1", "currency": "USD", "period": "day"}),
    (f"DELETE {BUDGETS}?subject=acme&period=day", None),
    (f"DELETE {BUDGETS}?subject=key:alice", None),
    (f"GET {ACME}/statement?from=soon", None),
    (f"GET {ACME}/statement?since=2026-01-01T00:00:00Z", None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "body"), OTHER_BAD)
def test_what_cannot_be_used_is_a_typed_400_and_changes_nothing(
    line: str, body: object, tmp_path: Path
) -> None:
    async def work(door: OperatorDoor) -> None:
        before = await funded(door)
        answer = await send(door, line, body)
        assert (answer.status, answer.error["code"]) == (400, "invalid_request"), answer.body
        assert await said(door, f"GET {ACME}") == before
        for path in ("vouchers", "budgets"):
            assert (await said(door, f"GET {ADMIN}/{path}"))["data"] == []

    through(tmp_path, work)


NOT_THERE = [
    "GET /accounts/nobody",
    "POST /accounts/nobody/freeze",
    "POST /accounts/nobody/thaw",
    "GET /accounts/nobody/topups",
    "POST /accounts/nobody/topups",
    "POST /accounts/nobody/credits",
    "GET /accounts/nobody/statement",
    "POST /accounts/nobody/vouchers",
    "GET /accounts/:clearing:USD",
    "GET /accounts/%00",
    "GET /accounts/%ff",
    "POST /topups/wire-2/refunds",
    "DELETE /budgets?subject=tag:a=b&period=day",
    "DELETE /budgets?subject=key:nobody&period=day",
]


def test_what_is_not_there_is_a_typed_404(tmp_path: Path) -> None:
    async def work(door: OperatorDoor) -> None:
        await funded(door)
        for line in NOT_THERE:
            answer = await send(door, line.replace(" /", f" {ADMIN}/"), {})
            assert (answer.status, answer.error["code"]) == (404, "route_not_found"), line

    through(tmp_path, work)
