"""This file knows the providers that need no settings but a key."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from droveway.catalog.models import known_models
from droveway.catalog.reading import read_table


class BuiltInProvider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One vendor's door.

    Attributes:
        name: As in the settings and in "provider/model".
        base_url: Without a trailing slash.
        key_variable: The environment variable that usually holds the key.
        dialect: How it is spoken to.
        accent: The vendor's own way of speaking the dialect, where it has one.
        prices: Whose price list applies.
        default_model: What stands for every tier where nobody has DeepSeek's and `[routing]`
            names nothing else: the cheapest current model.
    """

    name: str
    base_url: str
    key_variable: str
    dialect: Literal["openai", "anthropic", "gemini"] = "openai"
    accent: str | None = None
    prices: str
    default_model: str

    @property
    def models(self) -> tuple[str, ...]:
        """The priced ids it serves under their own name: no aliases, none that is gone."""
        return tuple(
            model
            for (vendor, model), told in known_models().items()
            if vendor == self.prices
            and told.alias_of is None
            and (told.retired_at is None or told.rerouted)
        )


class _ProvidersTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    providers: list[BuiltInProvider]


BUILT_IN: Final[Mapping[str, BuiltInProvider]] = MappingProxyType(
    {entry.name: entry for entry in read_table("providers", _ProvidersTable).providers}
)


@cache
def vendor_of(model: str) -> BuiltInProvider | None:
    """Return the vendor whose model has exactly this id, whoever serves it; None if unknown."""
    vendors = {vendor for vendor, known in known_models() if known == model}
    return next((each for each in BUILT_IN.values() if each.prices in vendors), None)
