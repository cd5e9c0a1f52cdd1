"""Amounts, prices and the one rounding there is."""

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.money import NANO_MAX, Money, divide_half_even, price_pico, price_text

nanos = st.integers(-NANO_MAX, NANO_MAX)
small_nanos = st.integers(-(10**17), 10**17)


@given(small_nanos, small_nanos)
def test_sums_are_exact(one: int, other: int) -> None:
    assert (Money(one, "USD") + Money(other, "USD")).nano == one + other
    assert (Money(one, "USD") - Money(other, "USD")).nano == one - other


@given(nanos)
def test_an_amount_written_and_read_is_the_same(nano: int) -> None:
    amount = Money(nano, "CNY")
    assert Money.parse(amount.decimal(), "CNY") == amount
    assert Money.parse(amount.decimal(places_min=0), "CNY") == amount
    assert Decimal(amount.decimal()) == Decimal(nano).scaleb(-9)


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**15))
def test_division_rounds_half_to_even(amount: int, divisor: int) -> None:
    """Spec: Python's own rounding of exact fractions is half to even."""
    assert divide_half_even(amount, divisor) == round(Fraction(amount, divisor))


@pytest.mark.parametrize(
    ("amount", "expected"), [(5, 0), (15, 2), (25, 2), (-5, 0), (-15, -2), (-25, -2), (14, 1)]
)
def test_a_half_goes_to_the_even_neighbour(amount: int, expected: int) -> None:
    assert divide_half_even(amount, 10) == expected


@pytest.mark.parametrize("divisor", [0, -1])
def test_a_divisor_is_positive(divisor: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        divide_half_even(1, divisor)


@pytest.mark.parametrize(
    ("pico", "nano"), [(499, 0), (500, 0), (501, 1), (1500, 2), (2500, 2), (-500, 0), (-1500, -2)]
)
def test_pico_units_round_once_to_nano_units(pico: int, nano: int) -> None:
    assert Money.from_pico(pico, "USD") == Money(nano, "USD")


@given(st.lists(st.integers(0, 10**12), max_size=30))
def test_rounding_a_sum_errs_by_half_a_nano_unit_at_most(picos: list[int]) -> None:
    assert abs(Money.from_pico(sum(picos), "USD").nano * 1000 - sum(picos)) <= 500


@given(st.integers(-(10**15), 10**15), st.integers(0, 8))
def test_rounded_text_is_half_even(nano: int, places: int) -> None:
    exact = Decimal(nano).scaleb(-9)
    step = Decimal(1).scaleb(-places)
    shown = Money(nano, "USD").rounded(places)
    assert Decimal(shown) == exact.quantize(step, rounding=ROUND_HALF_EVEN)
    assert len(shown.partition(".")[2]) == places


def test_an_amount_is_written_for_people() -> None:
    assert str(Money.parse("-0.5", "USD")) == "-0.50 USD"
    assert Money(1, "USD").decimal() == "0.000000001"
    assert Money.zero("USD").decimal() == "0.00"
    assert Money.zero("USD").decimal(places_min=0) == "0"
    assert Money.parse("12.345", "USD").rounded(2) == "12.34"


def test_amounts_have_an_order_within_a_currency() -> None:
    one, two = Money(1, "USD"), Money(2, "USD")
    assert one < two
    assert one <= two
    assert one <= Money(1, "USD")
    assert not two < one
    assert two > one
    assert two >= one
    assert one == Money(1, "USD")
    assert one != Money(1, "CNY")


def test_currencies_do_not_mix() -> None:
    for operation in ("__add__", "__sub__", "__lt__", "__le__"):
        with pytest.raises(ValueError, match="CNY and USD do not add up"):
            getattr(Money(1, "CNY"), operation)(Money(1, "USD"))


@pytest.mark.parametrize("currency", ["", "usd", "US", "USDT", "U$D", "USD\n"])
def test_a_currency_is_three_capitals(currency: str) -> None:
    with pytest.raises(ValueError, match="no currency code"):
        Money(1, currency)


@pytest.mark.parametrize("nano", [1.0, "1", None, True, Decimal(1)])
def test_an_amount_is_an_int_and_nothing_like_one(nano: object) -> None:
    with pytest.raises(TypeError, match="whole nano-units"):
        Money(nano, "USD")  # type: ignore[arg-type]


@pytest.mark.parametrize("nano", [NANO_MAX + 1, -NANO_MAX - 1])
def test_an_amount_fits_in_64_bits(nano: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        Money(nano, "USD")
    assert Money(NANO_MAX, "USD").nano == NANO_MAX


@pytest.mark.parametrize(
    "text", ["", ".5", "5.", "1e3", "1,000", "+1", " 1", "1 ", "NaN", "Infinity", "--1", "1\n"]
)
def test_an_amount_is_a_plain_decimal(text: str) -> None:
    with pytest.raises(ValueError, match="an amount is a decimal string"):
        Money.parse(text, "USD")


@pytest.mark.parametrize("number", [0.15, 1, None, Decimal("0.15")])
def test_a_price_is_never_a_float(number: object) -> None:
    with pytest.raises(ValueError, match="a price is a decimal string"):
        price_pico(number)  # type: ignore[arg-type]


def test_what_is_finer_than_a_unit_is_refused() -> None:
    assert Money.parse("0.000000001", "USD").nano == 1
    assert Money.parse("0.0000000010", "USD").nano == 1
    with pytest.raises(ValueError, match="finer than an amount"):
        Money.parse("0.0000000001", "USD")
    with pytest.raises(ValueError, match="finer than a price"):
        price_pico("0.0000001")


def test_a_price_is_not_negative() -> None:
    assert price_pico("0") == 0
    with pytest.raises(ValueError, match="negative"):
        price_pico("-0.01")


@pytest.mark.parametrize(
    ("text", "pico"),
    [("0.003625", 3_625), ("75", 75_000_000), ("0.15", 150_000), ("8.00", 8 * 10**6)],
)
def test_a_list_price_is_whole_pico_units_per_token(text: str, pico: int) -> None:
    assert price_pico(text) == pico


@given(st.integers(0, 10**12))
def test_a_price_written_and_read_is_the_same(pico: int) -> None:
    assert price_pico(price_text(pico)) == pico


def test_a_price_is_shown_with_two_places_at_least() -> None:
    assert price_text(150_000) == "0.15"
    assert price_text(8_000_000) == "8.00"
    assert price_text(3_625) == "0.003625"
