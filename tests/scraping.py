"""This file knows how tests count: a gateway wired with metrics, rows in, a page's numbers out."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from door import HI, Door, door
from droveway.engine.records import AttemptEntry, Row
from droveway.gateway.metrics import Metrics
from lab import run

AT = datetime(2026, 11, 23, tzinfo=UTC)
Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@asynccontextmanager
async def watched(monkeypatch: pytest.MonkeyPatch, **sandbox: Any) -> AsyncIterator[Door]:
    """A door whose gateway counts, and tells of failures."""
    async with door(**sandbox) as it:
        yield it


def chat_body(model: str = "deepseek-flash", **fields: Any) -> bytes:
    return json.dumps({"model": model, "messages": HI, **fields}).encode()


async def scrape(it: Door, *headers: str) -> tuple[str, str]:
    """Get the page; returns its content type and text."""
    host, port = it.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = ["GET /metrics HTTP/1.1", "host: x", "connection: close", *headers]
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 200"), head
    kinds = re.findall(rb"^content-type: (.*)\r$", head + b"\r\n", re.MULTILINE)
    assert len(kinds) == 1
    assert b"content-length: %d" % len(body) in head
    return kinds[0].decode(), body.decode()


def numbers(text: str) -> Numbers:
    """Read the samples of a page; none may stand there twice."""
    samples = [sample for family in families(text) for sample in family.samples]
    found = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in samples}
    assert len(found) == len(samples)
    return found


def number(text: str, name: str, **labels: str) -> float:
    """Sum the samples of a name that have these labels, among others."""
    fitting = [
        value
        for (each, pairs), value in numbers(text).items()
        if each == name and labels.items() <= dict(pairs).items()
    ]
    assert fitting, f"{name} {labels} is not on the page"
    return sum(fitting)


def row(model: str = "m", *, provider: str = "p", **fields: Any) -> Row:
    """A request with one attempt that completed."""
    attempt = AttemptEntry(
        provider=provider, model=model, at=AT, outcome="completed", total_ms=90.0
    )
    given = {
        "id": "req_1",
        "at": AT,
        "asked": model,
        "served": model,
        "outcome": "completed",
        "attempts": (attempt,),
        "first_token_ms": 20.0,
        "total_ms": 100.0,
    }
    return Row(**{**given, **fields})


def text_of(metrics: Metrics, accept: str = "") -> str:
    return run(metrics.page(accept))[0].decode()
