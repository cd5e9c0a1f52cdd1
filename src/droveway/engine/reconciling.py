"""This file knows what our journal and a vendor's export say of the same periods, and differ in.

Our side is what the vendor may ask for: every attempt with tokens or a cost, by the moment it
started, given up ones by estimate. The one attempt of a request has no moment of its own in the
journal: it counts at the moment of its request, which is earlier by the time it waited in line, so
a line at the border of two periods may lie in the one before. By which moment a vendor counts is
in none of their pages.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache, lru_cache
from typing import Any, Final

import msgspec

from droveway.catalog.models import ModelLimits, known_models
from droveway.engine import statements
from droveway.engine.vendor_cells import EXACT, By, local, period_start
from droveway.engine.vendor_export import Export, Key
from droveway.engine.vendor_sums import Sums
from droveway.errors import BadRequestError
from droveway.money import NANO_MAX, NANO_PER_UNIT, Money
from droveway.storage import Store
from droveway.storage.moments import micros

# Longer than any period, at both ends: what is too much is left out again by its period.
MARGIN: Final = timedelta(days=2)
COST_NANO_MAX: Final = NANO_MAX // 2
# What vendors hang on a name in their exports (OpenAI, 2025-10): gpt-5-2025-08-07.
_SNAPSHOT: Final = re.compile(r"-([0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2})$")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one side says; None where it does not tell.

    Attributes:
        requests: Requests with tokens or a cost.
        input: Input tokens, cached ones among them.
        cached: Input tokens read from a cache.
        output: Output tokens.
        cost: What they cost.
    """

    requests: int | None
    input: int | None
    cached: int | None
    output: int | None
    cost: Money


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A period and a model as both sides tell of them.

    Attributes:
        start: Where the period begins, in the zone of the export; None for all of them.
        model: The model; None where the export does not tell models apart.
        ours: What the journal says.
        theirs: What the vendor says.
    """

    start: datetime | None
    model: str | None
    ours: Figures
    theirs: Figures

    @property
    def unexplained(self) -> Money:
        """What the vendor asks beyond what the journal knows of; negative where it asks less."""
        return self.theirs.cost - self.ours.cost


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What came of comparing.

    Attributes:
        provider: Whose export it is.
        by: How long the periods are.
        lines: Each period and model, in order.
        total: All of them; the vendor's cost is rounded once, here as in each line.
        guessed: Our attempts whose tokens or cost are estimates, because the vendor told none.
        guessed_cost: What they come to.
        unpriced: Our attempts that have tokens and no price.
        elsewhere: What our attempts cost in other currencies; it is in no line.
        oldest: The first request that the journal still has; None where it has none.
    """

    provider: str
    by: By
    lines: tuple[Line, ...]
    total: Line
    guessed: int
    guessed_cost: Money
    unpriced: int
    elsewhere: tuple[Money, ...]
    oldest: datetime | None


class _Own(msgspec.Struct):
    """What our attempts of one period and model come to."""

    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    nano: int = 0


class _Ours:
    """Our side, summed up by the periods of an export.

    Args:
        export: Whose periods and currency count.
        start: Periods that begin earlier are left out.
        end: So are those that begin at this moment or later.
    """

    def __init__(self, export: Export, *, start: datetime, end: datetime) -> None:
        self._export = export
        self._within = (start, end)
        self.sums: dict[Key, _Own] = {}
        self.guessed = self.guessed_nano = self.unpriced = 0
        self.elsewhere: dict[str, int] = {}

    def add(self, row: tuple[Any, ...]) -> None:
        """Take a row of `OWN_BY_QUARTER`."""
        at_us, model, currency, requests, *tokens, nano, guessed, guessed_nano = row
        export = self._export
        start = period_start(local(at_us, export.zone), export.by)
        if not self._within[0] <= start < self._within[1]:
            return
        key = (micros(start), vendors_name(model, start) if export.per_model else "")
        own = self.sums.setdefault(key, _Own())
        own.requests += requests
        own.input, own.cached, own.output = (
            known + more
            for known, more in zip((own.input, own.cached, own.output), tokens, strict=True)
        )
        if not currency:
            self.unpriced += requests
        elif currency != export.currency:
            self.elsewhere[currency] = self.elsewhere.get(currency, 0) + nano
        else:
            own.nano += nano
            self.guessed += guessed
            self.guessed_nano += guessed_nano


