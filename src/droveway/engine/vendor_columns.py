"""This file knows what the columns of vendors' usage exports are called.

Two shapes exist. In a wide one each row has a column for each figure. In a long one (DeepSeek's
quantities) each row has one figure: `type` says of what, `amount` how much, `price` at what price.

Where the names come from. No vendor documents its export's columns; these were seen in files that
users published, and were not verified against an account:

- DeepSeek (platform.deepseek.com/usage, "export"; a ZIP of two files). Until about 2026-07
  `user_id,utc_date,model,wallet_type,cost,currency` and
  `user_id,utc_date,model,api_key_name,api_key,type,price,amount`; since then both have
  `start_time_iso,end_time_iso` with an offset (+08:00 in most) instead of `utc_date`. Types:
  `input_cache_hit_tokens`, `input_cache_miss_tokens`, `output_tokens`, `request_count`.
- OpenAI (platform.openai.com/usage, 2025-10): usage has `start_time_iso`, `model`,
  `num_model_requests`, `input_tokens`, `input_cached_tokens`, `output_tokens` and no cost; the
  costs have `amount_value` and `amount_currency` and no model.
- Anthropic (Console, 2026-08): usage has `usage_date_utc`, `model_version`,
  `usage_input_tokens_no_cache`, `…_cache_write_5m`, `…_cache_write_1h`, `…_cache_read`,
  `usage_output_tokens`; the costs have `cost_usd` and the model's name as people say it.
- OpenRouter (activity, 2026-09): a row for each request with `generation_id`, `created_at`,
  `cost_total`, `tokens_prompt`, `tokens_completion`, `tokens_cached`, `model_permaslug`.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

# Meaning → names; of several that are there, the first counts.
KNOWN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "moment": (
            "start_time_iso",
            "start_time",
            "utc_date",
            "usage_date_utc",
            "usage_date",
            "date",
            "day",
            "hour",
            "created_at",
            "timestamp",
            "time",
        ),
        "until": ("end_time_iso", "end_time"),
        "model": ("model", "model_permaslug", "model_version", "model_name", "slug"),
        "request": ("generation_id", "request_id"),
        "requests": ("num_model_requests", "request_count", "requests", "api_calls"),
        "input": ("input_tokens", "prompt_tokens", "tokens_prompt"),
        "cached": (
            "input_cache_hit_tokens",
            "input_cached_tokens",
            "usage_input_tokens_cache_read",
            "cached_tokens",
            "tokens_cached",
        ),
        "uncached": (
            "input_cache_miss_tokens",
            "input_uncached_tokens",
            "usage_input_tokens_no_cache",
        ),
        "cache_write": (
            "usage_input_tokens_cache_write_5m",
            "usage_input_tokens_cache_write_1h",
        ),
        "output": (
            "output_tokens",
            "completion_tokens",
            "tokens_completion",
            "usage_output_tokens",
        ),
        "cost": (
            "cost",
            "cost_usd",
            "cost_cny",
            "cost_total",
            "total_cost",
            "amount_value",
            "amount",
        ),
        "currency": ("currency", "amount_currency"),
        "kind": ("type",),
        "quantity": ("amount",),
        "price": ("price",),
    }
)
LONG: Final = ("kind", "quantity", "price")
# What is told in several columns, and is their sum.
SUMMED: Final = "cache_write"
# What a row of a long export tells, by its type; of other types only the money counts.
KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "input_cache_hit_tokens": "cached",
        "input_cache_miss_tokens": "uncached",
        "input_tokens": "input",
        "output_tokens": "output",
        "request_count": "requests",
    }
)
_IMPLIED: Final = re.compile(r"_(usd|cny|eur)$")


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where an export has what.

    Attributes:
        places: Meaning → which cells of a row, counted from 0.
        cells: How many cells a row has.
        currency: The one that the cost column's name tells; None where it tells none.
        named: Meanings whose column somebody has named, and which is there.
    """

    places: Mapping[str, tuple[int, ...]]
    cells: int
    currency: str | None
    named: frozenset[str]

    def place(self, meaning: str) -> int | None:
        """Return the one cell that tells something; None where none does."""
        places = self.places.get(meaning)
        return None if places is None else places[0]

    @property
    def long(self) -> bool:
        """Whether each row tells one figure, and says which."""
        return "kind" in self.places


def recognise(header: Sequence[str], named: Mapping[str, str]) -> Layout:
    """Find out which column means what.

    Args:
        header: The names of the columns.
        named: Meaning → name of its column, for exports that are not known.

    Raises:
        ValueError: There is no moment, or two columns have a name that is needed.
    """
    names = [_plain(name) for name in header]
    wanted = {meaning: _plain(name) for meaning, name in named.items()}
    there = {meaning: name for meaning, name in wanted.items() if name in names}
    taken = set(there.values())
    chosen: dict[str, list[str]] = {meaning: [name] for meaning, name in there.items()}
    for meaning, known in KNOWN.items():
        found = [name for name in known if name in names and name not in taken]
        if found and meaning not in chosen:
            chosen[meaning] = found if meaning == SUMMED else found[:1]
    _settle_shape(chosen)
    if "moment" not in chosen:
        raise ValueError(
            f"none of the columns {', '.join(map(repr, header[:20]))} is known for a date; name "
            "it: --column moment=NAME"
        )
    for name in (name for columns in chosen.values() for name in columns):
        if names.count(name) > 1:
            raise ValueError(f"two columns are called {name!r}")
    implied = _IMPLIED.search("".join(chosen.get("cost", [])))
    return Layout(
        places={
            meaning: tuple(names.index(name) for name in columns)
            for meaning, columns in chosen.items()
        },
        cells=len(names),
        currency=None if implied is None else implied[1].upper(),
        named=frozenset(there),
    )


def _settle_shape(chosen: dict[str, list[str]]) -> None:
    """Decide what `amount` is: a quantity beside its type and price, a cost elsewhere."""
    if all(meaning in chosen for meaning in LONG):
        if chosen.get("cost") == chosen["quantity"]:
            del chosen["cost"]
        return
    for meaning in LONG:
        chosen.pop(meaning, None)


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().lower()).strip("_")
