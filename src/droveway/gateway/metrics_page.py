"""This file knows the metrics by name, and how prometheus-client writes them on a page."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from droveway.gateway.present import CAUSES, LinePresent
from droveway.gateway.traffic import (
    DURATION_MS,
    FIRST_TOKEN_MS,
    OVERHEAD_MS,
    TOKEN_CLASSES,
    WAITED_MS,
    Sums,
    Traffic,
)
from droveway.money import NANO_PER_UNIT

Labels = tuple[str, ...]
# What is hung on the family's name, the values of its labels, and the number.
Samples = Iterator[tuple[str, Labels, float]]
PAIR: Final = ("provider", "model")
LINE: Final = ("provider", "account", "model")
OPEN_METRICS: Final = "application/openmetrics-text"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its labels.

    Attributes:
        name: As it is scraped.
        kind: counter, gauge or histogram.
        labels: Their names; those of a histogram's buckets have `le` besides.
        says: What it says, in a line.
        samples: Takes it out of the sums.
    """

    name: str
    kind: str
    labels: Labels
    says: str
    samples: Callable[[Sums], Samples]

    def metric(self, sums: Sums) -> Metric:
        """Write it for prometheus-client."""
        metric = Metric(self.name.removesuffix("_total"), self.says, self.kind)
        names = (*self.labels, "le")
        for suffix, labels, number in self.samples(sums):
            told = dict(zip(names, labels, strict=False))
            metric.add_sample(metric.name + suffix, told, number)
        return metric


def page(sums: Sums, accept: str) -> tuple[bytes, str]:
    """Write the page.

    Args:
        sums: Of all processes.
        accept: The Accept header; OpenMetrics is written where it stands before plain text.

    Returns:
        The page and its content type.
    """
    kinds = [each.partition(";")[0].strip() for each in accept.split(",")]
    wanted = next((kind for kind in kinds if kind in {OPEN_METRICS, "text/plain"}), "")
    # No versions and escapings to choose from: our names are plain in all of them.
    encode, content_type = choose_encoder(wanted if wanted == OPEN_METRICS else "")
    return encode(_Page(sums)), content_type


class _Page(Collector):
    def __init__(self, sums: Sums) -> None:
        self._sums = sums

    def collect(self) -> Iterable[Metric]:
        return [family.metric(self._sums) for family in FAMILIES]


def _each(
    values: Callable[[Traffic], Iterable[tuple[Labels, float]]], suffix: str = "_total"
) -> Callable[[Sums], Samples]:
    def samples(sums: Sums) -> Samples:
        for pair, traffic in sums.pairs.items():
            for labels, number in values(traffic):
                yield suffix, (*pair, *labels), number

    return samples


def _spread(name: str, bounds_ms: Sequence[float]) -> Callable[[Sums], Samples]:
    bounds = [*(str(bound / 1e3) for bound in bounds_ms), "+Inf"]

    def samples(sums: Sums) -> Samples:
        for pair, traffic in sums.pairs.items():
            spread = getattr(traffic, name)
            for bound, count in zip(bounds, accumulate(spread.counts), strict=True):
                yield "_bucket", (*pair, bound), count
            yield "_count", pair, sum(spread.counts)
            yield "_sum", pair, spread.sum_ms / 1e3

    return samples


def _tokens(traffic: Traffic) -> Iterator[tuple[Labels, float]]:
    return (((name,), count) for name, count in zip(TOKEN_CLASSES, traffic.tokens, strict=True))


def _costs(traffic: Traffic) -> Iterator[tuple[Labels, float]]:
    # The format has floats only: whole nano-units become one here, once, on the way out.
    return (((currency,), nano / NANO_PER_UNIT) for currency, nano in traffic.cost_nano.items())


def _cached_share(traffic: Traffic) -> Iterator[tuple[Labels, float]]:
    fresh, cached_read, cache_write, _, _ = traffic.tokens
    total = fresh + cached_read + cache_write
    if total:
        yield (), cached_read / total


