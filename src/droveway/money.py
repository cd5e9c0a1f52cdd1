"""This file knows what an amount of money is and how it is rounded.

Amounts are whole nano-units (10⁻⁹) of one currency; prices are whole pico-units (10⁻¹²) per
token, which holds every list price exactly: $0.003625 per million tokens is 3,625 pico-dollars.
Sums are made in pico-units and rounded once, half to even, at the end. No float comes near.
"""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

NANO_PER_UNIT: Final = 10**9
PICO_PER_NANO: Final = 1_000
# A price per million tokens, times 10¹² pico-units, over 10⁶ tokens.
PICO_PER_TOKEN_AND_UNIT: Final = 10**6
NANO_MAX: Final = 2**63 - 1

_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,12})?")


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """An amount in whole nano-units of one currency.

    Args:
        nano: Whole nano-units; may be negative.
        currency: ISO 4217 code, three capitals.

    Raises:
        ValueError: The amount does not fit in 64 bits, or the currency is no code.
        TypeError: The amount is not an int.
    """

    nano: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.nano) is not int:
            raise TypeError(f"money counts whole nano-units, got {type(self.nano).__name__}")
        if abs(self.nano) > NANO_MAX:
            raise ValueError(f"an amount of {self.nano} nano-units does not fit in 64 bits")
        if not _CURRENCY.fullmatch(self.currency):
            raise ValueError(f"{self.currency!r} is no currency code; write USD or CNY")

    @classmethod
    def parse(cls, text: str, currency: str) -> "Money":
        """Read a decimal string such as "12.50", exactly.

        Raises:
            ValueError: It is no plain decimal, or finer than a nano-unit.
        """
        return cls(_exact(text, scale=NANO_PER_UNIT, what="an amount"), currency)

    @classmethod
    def zero(cls, currency: str) -> "Money":
        """Nothing, in that currency."""
        return cls(0, currency)

    @classmethod
    def from_pico(cls, pico: int, currency: str) -> "Money":
        """Round whole pico-units to nano-units, half to even: the one rounding there is."""
        return cls(divide_half_even(pico, PICO_PER_NANO), currency)

    def __add__(self, other: "Money") -> "Money":
        if not isinstance(other, Money):
            return NotImplemented
        return Money(self.nano + self._same(other).nano, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        if not isinstance(other, Money):
            return NotImplemented
        return Money(self.nano - self._same(other).nano, self.currency)

    def __lt__(self, other: "Money") -> bool:
        if not isinstance(other, Money):
            return NotImplemented
        return self.nano < self._same(other).nano

    def __le__(self, other: "Money") -> bool:
        if not isinstance(other, Money):
            return NotImplemented
        return self.nano <= self._same(other).nano

    def __str__(self) -> str:
        return f"{self.decimal()} {self.currency}"

    def decimal(self, *, places_min: int = 2) -> str:
        """Write the exact amount as a decimal string.

        Args:
            places_min: Digits after the point at least; further zeros are left off.
        """
        whole, rest = divmod(abs(self.nano), NANO_PER_UNIT)
        digits = f"{rest:09d}".rstrip("0").ljust(places_min, "0")
        return f"{'-' if self.nano < 0 else ''}{whole}" + (f".{digits}" if digits else "")

    def rounded(self, places: int) -> str:
        """Write the amount with exactly so many places, half to even; for people only."""
        step = 10 ** (9 - places)
        return Money(divide_half_even(self.nano, step) * step, self.currency).decimal(
            places_min=places
        )

    def _same(self, other: "Money") -> "Money":
        if other.currency != self.currency:
            raise ValueError(f"{self.currency} and {other.currency} do not add up without a rate")
        return other


def divide_half_even(amount: int, divisor: int) -> int:
    """Divide whole numbers and round half to even, exactly.

    Raises:
        ValueError: The divisor is not positive.
    """
    if divisor <= 0:
        raise ValueError("the divisor must be positive")
    quotient, rest = divmod(amount, divisor)
    twice = 2 * rest
    if twice > divisor or (twice == divisor and quotient % 2):
        quotient += 1
    return quotient


def price_pico(text: str) -> int:
    """Turn a list price per million tokens, as a decimal string, into pico-units per token.

    Raises:
        ValueError: It is no plain non-negative decimal, or finer than a pico-unit per token.
    """
    pico = _exact(text, scale=PICO_PER_TOKEN_AND_UNIT, what="a price")
    if pico < 0:
        raise ValueError(f"a price cannot be negative: {text!r}")
    return pico


def price_text(pico_per_token: int) -> str:
    """Write pico-units per token as the list price per million tokens, exactly."""
    whole, rest = divmod(pico_per_token, PICO_PER_TOKEN_AND_UNIT)
    digits = f"{rest:06d}".rstrip("0")
    return f"{whole}.{digits.ljust(2, '0')}"


def _exact(text: str, *, scale: int, what: str) -> int:
    if not isinstance(text, str) or not _DECIMAL.fullmatch(text):
        raise ValueError(f'{what} is a decimal string such as "0.15", not {text!r}')
    try:
        scaled = Decimal(text) * scale
    except InvalidOperation as error:  # pragma: no cover - the pattern above leaves no way here
        raise ValueError(f"{text!r} is no number") from error
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{text!r} is finer than {what} can be")
    return int(scaled)
