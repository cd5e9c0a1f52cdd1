"""This file knows `droveway check`: what the settings come to, without the network."""

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.text import Text

from droveway.catalog.listing import as_table_row
from droveway.catalog.pricerow import PriceRow
from droveway.cli import options, providers, tables
from droveway.cli.help_page import command as make_command
from droveway.clock import SystemClock
from droveway.engine.engine import Engine
from droveway.errors import UnpricedModelError
from droveway.routing.plan import Candidate
from droveway.routing.tiers import TIERS

MASKED = "***"


@make_command("check", "droveway check", "droveway check --config droveway.toml --json")
@options.config
@options.as_json
def command(*, config: Path | None, as_json: bool) -> None:
    """Validate the settings without the network, and show what they come to."""
    chosen = providers.choose(None, None, config)
    found = findings(chosen)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        _show(found)


def findings(chosen: providers.Chosen) -> dict[str, Any]:
    """Return what the settings come to, as data; keys are masked.

    Raises:
        SettingsError: An alias names a candidate that nobody has.
    """
    engine = chosen.engine
    aliases = {name: engine.plan(name) for name in engine.settings.models if engine.providers}
    return {
        "settings": chosen.words,
        "providers": [
            {
                "name": each.name,
                "base_url": f"{each.origin.scheme}://{each.origin.host_header}{each.path}",
                "key": None if each.key is None else MASKED,
                "prices": each.prices,
                "models": None if each.offer.any_model else len(each.offer.models),
            }
            for each in engine.providers.values()
        ],
        "aliases": {name: [_name(each) for each in plan] for name, plan in aliases.items()},
        "tiers": {tier: _tier(engine, getattr(engine.settings.routing, tier)) for tier in TIERS},
        "prices": list(engine.settings.prices),
        "timeouts": msgspec.to_builtins(engine.settings.streams),
    }


def _tier(engine: Engine, asked: str) -> dict[str, Any]:
    plan = providers.has(engine, asked) if engine.providers else (Candidate("sandbox", asked),)
    row = _price(engine, plan[0]) if plan else None
    return {
        "model": asked,
        "answered_by": [_name(each) for each in plan],
        "price": None if row is None else as_table_row(row, SystemClock().now()),
    }


def _price(engine: Engine, candidate: Candidate) -> PriceRow | None:
    provider = engine.providers.get(candidate.provider)
    try:
        return engine.book.lookup(
            provider=candidate.provider,
            prices=provider.prices if provider is not None else None,
            model=candidate.model,
            at=SystemClock().now(),
            currency=engine.currency,
        )
    except UnpricedModelError:
        return None


def _name(candidate: Candidate) -> str:
    return f"{candidate.provider}/{candidate.model}"


def _show(found: dict[str, Any]) -> None:
    asked = tables.table("provider", "base URL", "key", "prices of", "models",
                         left=("base URL", "key", "prices of"))  # fmt: skip
    for each in found["providers"]:
        models = "any" if each["models"] is None else str(each["models"])
        asked.add_row(
            each["name"], each["base_url"], each["key"] or "none", each["prices"] or "-", models
        )
    tiers = tables.table("tier", "model", "answered by", "input", "output",
                         left=("model", "answered by"))  # fmt: skip
    for tier, told in found["tiers"].items():
        price = told["price"] or {"input": "unpriced", "output": "unpriced"}
        by = " then ".join(told["answered_by"]) or Text("nobody has it", style="red")
        tiers.add_row(tier, told["model"], by, price["input"], price["output"])
    parts: list[object] = [
        Text(f"The settings are in order: {found['settings']}", style="bold"),
        "",
    ]
    if found["providers"]:
        parts += [asked, ""]
    else:
        parts += ["The embedded sandbox answers every model.", ""]
    if found["aliases"]:
        aliases = tables.table("alias", "candidates", left=("candidates",))
        for name, candidates in found["aliases"].items():
            aliases.add_row(name, " then ".join(candidates))
        parts += [aliases, ""]
    own = ", ".join(found["prices"])
    parts += [tiers, f"\nUSD per million tokens now; own prices: {own or 'none'}"]
    tables.show(*parts)
