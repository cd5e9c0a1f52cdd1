"""This file knows the operator's terms of billing, as numbers that a request can be charged by."""

from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from droveway.money import PICO_PER_NANO, Money, divide_half_even
from droveway.settings import BillingSettings

_LIST_PRICE: Final = Fraction(1)


class Markup(NamedTuple):
    """What the caller pays for what a vendor asks, as an exact fraction."""

    numerator: int
    denominator: int

    def charge(self, pico: int, currency: str) -> Money:
        """Return what is charged for whole pico-units, rounded once, half to even, at the end."""
        divisor = PICO_PER_NANO * self.denominator
        return Money(divide_half_even(pico * self.numerator, divisor), currency)

    def at_most(self, pico: int) -> int:
        """Return pico-units that no charge for so many is above: rounded up."""
        return -(-pico * self.numerator // self.denominator)


class Billing(NamedTuple):
    """The terms by which requests are paid.

    Attributes:
        currency: In which prices are looked up and accounts are kept.
        markup: What the caller pays for what a vendor asks.
        floor_nano: How far below zero a balance may fall; zero or less.
        low: Below what an account is low; None for nothing to tell.
        drains: Whether a request is answered whose caller hung up.
        drain_s: For how long at most.
        drain_tokens: And for how many tokens of a stream.
    """

    currency: str
    markup: Markup
    floor_nano: int
    low: Money | None
    drains: bool
    drain_s: float
    drain_tokens: int


def billing_of(settings: BillingSettings) -> Billing:
    """Read the terms; where billing is off, lists are charged as they are."""
    factor = Fraction(Decimal(settings.markup)) if settings.enabled else _LIST_PRICE
    currency, low = settings.currency, settings.low_balance
    return Billing(
        currency=currency,
        markup=Markup(factor.numerator, factor.denominator),
        floor_nano=Money.parse(settings.floor, currency).nano,
        low=None if low is None else Money.parse(low, currency),
        drains=settings.disconnect == "drain",
        drain_s=settings.drain_s,
        drain_tokens=settings.drain_tokens,
    )
