"""This file knows what the demo came to, and how that is written as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from droveway.cli.demo_bill import Bill
from droveway.cli.demo_provider import Misdeed
from droveway.cli.figures import Book
from droveway.cli.same_tokens import Elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the demo came to.

    Attributes:
        book: The figures by role.
        wall_s: How long it took.
        at_first: Tasks that were answered without being asked again.
        misdeeds: What the provider did wrong; None when it was a real one.
        sockets: Connections that the provider saw; None likewise.
        elsewhere: What the same tokens would have cost on other models.
        bill: What the prepaid account came to; None when the provider was a real one.
        reason: Why tasks have no answer, most often; None when every task has one.
    """

    book: Book
    wall_s: float
    at_first: int
    misdeeds: Sequence[Misdeed] | None
    sockets: int | None
    elsewhere: Sequence[Elsewhere]
    bill: Bill | None
    reason: str | None

    def as_json(self) -> dict[str, Any]:
        """Write it as data: `roles`, and `totals` with everything else."""
        told = self.book.as_json(self.wall_s)
        told["totals"] |= {
            "ok_at_first_asking": self.at_first,
            "connections": self.sockets,
            "faults": None if self.misdeeds is None else msgspec.to_builtins(self.misdeeds),
            "bill": None if self.bill is None else _bill_json(self.bill),
            "same_tokens_on": [
                {
                    "model": each.model,
                    "hours": each.hours,
                    "cost": each.cost.decimal(),
                    "currency": each.cost.currency,
                    "row": each.row,
                }
                for each in self.elsewhere
            ],
        }
        return told


def _bill_json(bill: Bill) -> dict[str, Any]:
    amounts = ("topped_up", "credit", "charged", "vendor", "counted", "left", "unexplained")
    return {
        **{name: getattr(bill, name).decimal() for name in amounts},
        "currency": bill.charged.currency,
        "charges": bill.charges,
        "told": bill.told,
        "faults": bill.faults,
    }
