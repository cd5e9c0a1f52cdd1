"""The metrics of the gateway: what is counted, and under which bounded labels."""

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from door import SECRET, raw
from droveway.accounts import secret as droveway_key
from droveway.chat import Usage
from droveway.engine.records import AttemptEntry
from droveway.gateway.metrics import Metrics
from droveway.gateway.metrics_page import FAMILIES, page
from droveway.gateway.present import LinePresent, Present
from droveway.gateway.traffic import CODES, MODEL_SIGNS_MAX, OTHER, PAIRS_MAX, Sums
from droveway.money import Money
from lab import run
from scraping import AT, chat_body, number, numbers, row, scrape, text_of, watched

ROOT = Path(__file__).parents[2]


# Over the wire.


def test_what_was_served_is_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        async with watched(monkeypatch) as it:
            for stream in (False, True, True):
                said = await raw(it, chat_body(stream=stream))
                assert said.startswith(b"HTTP/1.1 200")
            kind, text = await scrape(it)
            assert kind.startswith("text/plain; version=0.0.4")
            rows = list(it.engine.journal.rows)
            pair = {"provider": "remote", "model": "deepseek-flash"}
            ended = {**pair, "outcome": "completed", "code": ""}
            assert number(text, "droveway_requests_total", **pair) == 3
            assert numbers(text)["droveway_requests_total", tuple(sorted(ended.items()))] == 3
            assert number(text, "droveway_attempts_total", **ended) == 3
            for name in ("input", "cached_read", "cache_write", "output", "reasoning"):
                told = number(text, "droveway_tokens_total", **pair, **{"class": name})
                assert told == sum(getattr(each.usage, name) for each in rows)
            spent = sum(each.cost.nano for each in rows if each.cost is not None)
            assert spent > 0
            assert number(text, "droveway_cost_total", **pair, currency="USD") == spent / 10**9
            for name, count in (
                ("request_duration", 3),
                ("overhead", 3),
                ("time_to_first_token", 2),
            ):
                assert number(text, f"droveway_{name}_seconds_count", **pair) >= count
                assert number(text, f"droveway_{name}_seconds_sum", **pair) > 0
            seconds = number(text, "droveway_request_duration_seconds_sum", **pair)
            assert seconds == pytest.approx(sum(each.total_ms for each in rows) / 1e3)
            assert number(text, "droveway_requests_in_flight") == 0

    run(check())


def test_what_failed_and_what_was_refused_is_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        async with watched(monkeypatch) as it:
            await raw(it, chat_body("fault-status:400"))
            await raw(it, chat_body(), f"x-api-key: {SECRET}-wrong")
            await raw(it, b"{}", path="/v1/nothing")
            it.gateway.body_bytes_max = 10
            await raw(it, chat_body())
            _, text = await scrape(it)
            failed = {"outcome": "failed", "code": "invalid_request", "provider": "remote"}
            assert number(text, "droveway_requests_total", **failed) == 1
            assert number(text, "droveway_attempts_total", **failed) == 1
            assert number(text, "droveway_requests_total") == 1
            for code in ("invalid_api_key", "route_not_found", "request_too_large"):
                assert number(text, "droveway_refused_total", code=code) == 1
            assert number(text, "droveway_refused_total") == 3

    run(check())


def test_a_request_on_its_way_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        async with watched(monkeypatch) as it:
            _, text = await scrape(it)
            at_rest = number(text, "droveway_tasks")
            call = asyncio.create_task(raw(it, chat_body("fault-stall:1", stream=True)))
            async with asyncio.timeout(5):
                while not it.box.open_connections:
                    await asyncio.sleep(0.005)
            _, text = await scrape(it)
            assert number(text, "droveway_requests_in_flight") == 1
            line = {"provider": "remote", "account": "1", "model": "fault-stall:1"}
            assert number(text, "droveway_line_in_flight", **line) == 1
            assert number(text, "droveway_line_waiting", **line) == 0
            assert number(text, "droveway_line_window", **line) > 1
            assert number(text, "droveway_line_stopped", **line) == 0
            # The caller's task, in this very loop, and at least one of the request.
            assert number(text, "droveway_tasks") >= at_rest + 2
            for exchange in it.engine.on_their_way():
                exchange.give_up()
            await call
            _, text = await scrape(it)
            assert number(text, "droveway_requests_in_flight") == 0
            assert number(text, "droveway_tasks") == at_rest

    run(check())


