"""This file knows how an engine is put together from settings, environment and catalog.

It alone may start the embedded sandbox: where no provider is configured, nothing is left to ask.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from droveway.catalog.pricebook import PriceBook
from droveway.catalog.pricelists import built_in_book
from droveway.catalog.providers import BUILT_IN
from droveway.dialects.accents import accent_named
from droveway.engine.provider import Provider
from droveway.errors import NotFoundError, SettingsError
from droveway.resilience.gate import FAILURES_IN_A_ROW
from droveway.resilience.pacing import WAITING_MAX
from droveway.routing.plan import Offer, plan
from droveway.routing.tiers import TIERS
from droveway.sandbox import Sandbox
from droveway.settings import ProviderSettings, RoutingSettings, Secret, Settings, resolve_secret
from droveway.transport import Origin, parse_url

SANDBOX: Final = "sandbox"
PRICE_LISTS: Final = frozenset(known.prices for known in BUILT_IN.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an engine is made of.

    Attributes:
        settings: What was set.
        providers: Who can be asked, in order.
        book: The price book, own prices included.
        sandbox: Whether the embedded sandbox is to be started as the only provider.
    """

    settings: Settings
    providers: Sequence[Provider]
    book: PriceBook
    sandbox: bool


def assemble(settings: Settings, environ: Mapping[str, str]) -> Parts:
    """Find out who can be asked.

    Providers of the settings come first; with none there, the built-in ones whose usual key
    variable is set; with none of these either, the embedded sandbox.

    Raises:
        SettingsError: A provider, an alias or a price cannot be used.
    """
    providers = [
        _configured(name, provider, environ) for name, provider in settings.providers.items()
    ] or [_built_in(name, environ) for name, known in BUILT_IN.items()
          if environ.get(known.key_variable, "").strip()]  # fmt: skip
    _check_names(settings, providers)
    return Parts(
        settings=settings,
        providers=providers,
        book=book_with_own_prices(settings),
        sandbox=not providers,
    )


def book_with_own_prices(settings: Settings) -> PriceBook:
    """Return the price book with the settings' own prices laid over it."""
    book = built_in_book()
    for name, own in settings.prices.items():
        book = book.with_own(
            name,
            input=own.input,
            output=own.output,
            cached=own.cached,
            cache_write=own.cache_write,
            currency=own.currency,
        )
    return book


def default_model(model: str, routing: RoutingSettings, providers: Sequence[Provider]) -> str:
    """Return the model of a tier; where nothing was set and nobody has it, a vendor's default.

    Args:
        model: The tier's model by `[routing]`.
        routing: The tiers; the built-in ones stand for nobody's wish.
        providers: Who can be asked, in order.
    """
    offers = [provider.offer for provider in providers]
    if routing != RoutingSettings() or any(
        offer.any_model or model in offer.models for offer in offers
    ):
        return model
    for provider in providers:
        known = BUILT_IN.get(provider.name)
        if known is not None and known.default_model in provider.offer.models:
            return f"{provider.name}/{known.default_model}"
    return model


def provider_at(
    base_url: str,
    key: Secret | None,
    *,
    name: str = "remote",
    limits: ProviderSettings | None = None,
) -> Provider:
    """Make a provider of a bare URL; a vendor known by its host keeps its accent and prices.

    Raises:
        SettingsError: The URL cannot be used.
    """
    origin, path = _address(base_url, name)
    known = next(
        (each for each in BUILT_IN.values() if parse_url(each.base_url)[0].host == origin.host),
        None,
    )
    return Provider(
        name=name,
        origin=origin,
        path=path,
        accent=accent_named(known.accent) if known else None,
        key=key,
        prices=known.prices if known else None,
        relays=known is None,
        offer=Offer(provider=name, any_model=True),
        concurrency=limits.concurrency if limits else None,
        rpm=limits.rpm if limits else None,
        tpm=limits.tpm if limits else None,
        waiting_max=limits.waiting_max if limits else WAITING_MAX,
        failures_max=limits.failures_max if limits else FAILURES_IN_A_ROW,
    )


async def embedded_sandbox() -> tuple[Sandbox, Provider]:
    """Start the sandbox inside this process and return it as a provider that takes any name."""
    sandbox = Sandbox()
    await sandbox.start()
    return sandbox, provider_at(sandbox.base_url, None, name=SANDBOX)


def _check_names(settings: Settings, providers: Sequence[Provider]) -> None:
    """Refuse names that lead nowhere, when they are read and not when they are needed."""
    known = {provider.name for provider in providers}
    named = [(f"models.{alias}", entry) for alias, told in settings.models.items()
             for entry in told.candidates]  # fmt: skip
    named += [("prices", entry) for entry in settings.prices]
    for where, entry in named:
        provider, slash, model = entry.partition("/")
        if not (slash and model and provider in known):
            near = difflib.get_close_matches(provider, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {sorted(known)}"
            raise SettingsError(f"{where} names {entry!r}, but no provider {provider!r}; {hint}")
    _check_rollouts(settings, providers)
    for name, told in settings.providers.items():
        if told.prices is not None and told.prices not in PRICE_LISTS:
            raise SettingsError(
                f"providers.{name}.prices: there is no list {told.prices!r}; there are "
                f"{', '.join(sorted(PRICE_LISTS))}"
            )


def _check_rollouts(settings: Settings, providers: Sequence[Provider]) -> None:
    """Refuse models that nobody has; with no provider the sandbox answers, which has any."""
    offers = [provider.offer for provider in providers]
    aliases = {name: told.candidates for name, told in settings.models.items()}
    for role, told in settings.rollout.items():
        if offers and told.to not in ("auto", *TIERS):
            try:
                plan(told.to, offers=offers, aliases=aliases)
            except NotFoundError as error:
                raise SettingsError(f"rollout.{role}.to: {error}") from error


def _configured(name: str, told: ProviderSettings, environ: Mapping[str, str]) -> Provider:
    known = BUILT_IN.get(name)
    base_url = told.base_url or (known.base_url if known else "")
    if not base_url:
        raise SettingsError(
            f"providers.{name} has no base_url, and only {', '.join(BUILT_IN)} have one built in"
        )
    origin, path = _address(base_url, name)
    references = told.api_keys or (told.api_key,)
    if references == (None,) and known is not None and not told.base_url:
        references = (f"env:{known.key_variable}",)
    key, *further = (
        None if each is None else resolve_secret(each, environ, key=f"providers.{name}.api_key")
        for each in references
    )
    models = told.models or (known.models if known else ())
    accent = told.accent or (known.accent if known else None)
    return Provider(
        name=name,
        origin=origin,
        path=path,
        accent=accent_named(accent) if accent else None,
        key=key,
        further=tuple(each for each in further if each is not None),
        weights=told.weights or (1,) * len(references),
        prices=told.prices or (known.prices if known else None),
        offer=Offer(provider=name, models=frozenset(models), any_model=not models),
        concurrency=told.concurrency,
        rpm=told.rpm,
        tpm=told.tpm,
        waiting_max=told.waiting_max,
        failures_max=told.failures_max,
    )


def _built_in(name: str, environ: Mapping[str, str]) -> Provider:
    known = BUILT_IN[name]
    told = ProviderSettings(
        base_url=known.base_url,
        accent=known.accent,
        api_key=f"env:{known.key_variable}",
        prices=known.prices,
        models=known.models,
    )
    return _configured(name, told, environ)


def _address(base_url: str, name: str) -> tuple[Origin, str]:
    try:
        return parse_url(base_url)
    except ValueError as error:
        raise SettingsError(f"providers.{name}.base_url: {error}") from error
