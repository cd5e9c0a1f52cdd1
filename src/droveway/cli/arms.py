"""This file knows the table of `droveway requests --by arm`: what a role's move comes to so far."""

from datetime import datetime
from typing import Any

import click
import msgspec

from droveway.cli import tables
from droveway.engine.arms import ArmSums, arms
from droveway.storage import Store


def show_arms(store: Store, *, since: datetime | None, model: str | None, as_json: bool) -> None:
    """Print both sides of every role that moves.

    Args:
        store: Where the journal is.
        since: Only requests that came in at this moment or later.
        model: Only those that asked for it, were sent for it, or were served by it.
        as_json: Whether data is wanted instead of text.
    """
    found = arms(store, since=since, model=model)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode([_as_data(each) for each in found])))
        return
    if not found:
        click.echo("no request of a role that moves is in the journal; see [rollout.ROLE]")
        return
    shown = tables.table("role", "arm", "requests", "errors", "cost/request", "p50 ms", "p95 ms",
                         "in/request", "cached", "out/request", left=("arm",))  # fmt: skip
    for each in found:
        shown.add_row(
            each.role or "-",
            each.arm,
            f"{each.requests:,}",
            f"{_percent(each.failed, each.requests):.1f} %",
            ", ".join(str(cost.per_request) for cost in each.costs) or "-",
            _ms(each.latency_us_p50),
            _ms(each.latency_us_p95),
            f"{each.input_total / each.requests:,.0f}",
            f"{_percent(each.cached_read, each.input_total):.0f} %",
            f"{each.output / each.requests:,.0f}",
        )
    tables.show(shown)


def _as_data(each: ArmSums) -> dict[str, Any]:
    return {
        "role": each.role,
        "arm": each.arm,
        "requests": each.requests,
        "completed": each.completed,
        "failed": each.failed,
        "cancelled": each.requests - each.completed - each.failed,
        "errors_percent": round(_percent(each.failed, each.requests), 2),
        "costs": [
            {
                "currency": cost.total.currency,
                "requests": cost.requests,
                "cost": cost.total.decimal(),
                "cost_per_request": cost.per_request.decimal(),
            }
            for cost in each.costs
        ],
        "latency_ms_p50": None if each.latency_us_p50 is None else each.latency_us_p50 / 1e3,
        "latency_ms_p95": None if each.latency_us_p95 is None else each.latency_us_p95 / 1e3,
        "tokens": {
            "input": each.input,
            "cached_read": each.cached_read,
            "cache_write": each.cache_write,
            "output": each.output,
        },
    }


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _ms(micros: int | None) -> str:
    return "-" if micros is None else f"{micros / 1e3:,.0f}"