def test_open_metrics_is_written_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spec: what Prometheus 3 sends, and plain text for whoever prefers it."""
    wants = (
        "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    )

    async def check() -> None:
        async with watched(monkeypatch) as it:
            await raw(it, chat_body())
            kind, text = await scrape(it, wants)
            assert kind.startswith("application/openmetrics-text; version=1.0.0")
            read = open_families(text)  # type: ignore[no-untyped-call]
            told = {sample.name for family in read for sample in family.samples}
            _, plain = await scrape(it)
            assert told == {name for name, _ in numbers(plain)}
            kind, _ = await scrape(
                it, "accept: text/plain;version=0.0.4, application/openmetrics-text;q=0.1"
            )
            assert kind.startswith("text/plain")

    run(check())


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", ",,;=", "application/openmetrics-text;version=;escaping=\xff", "text/plain;version=x.y",
     "application/openmetrics-text; version=99.0.0", "application/json"],
)  # fmt: skip
def test_any_accept_header_gets_a_page(monkeypatch: pytest.MonkeyPatch, accept: str) -> None:
    async def check() -> None:
        async with watched(monkeypatch) as it:
            kind, text = await scrape(it, f"accept: {accept}")
            assert "\xff" not in kind
            assert "99" not in kind
            assert "droveway_requests_in_flight" in text

    run(check())


def test_no_key_gets_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours: callers put keys in all places, the model's name among them."""
    ours, vendors = droveway_key.make(), "sk-proj-0123456789abcdefghijABCDEFGHIJ"

    async def check() -> None:
        async with watched(monkeypatch) as it:
            for model in (ours, vendors, f"x {ours}", f"Bearer {vendors}"):
                assert (await raw(it, chat_body(model))).startswith(b"HTTP/1.1 200")
            _, text = await scrape(it)
            assert number(text, "droveway_requests_total", model=OTHER) == 4
            for secret in (ours, vendors, SECRET, "sk-vendor", "key_1", "blue", "team"):
                assert secret not in text

    run(check())


# What a page must be.


def full_page() -> str:
    lines = {("p", 1, "m"): LinePresent(in_flight=2, stopped={"refused": 1})}
    metrics = Metrics(present=lambda: Present(in_flight=2, lines=lines))
    metrics.note(
        row(
            served="another",
            usage=Usage(input=6, cached_read=2, cache_write=2, output=3, reasoning=1),
            cost=Money(1, "USD"),
        )
    )
    metrics.note(row(outcome="failed", code="upstream_failed", attempts=()))
    metrics.refused("invalid_api_key")
    return text_of(metrics)


