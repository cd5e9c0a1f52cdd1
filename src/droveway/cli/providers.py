"""This file knows which providers a command asks: a URL, the settings, keys, or the sandbox."""

import ipaddress
import os
from pathlib import Path
from typing import Final

import msgspec

from droveway.catalog.providers import BUILT_IN
from droveway.cli.lines import remark
from droveway.engine.assembly import provider_at
from droveway.engine.engine import Engine
from droveway.engine.provider import Provider
from droveway.errors import NotFoundError, SettingsError
from droveway.routing.plan import Candidate
from droveway.settings import Secret, Settings, load_settings
from droveway.transport import parse_url

KEY_VARIABLE: Final = "DROVEWAY_API_KEY"
SETTINGS_FILE: Final = Path("droveway.toml")


class Chosen(msgspec.Struct, frozen=True):
    """What was chosen.

    Attributes:
        engine: An engine that nobody has used yet.
        words: Where its providers come from, for people.
    """

    engine: Engine
    words: str


def choose(base_url: str | None, api_key: str | None, config: Path | None) -> Chosen:
    """Make the engine of a command.

    `--base-url` comes first, then `--config`, then `droveway.toml` of this directory, then the
    keys in the environment, then the embedded sandbox. Nothing is sent.

    Raises:
        SettingsError: What was given cannot be used.
    """
    if base_url is not None:
        settings = Settings() if config is None else load_settings(config)
        provider = provider_at(base_url, _key_for(base_url, api_key))
        return Chosen(Engine(settings, providers=[provider]), "--base-url")
    if api_key is not None:
        raise SettingsError(
            "--api-key belongs to --base-url; other providers take their keys from the settings "
            "or the environment"
        )
    if config is None and SETTINGS_FILE.exists():
        config = SETTINGS_FILE
    engine = Engine(None if config is None else load_settings(config))
    words = [] if config is None else [str(config)]
    if not engine.settings.providers:
        words.append("keys in the environment" if engine.providers else "no provider has a key")
    return Chosen(engine, ", ".join(words))


def tell_sandbox(chosen: Chosen) -> None:
    """Say on stderr that the embedded sandbox will answer, where it will."""
    if not chosen.engine.providers:
        key = next(iter(BUILT_IN.values())).key_variable
        remark(
            "no provider is set, so the embedded sandbox answers; give --base-url, or set "
            f"{key}, for a real one"
        )


def default_model(engine: Engine) -> str:
    """Return what is asked for without `--model`: the tiers, where a provider has their models.

    Somebody whose only key is of another vendor gets that vendor's first model, and is told.
    """
    if not engine.providers:
        return "auto"
    try:
        for tier in ("moderate", "complex"):
            engine.plan(getattr(engine.settings.routing, tier))
    except NotFoundError as error:
        for provider in engine.providers.values():
            models = models_of(provider)
            if models:
                remark(f"asking for {models[0]}, as {error}")
                return models[0]
        raise
    return "auto"


def models_of(provider: Provider) -> list[str]:
    """Return the models a provider is known to have, as provider/model, the catalog's order first.

    Of one that takes any name, those that the catalog knows of its price list.
    """
    known = BUILT_IN.get(provider.prices or "")
    order = list(known.models) if known is not None else []
    models = provider.offer.models or frozenset(order)
    ranked = [model for model in order if model in models] + sorted(models - set(order))
    return [f"{provider.name}/{model}" for model in ranked]


def has(engine: Engine, name: str) -> tuple[Candidate, ...]:
    """Return who would answer for a name; nobody where no provider has it."""
    try:
        return engine.plan(name)
    except NotFoundError:
        return ()


def _key_for(base_url: str, given: str | None) -> Secret | None:
    key = given if given is not None else os.environ.get(KEY_VARIABLE, "")
    if key.strip():
        return Secret(key)
    if not _is_loopback(parse_url(base_url)[0].host):
        raise SettingsError(f"{base_url} needs a key; set {KEY_VARIABLE} or give --api-key")
    return None


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
