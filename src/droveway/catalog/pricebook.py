"""This file knows every price there is and which one holds; it refuses rather than guesses."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from difflib import get_close_matches
from typing import Final

from droveway.catalog.models import limits
from droveway.catalog.pricerow import (
    PriceRow,
    Processing,
    dearest_input,
    price,
    price_bound,
)
from droveway.catalog.pricerow import price_pico as priced_pico
from droveway.errors import SettingsError, UnpricedModelError
from droveway.money import Money, price_pico

__all__: Final = [
    "PriceBook",
    "PriceRow",
    "Processing",
    "dearest_input",
    "price",
    "price_bound",
    "priced_pico",
]


class PriceBook:
    """All prices that are known; never changes, so it may be shared.

    Args:
        rows: Rows of the vendors' lists.
        own: Prices of the user's settings, by "PROVIDER/MODEL".
    """

    __slots__ = ("_known", "_lists", "_own", "_rows", "_vendors")

    def __init__(
        self, rows: Iterable[PriceRow], *, own: Mapping[str, PriceRow] | None = None
    ) -> None:
        self._rows = tuple(rows)
        self._own = dict(own or {})
        # (vendor, model, currency, processing) → a handful of rows, the newest asked first.
        self._lists: dict[tuple[str, str, str, str], tuple[PriceRow, ...]] = {}
        self._vendors: dict[str, str] = {}
        for row in self._rows:
            key = (row.vendor, row.model, row.currency, row.processing)
            self._lists[key] = (row, *self._lists.get(key, ()))
            self._vendors.setdefault(row.model, row.vendor)
        self._known = {(row.vendor, row.model) for row in self._rows}

    @property
    def rows(self) -> tuple[PriceRow, ...]:
        """Every row of the vendors' lists and every own price, whenever it holds."""
        return (*self._rows, *self._own.values())

    @property
    def models(self) -> tuple[str, ...]:
        """Every model id with a price at some time, sorted; own prices as "PROVIDER/MODEL"."""
        return tuple(sorted({*self._vendors, *self._own}))

    def find(
        self,
        vendor: str | None,
        model: str,
        *,
        at: datetime,
        currency: str = "USD",
        input_tokens: int = 0,
        processing: Processing = "standard",
    ) -> PriceRow:
        """Find the one row that holds.

        Args:
            vendor: Whose list; None takes an own price of exactly that name, else the vendor
                that has exactly that model id. Never a part of a name.
            model: The exact model id.
            at: Start of the attempt, with its zone.
            currency: Which list; currencies are lists of their own and are not converted.
            input_tokens: All input tokens of the request, cached or not; decides the tier.
            processing: How the vendor is asked to process it.

        Raises:
            UnpricedModelError: No row holds; the message says what to do.
        """
        if at.tzinfo is None:
            raise ValueError("a price is asked for at a moment with a zone")
        if vendor is None:
            own = self._own.get(model)
            if own is not None and processing == "standard":
                return _in_currency(own, currency)
            vendor = self._vendors.get(model)
        for row in self._lists.get((vendor or "", model, currency, processing), ()):
            if row.fits(input_tokens) and row.in_force(at):
                return row
        raise UnpricedModelError(self._why_not(vendor, model, (at, currency, processing)))

    def lookup(
        self,
        *,
        provider: str,
        prices: str | None,
        model: str,
        at: datetime,
        currency: str = "USD",
        input_tokens: int = 0,
    ) -> PriceRow:
        """Find the row for a model at a configured provider.

        The order is: the own price of "PROVIDER/MODEL", the list that the provider's `prices`
        names, then the vendor's row with exactly that model id.

        Args:
            provider: Name of the provider in the settings.
            prices: Vendor whose list applies to that provider, or None.
            model: The model id as the provider takes it.
            at: Start of the attempt, with its zone.
            currency: Which list.
            input_tokens: All input tokens of the request, cached or not.

        Raises:
            UnpricedModelError: No row holds, or the own price is in another currency.
        """
        own = self._own.get(f"{provider}/{model}") if self._own else None
        if own is not None:
            return _in_currency(own, currency)
        listed = prices if (prices, model) in self._known else None
        return self.find(listed, model, at=at, currency=currency, input_tokens=input_tokens)

    def last_row(self, model: str, *, currency: str = "USD") -> PriceRow:
        """Find the last standard row of a model, whether it still holds or not.

        Of a retired name this is what it cost in the end; for comparisons, never for bills.

        Raises:
            UnpricedModelError: The book never had a price for it.
        """
        vendor = self._vendors.get(model, "")
        rows = [
            row
            for row in self._lists.get((vendor, model, currency, "standard"), ())
            if row.fits(0) and not (row.window and row.inside)
        ]
        if not rows:
            raise UnpricedModelError(_unknown(model, self.models))
        return max(rows, key=lambda row: (row.valid_to is None, row.valid_to or row.valid_from))

    def with_own(
        self,
        provider_slash_model: str,
        *,
        input: str,  # noqa: A002  the key of the settings has this name
        output: str,
        cached: str | None = None,
        cache_write: str | None = None,
        currency: str = "USD",
    ) -> "PriceBook":
        """Add a price of the user's own; it comes before every list.

        Args:
            provider_slash_model: "PROVIDER/MODEL"; the model may hold further slashes.
            input: Per million tokens, as a decimal string; likewise the following.
            output: For output.
            cached: For input read from a cache; charged as input when absent.
            cache_write: For input written to it; charged as input when absent.
            currency: ISO 4217 code.

        Returns:
            A new book; this one does not change.

        Raises:
            SettingsError: The name or a price cannot be used.
        """
        provider, slash, model = provider_slash_model.partition("/")
        table = f'[prices."{provider_slash_model}"]'
        if not (provider and slash and model):
            raise SettingsError(f'{table}: name it "PROVIDER/MODEL"')
        try:
            row = PriceRow(
                id=f"own/{provider_slash_model}/{Money.zero(currency).currency}",
                vendor=provider,
                model=model,
                currency=currency,
                input=price_pico(input),
                cached_read=None if cached is None else price_pico(cached),
                cache_write=None if cache_write is None else price_pico(cache_write),
                output=price_pico(output),
                source=f"settings: {table}",
            )
        except ValueError as error:
            raise SettingsError(f"{table}: {error}") from error
        return PriceBook(self._rows, own={**self._own, provider_slash_model: row})

    def rows_in_force(
        self, at: datetime, currency: str, *, processing: Processing = "standard"
    ) -> list[PriceRow]:
        """List the rows that hold at a moment, by vendor, model and tier; own prices among them."""
        rows = (
            row
            for row in self.rows
            if row.currency == currency and row.processing == processing and row.in_force(at)
        )
        return sorted(rows, key=lambda row: (row.vendor, row.model, row.input_above or 0))

    def _why_not(
        self, vendor: str | None, model: str, asked: tuple[datetime, str, Processing]
    ) -> str:
        at, currency, processing = asked
        told = limits(vendor, model)
        if told.retired(at) and not told.rerouted:
            return (
                f"{model!r} was retired on {told.retired_at:%Y-%m-%d %H:%M} UTC; "
                f"ask for {told.successor!r} instead"
            )
        rows = [row for row in self._rows if (row.vendor, row.model) == (vendor, model)]
        if not rows:
            return _unknown(model, self.models)
        currencies = sorted({row.currency for row in rows})
        if currency not in currencies:
            return (
                f"{model!r} has no price list in {currency}, only in {', '.join(currencies)}; "
                f'declare [prices."PROVIDER/{model}"] with currency = "{currency}"'
            )
        if processing not in {row.processing for row in rows if row.currency == currency}:
            return f"{model!r} has no {processing} price in {currency}; ask for it as standard"
        return (
            f"{model!r} has no {processing} price in {currency} at {at:%Y-%m-%dT%H:%M:%S%z}; "
            f'declare [prices."PROVIDER/{model}"] or ask about another time'
        )


def _in_currency(own: PriceRow, currency: str) -> PriceRow:
    # The user has overruled the vendor's list, so its list in another currency is not a way out.
    if own.currency != currency:
        raise UnpricedModelError(
            f"the own price of '{own.vendor}/{own.model}' is in {own.currency}, and {currency} "
            f"is asked for; declare it in {currency}"
        )
    return own


def _unknown(model: str, models: Iterable[str]) -> str:
    near = get_close_matches(model, list(models), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    return f'no price for {model!r}: declare [prices."PROVIDER/{model}"]{hint}'
