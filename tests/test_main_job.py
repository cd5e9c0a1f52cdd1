"""The main job on real input: 80 conversations, 17 roles, the sandbox; tokens and cost exact."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

QUESTIONS = Path(__file__).parents[2] / "shared" / "data" / "mt_bench_questions.jsonl"
DROVEWAY = [sys.executable, "-m", "droveway"]
# deepseek-flash, USD, whole pico-dollars a token: (fresh input, cached input, output).
OFF_PEAK = (150_000, 3_000, 600_000)
PEAK = (300_000, 6_000, 1_200_000)
# The State Council's holidays on working days that a run of this test could fall on are in the
# price book's own tests; here a day off is only Saturday and Sunday.
PEAK_HOURS = [(9, 12), (14, 18)]


@contextmanager
def sandbox() -> Iterator[str]:
    command = [*DROVEWAY, "sandbox", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as box:
        assert box.stdout is not None
        try:
            yield box.stdout.readline().removeprefix("listening on ").strip()
        finally:
            box.terminate()
            box.communicate(timeout=20)


def prices(at: str) -> tuple[int, int, int]:
    moment = datetime.fromisoformat(at).astimezone(timezone(timedelta(hours=8)))
    working = moment.weekday() < 5
    peak = any(begin <= moment.hour < end for begin, end in PEAK_HOURS)
    return PEAK if working and peak else OFF_PEAK


def nano(pico: int) -> int:
    """Round pico to nano, half to even."""
    whole, rest = divmod(pico, 1_000)
    return whole + (rest > 500 or (rest == 500 and whole % 2 == 1))


def read(url: str) -> list[dict[str, Any]]:
    with urlopen(url, timeout=20) as answer:
        found = json.load(answer)
    rows: list[dict[str, Any]] = found["requests"] if isinstance(found, dict) else found
    return [row for row in rows if row["path"].endswith("/chat/completions")]


@pytest.mark.skipif(
    not QUESTIONS.exists(),
    reason=f"the MT-Bench questions are not at {QUESTIONS.name} beside the clone",
)
def test_eighty_conversations_are_answered_and_the_bill_is_the_journals(tmp_path: Path) -> None:
    """Ours: tokens are what the sandbox says it claimed; the cost is theirs by our own table."""
    results = tmp_path / "results.jsonl"
    with sandbox() as url:
        ended = subprocess.run(
            [*DROVEWAY, "run", str(QUESTIONS), "-o", str(results), "--base-url", f"{url}/v1",
             "--concurrency", "17", "--json"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        seen = read(f"{url}/sandbox/journal")
    assert ended.returncode == 0, ended.stderr
    asked = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert sorted(str(line["id"]) for line in lines) == sorted(
        str(task["question_id"]) for task in asked
    )
    assert {line["outcome"] for line in lines} == {"ok"}
    assert all(len(line["turns"]) == 2 and all(line["turns"]) for line in lines)
    assert len({line["role"] for line in lines}) == 17
    assert len(seen) == 160

    def total(name: str) -> int:
        return sum(line["usage"][name] for line in lines)

    assert total("cached_read") == sum(row["cached_tokens"] for row in seen)
    assert total("input") + total("cached_read") == sum(row["prompt_tokens"] for row in seen)
    assert total("output") == sum(row["completion_tokens"] for row in seen)
    assert total("reasoning") == sum(row["reasoning_tokens"] for row in seen)
    expected = 0
    for row in seen:
        fresh, cached, output = prices(row["at"])
        expected += nano(
            (row["prompt_tokens"] - row["cached_tokens"]) * fresh
            + row["cached_tokens"] * cached
            + row["completion_tokens"] * output
        )
    billed = sum(_nano(line["cost"]) for line in lines)
    assert billed == expected
    assert all(line["currency"] == "USD" for line in lines)


def _nano(text: str) -> int:
    whole, _, digits = text.partition(".")
    return int(whole) * 10**9 + int(digits.ljust(9, "0"))


def test_the_tables_of_this_test_know_the_clock() -> None:
    assert prices("2026-11-23T02:00:00+00:00") == PEAK
    assert prices("2026-11-23T04:00:00+00:00") == OFF_PEAK
    assert prices(datetime(2026, 11, 22, 2, tzinfo=UTC).isoformat()) == OFF_PEAK
