"""This file knows what is counted of the gateway's traffic, in whole numbers, and how it adds up.

Counting is on the hot path: plain dicts and lists, no locks, no floats near money.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from droveway import errors
from droveway.engine.records import Row
from droveway.engine.written import drifts
from droveway.gateway.present import LinePresent, Present
from droveway.telemetry import Redaction

# A provider may take any name, and each new one would be some 60 lines more on the page.
PAIRS_MAX: Final = 200
MODEL_SIGNS_MAX: Final = 120
OTHER: Final = "other"
NOBODY: Final = ("", "")
CODES: Final = frozenset(
    kind.code
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.DrovewayError)
)
TOKEN_CLASSES: Final = ("input", "cached_read", "cache_write", "output", "reasoning")
DURATION_MS: Final = (100, 250, 500, 1e3, 2.5e3, 5e3, 1e4, 2e4, 3e4, 6e4, 1.2e5, 3e5, 6e5)
FIRST_TOKEN_MS: Final = (50, 100, 250, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 1.2e5)
WAITED_MS: Final = (1, 10, 50, 100, 250, 500, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 1.2e5, 3e5)
OVERHEAD_MS: Final = (0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1e3, 5e3, 3e4)
_FORMS: Final = Redaction()
K = TypeVar("K")
End = tuple[str, str]  # outcome and code; the code is empty where it completed


class Spread(msgspec.Struct, kw_only=True):
    """How values spread over the buckets of a histogram.

    Attributes:
        counts: Values in each bucket, and in the last place those beyond all bounds.
        sum_ms: All values together.
    """

    counts: list[int]
    sum_ms: float = 0.0

    def put(self, value_ms: float, bounds_ms: Sequence[float]) -> None:
        """Count a value; one that is a bound is within it."""
        self.counts[bisect_left(bounds_ms, value_ms)] += 1
        self.sum_ms += value_ms


def _empty(bounds_ms: Sequence[float]) -> Callable[[], Spread]:
    return lambda: Spread(counts=[0] * (len(bounds_ms) + 1))


class Traffic(msgspec.Struct, kw_only=True):
    """What was counted for one provider and model.

    Attributes:
        requests: How many ended so.
        attempts: How many of those that were sent to the vendor ended so.
        tokens: In the order of `TOKEN_CLASSES`.
        cost_nano: Whole nano-units by currency.
        drifted: Requests that another model has answered.
        duration: From the door to the end.
        first_token: From the door to the first data event.
        waited: For a turn, and between attempts.
        overhead: Of requests that completed, the time without the attempts' own.
    """

    requests: dict[End, int] = {}
    attempts: dict[End, int] = {}
    tokens: list[int] = msgspec.field(default_factory=lambda: [0] * len(TOKEN_CLASSES))
    cost_nano: dict[str, int] = {}
    drifted: int = 0
    duration: Spread = msgspec.field(default_factory=_empty(DURATION_MS))
    first_token: Spread = msgspec.field(default_factory=_empty(FIRST_TOKEN_MS))
    waited: Spread = msgspec.field(default_factory=_empty(WAITED_MS))
    overhead: Spread = msgspec.field(default_factory=_empty(OVERHEAD_MS))

    def note(self, row: Row, vendors_ms: float) -> None:
        """Count the end of a request whose attempts took so long; they are counted already."""
        _count(self.requests, (row.outcome, known(row.code)))
        self.duration.put(row.total_ms, DURATION_MS)
        self.waited.put(row.waited_ms, WAITED_MS)
        if row.first_token_ms is not None:
            self.first_token.put(row.first_token_ms, FIRST_TOKEN_MS)
        if row.outcome == "completed":
            self.overhead.put(max(0.0, row.total_ms - vendors_ms), OVERHEAD_MS)
        usage, cost = row.usage, row.cost
        if usage is not None:
            tokens = self.tokens
            tokens[0] += usage.input
            tokens[1] += usage.cached_read
            tokens[2] += usage.cache_write
            tokens[3] += usage.output
            tokens[4] += usage.reasoning
        if cost is not None:
            _count(self.cost_nano, cost.currency, cost.nano)

    def add(self, more: "Traffic") -> None:
        """Add what another process has counted."""
        _add_counts(self.requests, more.requests)
        _add_counts(self.attempts, more.attempts)
        _add_counts(self.cost_nano, more.cost_nano)
        self.tokens = _added(self.tokens, more.tokens)
        self.drifted += more.drifted
        for spread, further in (
            (self.duration, more.duration),
            (self.first_token, more.first_token),
            (self.overhead, more.overhead),
            (self.waited, more.waited),
        ):
            spread.counts = _added(spread.counts, further.counts)
            spread.sum_ms += further.sum_ms


class Sums(msgspec.Struct, kw_only=True):
    """What one process, or all of them, have counted.

    Attributes:
        pairs: By provider and model; both empty for requests that nobody was asked for.
        refused: Requests refused before they reached the engine, by code.
        present: How it stands now.
    """

    pairs: dict[tuple[str, str], Traffic] = {}
    refused: dict[str, int] = {}
    present: Present = msgspec.field(default_factory=Present)

    def note(self, row: Row) -> None:
        """Count a request that has ended, for the provider and model that were asked last."""
        provider, model = NOBODY
        traffic: Traffic | None = None
        vendors_ms = 0.0
        for each in row.attempts:
            provider, model = each.provider, each.model
            traffic = self.of(provider, model)
            _count(traffic.attempts, (each.outcome, known(each.code)))
            vendors_ms += each.total_ms
        if traffic is None:
            traffic = self.of(provider, model)
        elif row.served != model and drifts(model, row.served):
            traffic.drifted += 1
        traffic.note(row, vendors_ms)

    def refuse(self, code: str) -> None:
        """Count a request that was refused before it reached the engine."""
        _count(self.refused, known(code))

    def of(self, provider: str, model: str) -> Traffic:
        """Return the sums of a pair; `other` takes models that get no label of their own."""
        found = self.pairs.get((provider, model))
        if found is not None:
            return found
        if len(self.pairs) >= PAIRS_MAX or not _may_be_shown(model):
            model = OTHER
        return self.pairs.setdefault((provider, model), Traffic())

    def stand(self, *parts: Present) -> None:
        """Set how the processes stand; `other` takes the lines whose models get no label."""
        self.present = total = Present()
        for part in parts:
            total.in_flight += part.in_flight
            total.tasks += part.tasks
            for (provider, account, model), line in part.lines.items():
                name = (provider, account, model)
                is_new = name not in total.lines
                if is_new and (len(total.lines) >= PAIRS_MAX or not _may_be_shown(model)):
                    name = (provider, account, OTHER)
                total.lines.setdefault(name, LinePresent()).add(line)


def added_up(parts: Sequence[Sums]) -> Sums:
    """Add up what several processes have counted; the bound of labels is kept.

    Args:
        parts: In an order that stays, or a model may get its label from one scrape to the next.
    """
    total = Sums()
    total.stand(*(part.present for part in parts))
    for part in parts:
        _add_counts(total.refused, part.refused)
        for pair, traffic in part.pairs.items():
            total.of(*pair).add(traffic)
    return total


def known(code: str | None) -> str:
    """Return the label of an error code: empty for none, `other` for one that is not ours."""
    if code is None:
        return ""
    return code if code in CODES else OTHER


def _may_be_shown(model: str) -> bool:
    # A caller may have put a key, a page of text or half a surrogate pair in the model's place.
    return len(model) <= MODEL_SIGNS_MAX and model.isprintable() and _FORMS.hide(model) == model


def _count(counts: dict[K, int], of: K, number: int = 1) -> None:
    counts[of] = counts.get(of, 0) + number


def _add_counts(mine: dict[K, int], theirs: dict[K, int]) -> None:
    for of, number in theirs.items():
        _count(mine, of, number)


def _added(mine: list[int], theirs: list[int]) -> list[int]:
    return [one + other for one, other in zip(mine, theirs, strict=True)]
