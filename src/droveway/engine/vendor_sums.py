"""This file knows what rows of a vendor's export add up to, without rounding anything."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import msgspec

from droveway.engine.vendor_cells import EXACT

INPUT_PARTS: Final = ("cached", "uncached", "cache_write")
COUNTS: Final = ("requests", "input", *INPUT_PARTS, "output")


@dataclass(slots=True)
class Said:
    """What a vendor says of one period and model.

    Attributes:
        counts: Requests and tokens, by their meaning.
        cost: What a cost column tells.
        priced: Quantities times their prices, of exports that tell these instead.
    """

    counts: dict[str, int] = field(default_factory=dict)
    cost: Decimal = Decimal(0)
    priced: Decimal = Decimal(0)

    def add(self, other: "Said") -> None:
        """Add what is said of another part of the same period."""
        for meaning, many in other.counts.items():
            self.counts[meaning] = self.counts.get(meaning, 0) + many
        self.cost = EXACT.add(self.cost, other.cost)
        self.priced = EXACT.add(self.priced, other.priced)

    def sums(self, told: AbstractSet[str]) -> "Sums":
        """Return it as figures.

        Args:
            told: What the whole export tells: a sum of its own counts before one of its parts.
        """
        counts = self.counts
        parts = sum(counts.get(meaning, 0) for meaning in INPUT_PARTS)
        return Sums(
            requests=counts.get("requests", 0),
            input=counts.get("input", 0) if "input" in told else parts,
            cached=counts.get("cached", 0),
            output=counts.get("output", 0),
            cost=self.cost if "cost" in told else self.priced,
        )


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """What a vendor says of one period and model; 0 where its export tells nothing.

    Attributes:
        requests: How many requests.
        input: Input tokens, cached ones among them.
        cached: Input tokens read from a cache.
        output: Output tokens.
        cost: Exactly what the cells come to; nothing is rounded yet.
    """

    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    cost: Decimal = Decimal(0)

    def __add__(self, other: "Sums") -> "Sums":
        """Add up, exactly."""
        return Sums(
            requests=self.requests + other.requests,
            input=self.input + other.input,
            cached=self.cached + other.cached,
            output=self.output + other.output,
            cost=EXACT.add(self.cost, other.cost),
        )
