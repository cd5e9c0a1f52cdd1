"""This file knows how tests talk to the admin API about accounts, and look at the books after it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from droveway.ledger import faults
from droveway.settings import BillingSettings
from lab import run
from operator_door import OperatorDoor, operator_door, send

ADMIN = "/admin/v1"
ACCOUNTS = f"{ADMIN}/accounts"
ACME = f"{ACCOUNTS}/acme"
BUDGETS = f"{ADMIN}/budgets"
Work = Callable[[OperatorDoor], Awaitable[None]]


def through(folder: Path, work: Work, billing: BillingSettings | None = None) -> None:
    """Do some work at a door; whatever it was, the books are right afterwards."""

    async def check() -> None:
        async with operator_door(folder, billing=billing) as door:
            await work(door)
            assert faults(door.store) == []

    run(check())


async def said(door: OperatorDoor, line: str, body: object = None, *, status: int = 200) -> Any:
    """Ask, and return what was told."""
    answer = await send(door, line, body)
    assert answer.status == status, answer.body
    assert answer.headers["cache-control"] == "no-store"
    return answer.told


async def refused(door: OperatorDoor, line: str, body: object = None) -> tuple[int, str]:
    """Ask, and return with which status and which words that was refused."""
    answer = await send(door, line, body)
    return answer.status, str(answer.error["message"])


async def funded(door: OperatorDoor, amount: str = "10") -> dict[str, Any]:
    """An account with money in it."""
    await said(door, f"POST {ACCOUNTS}", {"name": "acme"}, status=201)
    wire = {"amount": amount, "currency": "USD", "reference": "wire-1"}
    await said(door, f"POST {ACME}/topups", wire, status=201)
    return dict(await said(door, f"GET {ACME}"))