def test_every_metric_is_named_and_told_as_prometheus_wants_it() -> None:
    """Spec: what `promtool check metrics` looks for."""
    told: dict[str, Metric] = {each.name: each for each in families(full_page())}
    assert {each.name.removesuffix("_total") for each in FAMILIES} == set(told)
    for family in FAMILIES:
        assert re.fullmatch(r"droveway_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.name.endswith("_seconds") == (family.kind == "histogram")
        assert not re.search(r"_(ms|milliseconds|count|sum|bucket|info)$", family.name)
        metric = told[family.name.removesuffix("_total")]
        assert metric.type == family.kind
        assert metric.documentation == family.says
        assert metric.samples, f"{family.name} was not counted"
        for sample in metric.samples:
            assert set(sample.labels) - {"le"} == set(family.labels)
            assert sample.value >= 0


def test_buckets_add_up_and_hold_their_bounds() -> None:
    metrics = Metrics()
    for total_ms in (0.0, 100.0, 100.001, 600_000.0, 600_000.1):
        metrics.note(row(total_ms=total_ms))
    found = numbers(text_of(metrics))
    name = "droveway_request_duration_seconds"
    buckets = {
        dict(labels)["le"]: value
        for (each, labels), value in found.items()
        if each == f"{name}_bucket"
    }
    assert list(buckets.values()) == sorted(buckets.values())
    assert (buckets["0.1"], buckets["0.25"], buckets["600.0"], buckets["+Inf"]) == (2, 3, 4, 5)
    pair = (("model", "m"), ("provider", "p"))
    assert found[f"{name}_count", pair] == 5
    assert found[f"{name}_sum", pair] == pytest.approx(1_200.2, abs=0.001)


def test_the_page_of_metrics_is_the_present_code() -> None:
    text = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    rows = ["| metric | kind | labels | what it says |", "|---|---|---|---|"]
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "none"
        rows.append(f"| `{family.name}` | {family.kind} | {labels} | {family.says} |")
    assert "\n".join(rows) + "\n" in text


def test_money_is_added_in_whole_numbers() -> None:
    """Ours: three floats of 0.1 are not 0.3, and a nano-unit on top of nine million is lost."""
    metrics = Metrics()
    for _ in range(3):
        metrics.note(row(cost=Money(100_000_000, "USD")))
    for nano in (9_999_999_999_999_999, 1, 1, 1):
        metrics.note(row(cost=Money(nano, "CNY")))
    metrics.note(row("unpriced"))
    text = text_of(metrics)
    assert number(text, "droveway_cost_total", currency="USD") == 0.3
    assert number(text, "droveway_cost_total", currency="CNY") == 10_000_000.000000002
    assert not any(
        "unpriced" in str(key) for key in numbers(text) if key[0] == "droveway_cost_total"
    )


def test_the_share_of_cached_input_is_that_of_all_input() -> None:
    metrics = Metrics()
    metrics.note(row(usage=Usage(input=1, cached_read=6, cache_write=1, output=99)))
    metrics.note(row("silent", usage=Usage(output=5)))
    text = text_of(metrics)
    assert number(text, "droveway_cached_input_share", model="m") == 0.75
    assert [key for key in numbers(text) if key[0] == "droveway_cached_input_share"] == [
        ("droveway_cached_input_share", (("model", "m"), ("provider", "p")))
    ]


def test_a_request_counts_for_the_provider_asked_last_and_each_attempt_for_its_own() -> None:
    first = AttemptEntry(
        provider="a", model="x", at=AT, outcome="failed", code="rate_limited", total_ms=30.0
    )
    last = AttemptEntry(provider="b", model="y", at=AT, outcome="completed", total_ms=50.0)
    metrics = Metrics()
    metrics.note(row(attempts=(first, last), served="y-20261123", total_ms=82.0))
    metrics.note(row(attempts=(first, last), served="z", total_ms=70.0))
    text = text_of(metrics)
    assert number(text, "droveway_attempts_total", provider="a", code="rate_limited") == 2
    assert number(text, "droveway_attempts_total", provider="b", code="") == 2
    assert number(text, "droveway_requests_total", provider="b", model="y") == 2
    assert number(text, "droveway_requests_total") == 2
    # A dated snapshot is no drift; and time that seems to be less than none is none.
    assert number(text, "droveway_model_drift_total", provider="b") == 1
    assert number(text, "droveway_overhead_seconds_sum", provider="b") == pytest.approx(0.002)


def test_a_request_that_nobody_was_asked_for_has_no_provider() -> None:
    metrics = Metrics()
    metrics.note(row("unheard-of", outcome="failed", code="model_not_found", attempts=()))
    text = text_of(metrics)
    assert number(text, "droveway_requests_total", provider="", model="", outcome="failed") == 1
    assert "unheard-of" not in text


# Bounded labels.


def test_no_caller_can_make_more_than_so_many_labels() -> None:
    metrics = Metrics()
    for index in range(PAIRS_MAX + 100):
        metrics.note(row(f"model-{index}"))
        metrics.refused(f"code-{index}")
    text = text_of(metrics)
    models = {dict(labels).get("model") for _, labels in numbers(text)} - {None}
    assert len(models) == PAIRS_MAX + 1
    assert number(text, "droveway_requests_total", model="model-0") == 1
    assert number(text, "droveway_requests_total", model=OTHER) == 100
    assert number(text, "droveway_requests_total") == PAIRS_MAX + 100
    assert number(text, "droveway_refused_total", code=OTHER) == PAIRS_MAX + 100
    codes = {dict(labels).get("code") for _, labels in numbers(text)} - {None}
    assert codes <= CODES | {"", OTHER}


HOSTILE = [
    'a"b', "a\\b", "a\nb", 'x"} 1\nevil_metric{a="', "a\u2028b", "\ud800", "\x00", "模型", "a" * 121,
    " ", "{}", "# HELP x", "é" * 120,
]  # fmt: skip


@pytest.mark.parametrize("model", HOSTILE, ids=ascii)
@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_a_hostile_name_breaks_no_page(model: str, accept: str) -> None:
    metrics = Metrics()
    metrics.note(row(model))
    text = text_of(metrics, accept)
    read = families if accept == "text/plain" else open_families
    (requests,) = [each for each in read(text) if each.name == "droveway_requests"]
    (sample,) = requests.samples
    assert sample.labels["model"] in {model, OTHER}
    assert sample.labels["model"].isprintable()
    assert sample.value == 1
    assert not re.search("^evil", text, re.MULTILINE)


@pytest.mark.parametrize("model", HOSTILE, ids=ascii)
def test_a_hostile_name_of_a_line_breaks_no_page(model: str) -> None:
    """Ours: a lone surrogate in a model's name cannot be published to the other processes."""
    lines = {("p", 1, model): LinePresent(waiting=1), ("p", 1, "m"): LinePresent(waiting=2)}
    text = text_of(Metrics(present=lambda: Present(lines=lines)))
    (waiting,) = [each for each in families(text) if each.name == "droveway_line_waiting"]
    assert {sample.labels["model"] for sample in waiting.samples} <= {model, "m", OTHER}
    assert sorted(sample.value for sample in waiting.samples) == [1, 2]
    assert not re.search("^evil", text, re.MULTILINE)


def test_no_caller_can_make_more_than_so_many_lines() -> None:
    lines = {("p", 1, f"m{n}"): LinePresent(in_flight=1) for n in range(PAIRS_MAX + 100)}
    text = text_of(Metrics(present=lambda: Present(lines=lines)))
    assert number(text, "droveway_line_in_flight", model=OTHER) == 100
    assert number(text, "droveway_line_in_flight") == PAIRS_MAX + 100
    assert text.count("droveway_line_in_flight{") == PAIRS_MAX + 1


def test_a_page_of_text_is_no_name() -> None:
    metrics = Metrics()
    for signs in (MODEL_SIGNS_MAX, MODEL_SIGNS_MAX + 1, 10_000_000):
        metrics.note(row("a" * signs))
    text = text_of(metrics)
    assert number(text, "droveway_requests_total", model="a" * MODEL_SIGNS_MAX) == 1
    assert number(text, "droveway_requests_total", model=OTHER) == 2


@given(st.text(max_size=130))
def test_any_name_is_read_as_it_was_or_as_other(model: str) -> None:
    sums = Sums()
    sums.note(row(model))
    told, _ = page(sums, "")
    (requests,) = [each for each in families(told.decode()) if each.name == "droveway_requests"]
    assert requests.samples[0].labels["model"] in {model, OTHER}
