"""This file knows how tests read what a command has printed, and get an account to print."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from click.testing import Result

from books import AT, add_epoch, captured, taken, usd
from droveway.clock import SystemClock
from droveway.ledger import Book, faults
from droveway.storage import Store
from lab import run

Call = Callable[..., Result]
HERE: Final = Path("droveway.db")
TOPUP: Final = ("accounts", "topup", "acme")
RATES: Final = """
[billing]
signup_credit = "2.50"
signup_credit_days = 10
[billing.rates.CNY]
per_unit = "0.14"
on = 2026-11-01
"""


def told(result: Result) -> Any:
    """The JSON that was printed."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def one_line(result: Result, code: int) -> str:
    """The one line that says what went wrong; nothing else was printed."""
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "unexpected" not in result.stderr
    return result.stderr


def amounts(document: dict[str, Any]) -> tuple[str, str, str]:
    """Available, held, posted."""
    return document["available"], document["held"], document["posted"]


def top_up(droveway: Call, amount: str, *, reference: str, currency: str = "USD") -> Result:
    """Book money for acme."""
    return droveway(*TOPUP, amount, "--currency", currency, "--reference", reference)


def open_acme(droveway: Call, *, now: bool = False) -> dict[str, Any]:
    """An account with 10 USD, of which 2 are held and 0.5 were used, on the day of the tests."""
    made = told(droveway("accounts", "add", "acme", "--json"))
    top_up(droveway, "10", reference="wire-1")
    at = SystemClock().now() if now else AT

    async def use(store: Store) -> None:
        account = Book(store).show("acme")
        await add_epoch(store)
        for hold_id in ("req_1", "req_2"):
            await taken(store, hold_id, usd("2"), account=account, at=at)
        await captured(store, "req_1", usd("0.5"), at=at)

    with Store(HERE) as store:
        run(use(store))
    return dict(made)


def sound() -> bool:
    """Whether the ledger of this directory is as it must be."""
    with Store(HERE) as store:
        return faults(store) == []
