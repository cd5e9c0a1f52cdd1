"""`droveway requests --by arm`: both sides of a role's move, compared."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from droveway.chat import Usage
from droveway.cli.percentile import percentile
from droveway.clock import SystemClock
from droveway.engine.journal_store import StoredJournal
from droveway.engine.records import Row
from droveway.money import Money
from droveway.storage import Store
from lab import run

Call = Callable[..., Result]
AT = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
HERE = Path("droveway.db")


def keep(*rows: Row) -> None:
    async def work(store: Store) -> None:
        journal = StoredJournal(store)
        for each in rows:
            journal.append(each)
        await journal.aclose()

    with Store(HERE) as store:
        run(work(store))


def row(number: int, arm: str | None, **fields: Any) -> Row:
    tags = {"role": "critic"} | ({} if arm is None else {"arm": arm})
    return Row(
        **{
            "id": f"req_{number}",
            "at": AT,
            "asked": "slow",
            "served": "m",
            "outcome": "completed",
            "usage": Usage(input=100, cached_read=300, output=20),
            "cost": Money.parse("0.02", "USD"),
            "total_ms": 10.0,
            "tags": tags,
            **fields,
        }
    )


def failed(number: int, arm: str, **fields: Any) -> Row:
    return row(number, arm, **{"outcome": "failed", "code": "upstream_failed", "served": None,
                               "usage": None, "cost": None, "total_ms": 1.0, **fields})  # fmt: skip


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_both_arms_are_summed_up_and_other_requests_are_not(droveway: Call) -> None:
    costs = [Money.parse(text, "USD") for text in ("0.01", "0.02", "0.000000002")]
    keep(
        *(row(n, "new", cost=cost, total_ms=10.0 * (n + 1)) for n, cost in enumerate(costs)),
        failed(3, "new"),
        row(4, "new", cost=None, outcome="cancelled", usage=None, total_ms=9_000.0),
        row(5, "old"),
        row(6, None),
        row(7, "other"),
        row(8, "new", tags={"role": "writer", "arm": "new"}, cost=Money.parse("1", "CNY")),
    )
    new, old, writer = told(droveway("requests", "--by", "arm", "--json"))
    assert new == {
        "role": "critic",
        "arm": "new",
        "requests": 5,
        "completed": 3,
        "failed": 1,
        "cancelled": 1,
        "errors_percent": 20.0,
        "costs": [
            {
                "currency": "USD",
                "requests": 3,
                "cost": "0.030000002",
                "cost_per_request": "0.010000001",
            }
        ],
        "latency_ms_p50": 20.0,
        "latency_ms_p95": 30.0,
        "tokens": {"input": 300, "cached_read": 900, "cache_write": 0, "output": 60},
    }
    assert (old["role"], old["arm"], old["requests"]) == ("critic", "old", 1)
    assert (writer["role"], writer["costs"][0]["currency"]) == ("writer", "CNY")


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 100, 101])
def test_percentiles_are_those_of_the_other_reports(count: int, droveway: Call) -> None:
    latencies = [float((n * 37) % count + 1) for n in range(count)]
    keep(*(row(n, "old", total_ms=each) for n, each in enumerate(latencies)))
    (old,) = told(droveway("requests", "--by", "arm", "--json"))
    assert old["latency_ms_p50"] == percentile(latencies, 50)
    assert old["latency_ms_p95"] == percentile(latencies, 95)


def test_the_table_fits_a_terminal_and_says_what_one_request_comes_to(droveway: Call) -> None:
    keep(row(1, "new"), failed(2, "new"), failed(3, "old"))
    lines = droveway("requests", "--by", "arm").stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2].split() == ["critic", "new", "2", "50.0", "%", "0.02", "USD", "10", "10",
                                "200", "75", "%", "10"]  # fmt: skip
    assert lines[3].split() == ["critic", "old", "1", "100.0", "%", "-", "-", "-", "0", "0", "%",
                                "0"]  # fmt: skip


def test_since_and_model_choose_what_is_compared(droveway: Call) -> None:
    now = SystemClock().now()
    keep(row(1, "new", at=now), row(2, "new", at=now - timedelta(hours=3)),
         row(3, "new", at=now, asked="fast"))  # fmt: skip

    def count(*given: str) -> int:
        (arm,) = told(droveway("requests", "--by", "arm", "--json", *given))
        return int(arm["requests"])

    assert (count(), count("--since", "1h"), count("--model", "fast")) == (3, 2, 1)


def test_without_a_move_there_is_nothing_to_compare(droveway: Call) -> None:
    keep(row(1, None))
    assert "[rollout.ROLE]" in droveway("requests", "--by", "arm").stdout
    assert told(droveway("requests", "--by", "arm", "--json")) == []


@pytest.mark.parametrize("other", [("--tail",), ("--limit", "20")])
def test_a_comparison_is_of_all_requests(other: tuple[str, ...], droveway: Call) -> None:
    keep()
    refused = droveway("requests", "--by", "arm", *other)
    assert refused.exit_code == 2
    assert "--by sums all requests up" in refused.stderr