def compare(
    export: Export,
    store: Store,
    *,
    provider: str,
    account: int | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> Comparison:
    """Compare an export with the journal.

    Args:
        export: What the vendor says.
        store: Where the journal is.
        provider: The vendor's name in the settings.
        account: Whose bill it is, of the provider's accounts, from 1 on; None for that of all.
        start: Only periods that begin at this moment or later; None from the export's first.
        end: Only periods that begin before this moment; None up to the export's last.

    Raises:
        BadRequestError: The costs are beyond all measure.
    """
    start = start or export.first
    end = end or export.last + timedelta(microseconds=1)
    ours = _Ours(export, start=start, end=end)
    span = (micros(start - MARGIN), micros(end + MARGIN))
    for row in store.read(statements.OWN_BY_QUARTER, (provider, *span, account)):
        ours.add(row)
    theirs = _named_alike(export, start=start, end=end)
    keys = sorted(ours.sums.keys() | theirs.keys())
    ((oldest,),) = store.read(statements.OLDEST)
    return Comparison(
        provider=provider,
        by=export.by,
        lines=tuple(
            Line(
                start=local(key[0], export.zone),
                model=key[1] if export.per_model else None,
                ours=_our_figures([ours.sums.get(key, _Own())], export.currency),
                theirs=_their_figures(theirs.get(key, Sums()), export),
            )
            for key in keys
        ),
        total=Line(
            start=None,
            model=None,
            ours=_our_figures(ours.sums.values(), export.currency),
            theirs=_their_figures(sum(theirs.values(), Sums()), export),
        ),
        guessed=ours.guessed,
        guessed_cost=Money(ours.guessed_nano, export.currency),
        unpriced=ours.unpriced,
        elsewhere=tuple(Money(nano, name) for name, nano in sorted(ours.elsewhere.items())),
        oldest=None if oldest is None else local(oldest, export.zone),
    )


def providers_known(store: Store) -> list[str]:
    """Return the names of all providers that the journal has requests to."""
    return [str(name) for (name,) in store.read(statements.PROVIDERS_KNOWN)]


# Months of hours have few models: the catalog is searched once for each of a period.
@lru_cache(maxsize=4096)
def vendors_name(model: str, at: datetime) -> str:
    """Return the one name of a model that has several, so that both sides mean the same.

    A dated snapshot is the model it is one of: who asks for the model is billed for the snapshot.
    A name that its vendor answers with another model is that other model from then on.
    """
    bare = _SNAPSHOT.sub("", model)
    name = bare if bare in _known() else model
    told = _known().get(name)
    if told is None:
        return name
    if told.alias_of is not None:
        return told.alias_of
    if told.rerouted and told.successor is not None and told.retired(at):
        return told.successor
    return name


@cache
def _known() -> dict[str, ModelLimits]:
    return {model: told for (_, model), told in known_models().items()}


def _named_alike(export: Export, *, start: datetime, end: datetime) -> dict[Key, Sums]:
    """Return what the vendor says of the wanted periods, its models named as ours."""
    found: dict[Key, Sums] = {}
    for (at_us, model), sums in export.sums.items():
        at = local(at_us, export.zone)
        if start <= at < end:
            key = (at_us, vendors_name(model, at))
            found[key] = found.get(key, Sums()) + sums
    return found


def _our_figures(parts: Iterable[_Own], currency: str) -> Figures:
    each = list(parts)
    return Figures(
        requests=sum(part.requests for part in each),
        input=sum(part.input for part in each),
        cached=sum(part.cached for part in each),
        output=sum(part.output for part in each),
        cost=Money(sum(part.nano for part in each), currency),
    )


def _their_figures(sums: Sums, export: Export) -> Figures:
    exact = EXACT.multiply(sums.cost, Decimal(NANO_PER_UNIT))
    nano = int(exact.to_integral_value(ROUND_HALF_EVEN))
    if abs(nano) > COST_NANO_MAX:
        raise BadRequestError("the export's costs come to more money than there is")
    return Figures(
        requests=sums.requests if "requests" in export.tells else None,
        input=sums.input if "input" in export.tells else None,
        cached=sums.cached if "cached" in export.tells else None,
        output=sums.output if "output" in export.tells else None,
        cost=Money(nano, export.currency),
    )
