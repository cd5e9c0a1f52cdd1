"""This file knows what a model takes, what its names are, and when it goes."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from droveway.catalog.reading import read_table

# What a fresh limiter starts with where the vendor states no limit.
CONCURRENCY_UNKNOWN: Final = 100

OutputCapField = Literal["max_tokens", "max_completion_tokens"]


class ModelLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one model of one vendor takes.

    Attributes:
        context_tokens: Input and output together at most; None when not known.
        output_tokens_max: Output at most; None when not known.
        concurrency: Requests in flight that the vendor allows per account and model.
        output_cap_field: Under which name the request carries the cap of output tokens.
        image_tokens_max: What one image is billed as at most; None when that is not known.
        thinks: Whether it reasons unless told not to, which multiplies its output tokens.
        alias_of: The id that the vendor takes, where this is another way to write it.
        retired_at: From when the vendor does not serve this name as itself; None while it does.
        successor: What the vendor offers instead.
        rerouted: Whether the retired name is still answered, by the successor at its price.
    """

    context_tokens: int | None = None
    output_tokens_max: int | None = None
    concurrency: int = CONCURRENCY_UNKNOWN
    output_cap_field: OutputCapField = "max_tokens"
    image_tokens_max: int | None = None
    thinks: bool = False
    alias_of: str | None = None
    retired_at: datetime | None = None
    successor: str | None = None
    rerouted: bool = False

    def retired(self, at: datetime) -> bool:
        """Tell whether the name is gone at that moment, answered by another or not at all."""
        return self.retired_at is not None and at >= self.retired_at


class _Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vendors: dict[str, dict[str, Any]]  # what holds for every model of a vendor
    models: list[dict[str, Any]]


def limits(vendor: str | None, model: str) -> ModelLimits:
    """Look up what a model takes.

    Args:
        vendor: Name of the vendor's list ("deepseek", "openai", "anthropic", "google"); None
            looks the id up among all vendors.
        model: The exact id; never a part of one.

    Returns:
        What is known; for an unknown model its vendor's defaults.
    """
    by_id, by_vendor = _limits()
    if vendor is None:
        vendor = next((known for known, name in by_id if name == model), None)
    return by_id.get((vendor or "", model)) or by_vendor.get(vendor or "", _UNKNOWN)


def known_models() -> Mapping[tuple[str, str], ModelLimits]:
    """Every model with its limits, by (vendor, id)."""
    return _limits()[0]


@cache
def _limits() -> tuple[Mapping[tuple[str, str], ModelLimits], Mapping[str, ModelLimits]]:
    tables = read_table("models", _Tables)
    by_vendor = {
        vendor: msgspec.convert(defaults, ModelLimits)
        for vendor, defaults in tables.vendors.items()
    }
    by_id: dict[tuple[str, str], ModelLimits] = {}
    for entry in tables.models:
        vendor, ids = entry.pop("vendor"), entry.pop("ids")
        told = msgspec.convert({**tables.vendors.get(vendor, {}), **entry}, ModelLimits)
        by_id.update({(vendor, model): told for model in ids})
    return MappingProxyType(by_id), MappingProxyType(by_vendor)


_UNKNOWN: Final = ModelLimits()
