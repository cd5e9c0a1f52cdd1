"""This file knows what is left in the account that the sandbox's callers have with it.

Nothing is taken out of it for an answer: a test says itself what the vendor has booked.
"""

from decimal import Decimal
from typing import Any


class Purse:
    """What is left, by currency, in the two funds that DeepSeek tells apart.

    Until it is told otherwise, $100.00 that were topped up and $10.00 that were granted.
    """

    def __init__(self) -> None:
        self._left = {"USD": (Decimal("10.00"), Decimal("100.00"))}

    def put(self, currency: str, *, topped_up: str, granted: str) -> None:
        """Say what is left in one currency, as decimal strings; the digits given are told."""
        self._left[currency] = (Decimal(granted), Decimal(topped_up))

    def as_json(self) -> dict[str, Any]:
        """Write it as `GET /user/balance` of DeepSeek does (page get-user-balance, 2026-11)."""
        return {
            "is_available": any(granted + paid > 0 for granted, paid in self._left.values()),
            "balance_infos": [
                {
                    "currency": currency,
                    "total_balance": str(granted + paid),
                    "granted_balance": str(granted),
                    "topped_up_balance": str(paid),
                }
                for currency, (granted, paid) in self._left.items()
            ],
        }