def _refused(sums: Sums) -> Samples:
    return (("_total", (code,), count) for code, count in sums.refused.items())


def _of_lines(value: Callable[[LinePresent], int]) -> Callable[[Sums], Samples]:
    def samples(sums: Sums) -> Samples:
        for (provider, account, model), line in sums.present.lines.items():
            yield "", (provider, str(account), model), value(line)

    return samples


def _stopped(sums: Sums) -> Samples:
    # A 0 for every cause: an alarm on a series that is not there never rings.
    for (provider, account, model), line in sums.present.lines.items():
        for cause in CAUSES:
            yield "", (provider, str(account), model, cause), line.stopped.get(cause, 0)


FAMILIES: Final = (
    Family(
        "droveway_requests_total",
        "counter",
        (*PAIR, "outcome", "code"),
        "Requests that have ended, for the provider and model that were asked last.",
        _each(lambda traffic: traffic.requests.items()),
    ),
    Family(
        "droveway_request_duration_seconds",
        "histogram",
        PAIR,
        "From the door to the end, of every request.",
        _spread("duration", DURATION_MS),
    ),
    Family(
        "droveway_time_to_first_token_seconds",
        "histogram",
        PAIR,
        "From the door to the first data event, where there was one.",
        _spread("first_token", FIRST_TOKEN_MS),
    ),
    Family(
        "droveway_wait_seconds",
        "histogram",
        PAIR,
        "How long requests waited for their turn, and between attempts.",
        _spread("waited", WAITED_MS),
    ),
    Family(
        "droveway_overhead_seconds",
        "histogram",
        PAIR,
        "Time of a completed request without its attempts' own: our work and the wait in line.",
        _spread("overhead", OVERHEAD_MS),
    ),
    Family(
        "droveway_tokens_total",
        "counter",
        (*PAIR, "class"),
        "Tokens by class; reasoning is part of output, the other four are apart.",
        _each(_tokens),
    ),
    Family(
        "droveway_cached_input_share",
        "gauge",
        PAIR,
        "Share of input tokens read from the vendor's cache since the start, 0 to 1.",
        _each(_cached_share, ""),
    ),
    Family(
        "droveway_cost_total",
        "counter",
        (*PAIR, "currency"),
        "Cost of what was answered, in units of the currency; nothing for unpriced models.",
        _each(_costs),
    ),
    Family(
        "droveway_attempts_total",
        "counter",
        (*PAIR, "outcome", "code"),
        "Requests that were sent to vendors.",
        _each(lambda traffic: traffic.attempts.items()),
    ),
    Family(
        "droveway_model_drift_total",
        "counter",
        PAIR,
        "Requests that another model has answered than the one that was sent for.",
        _each(lambda traffic: [((), traffic.drifted)]),
    ),
    Family(
        "droveway_refused_total",
        "counter",
        ("code",),
        "Requests that were refused at the door, before any work.",
        _refused,
    ),
    Family(
        "droveway_requests_in_flight",
        "gauge",
        (),
        "Requests that are on their way now.",
        lambda sums: iter([("", (), sums.present.in_flight)]),
    ),
    Family(
        "droveway_tasks",
        "gauge",
        (),
        "Tasks of the event loops; at rest a few for each process.",
        lambda sums: iter([("", (), sums.present.tasks)]),
    ),
    Family(
        "droveway_line_in_flight",
        "gauge",
        LINE,
        "Requests that a vendor account and model was sent and has not ended.",
        _of_lines(lambda line: line.in_flight),
    ),
    Family(
        "droveway_line_waiting",
        "gauge",
        LINE,
        "Requests that wait for their turn there.",
        _of_lines(lambda line: line.waiting),
    ),
    Family(
        "droveway_line_window",
        "gauge",
        LINE,
        "Requests that may be in flight there at once, as learned by now.",
        _of_lines(lambda line: line.window),
    ),
    Family(
        "droveway_line_stopped",
        "gauge",
        (*LINE, "cause"),
        "Processes in which no request flows there, or one alone as a probe.",
        _stopped,
    ),
)
