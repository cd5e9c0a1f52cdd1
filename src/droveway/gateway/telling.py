"""This file knows what an operator is told of providers, their lines, and the hours gone by."""

from datetime import datetime, timedelta

import msgspec

from droveway.dialects.ending import Outcome
from droveway.engine.engine import Engine
from droveway.engine.journal_upkeep import Hour
from droveway.engine.line import Line
from droveway.engine.provider import Provider
from droveway.money import Money
from droveway.resilience.gate import Cause, State
from droveway.routing.plan import Candidate


class LineState(msgspec.Struct, frozen=True, kw_only=True):
    """The line before one model of a provider, as it stands now in this process.

    Attributes:
        model: The vendor's name of the model.
        account: Which of the provider's accounts, from 1 on.
        in_flight: Requests that were sent and are not back.
        waiting: Requests that stand in line.
        concurrency: Requests in flight at most.
        state: As of a breaker. closed: requests flow; open: none goes; half_open: one goes alone.
        cause: Why it is not closed. refused: the vendor said "later"; failing: it failed in a row;
            shut_out: it does not take our key, or our account there is empty. Null while closed.
        until: When an open line lets the next one go; null otherwise.
    """

    model: str
    account: int
    in_flight: int
    waiting: int
    concurrency: int
    state: State
    cause: Cause | None
    until: datetime | None


class ProviderState(msgspec.Struct, frozen=True, kw_only=True):
    """A provider, without its key.

    Attributes:
        name: Name in the settings.
        base_url: Where it listens.
        accent: How it differs within its dialect; null speaks as each model's own vendor does.
        models: Names it is known to have.
        any_model: Whether it is asked for other names too.
        has_key: Whether it is sent a key.
        lines: Its lines; a line comes into being with the first request for its model.
    """

    name: str
    base_url: str
    accent: str | None
    models: tuple[str, ...]
    any_model: bool
    has_key: bool
    lines: tuple[LineState, ...]


class HourSum(msgspec.Struct, frozen=True, kw_only=True):
    """What an hour came to, for one key, provider, model, outcome and currency.

    Attributes:
        hour: Its beginning, UTC.
        key_id: Whose key; null without keys.
        provider: Who was asked last; null where nobody was.
        model: The name the vendor was asked by, or what the caller asked for where none was.
        outcome: completed, failed or cancelled.
        requests: How many.
        input: Input tokens that were in no cache.
        cached_read: Input tokens read from a cache.
        cache_write: Input tokens written to one.
        output: Output tokens.
        reasoning: How many of them were reasoning.
        cost: A decimal string; null where the model is unpriced.
        own_cost: What vendors may ask for all attempts, a decimal string or null likewise.
        currency: Of both; null where there is no cost.
        total_ms: From the door to the end, summed up.
        drifted: How many were served by another model than the one sent for.
    """

    hour: datetime
    key_id: str | None
    provider: str | None
    model: str
    outcome: Outcome
    requests: int
    input: int
    cached_read: int
    cache_write: int
    output: int
    reasoning: int
    cost: str | None
    own_cost: str | None
    currency: str | None
    total_ms: float
    drifted: int


def provider_states(engine: Engine) -> list[ProviderState]:
    """Tell of every provider, in the order of the settings."""
    return [_provider_state(engine, provider) for provider in engine.providers.values()]


def hour_sum(hour: Hour) -> HourSum:
    """Tell of an hour: money as decimal strings, and null for what the store keeps as empty."""
    fields = msgspec.structs.asdict(hour)
    cost, own_cost = fields.pop("cost_nano"), fields.pop("own_cost_nano")
    told = {
        "key_id": hour.key_id or None,
        "provider": hour.provider or None,
        "currency": hour.currency or None,
        "cost": _decimal(cost, hour.currency),
        "own_cost": _decimal(own_cost, hour.currency),
        "total_ms": fields.pop("total_us") / 1e3,
    }
    return HourSum(**{**fields, **told})


def _decimal(nano: int, currency: str) -> str | None:
    return Money(nano, currency).decimal() if currency else None


def _provider_state(engine: Engine, provider: Provider) -> ProviderState:
    origin = provider.origin
    known = engine.lines.items()
    lines = {each: line for each, line in known if each.provider == provider.name}
    return ProviderState(
        name=provider.name,
        base_url=f"{origin.scheme}://{origin.host_header}{provider.path}",
        accent=provider.accent.name if provider.accent is not None else None,
        models=tuple(sorted(provider.offer.models)),
        any_model=provider.offer.any_model,
        has_key=provider.key is not None,
        lines=tuple(_line_state(engine, each, lines[each]) for each in sorted(lines)),
    )


def _line_state(engine: Engine, candidate: Candidate, line: Line) -> LineState:
    pacer, now = line.pacer, engine.clock.monotonic()
    cools_s = pacer.ready_at(now) - now
    # A pacer notices that a cool-down is over when the next one asks; who reads should not wait.
    over = pacer.state == "open" and cools_s <= 0
    until = engine.clock.now() + timedelta(seconds=cools_s) if cools_s > 0 else None
    return LineState(
        model=candidate.model,
        account=candidate.account + 1,
        in_flight=pacer.in_flight,
        waiting=pacer.waiting,
        concurrency=pacer.concurrency,
        state="half_open" if over else pacer.state,
        cause=pacer.gate.cause,
        until=until,
    )
