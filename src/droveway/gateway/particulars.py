"""This file knows what the caller is told about a request: in its head, and in a stream's end."""

from functools import lru_cache
from typing import Final

import msgspec

from droveway.engine.exchange import Exchange
from droveway.engine.records import Row

# Below that it went at once, and nothing is told.
WAITED_TOLD_MS: Final = 0.01
Headers = list[tuple[bytes, bytes]]


def headers_of(exchange: Exchange, row: Row | None) -> Headers:
    """Return what the head tells of a request: what is known by then, and nothing guessed."""
    name = exchange.id.encode()
    # The OpenAI SDKs show the second one only: as `_request_id`, and with their errors.
    headers = [(b"x-droveway-request-id", name), (b"x-request-id", name)]
    if row is not None:
        tried = len(row.attempts)
        last = (row.attempts[-1].provider, row.attempts[-1].model) if tried else None
    else:
        attempts = exchange.attempts
        tried = len(attempts)
        last = (attempts[-1][0].provider, attempts[-1][0].model) if tried else None
    if last is not None:
        headers += _names(*last)
    headers.append((b"x-droveway-attempts", b"%d" % tried))
    waited_ms = exchange.waited_s * 1e3 if row is None else row.waited_ms
    if waited_ms >= WAITED_TOLD_MS:
        headers.append((b"x-droveway-waited-ms", b"%.2f" % waited_ms))
    if exchange.output_cap is not None:
        headers.append((b"x-droveway-output-cap", b"%d" % exchange.output_cap))
    if row is not None and row.outcome == "completed":
        upstream_ms = row.attempts[-1].total_ms
        headers += (
            (b"x-droveway-overhead-ms", b"%.2f" % row.overhead_ms),
            (
                b"server-timing",
                b"overhead;dur=%.2f, upstream;dur=%.2f" % (row.overhead_ms, upstream_ms),
            ),
        )
        if row.cost is not None:
            headers.append((b"x-droveway-cost", row.cost.decimal().encode()))
    return headers


def last_words(exchange: Exchange) -> bytes:
    """Return the comment with which a stream tells its bill."""
    row = exchange.row
    assert row is not None, "the outbox is closed when the row is written"
    told = {
        "request_id": row.id,
        "model": row.served,
        "provider": row.attempts[-1].provider if row.attempts else None,
        "attempts": len(row.attempts),
        "cost": None if row.cost is None else row.cost.decimal(),
        "usage": row.usage,
        "overhead_ms": round(row.overhead_ms, 2),
        "waited_ms": round(row.waited_ms, 2),
    }
    return b": droveway " + msgspec.json.encode(told) + b"\n\n"


@lru_cache(maxsize=256)
def _names(provider: str, model: str) -> Headers:
    return [
        (b"x-droveway-model", _plain(model)),
        (b"x-droveway-provider", _plain(provider)),
    ]


def _plain(name: str) -> bytes:
    """Return a name as a header can carry it; a model's name is the caller's to choose."""
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in name).encode()
