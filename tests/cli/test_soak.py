"""The soak of `make soak`: the tool itself for some seconds, and that it sees what leaks."""

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SECONDS = 240
WINDOWS = 100
# A busy machine is no leak; what this short run is for stands in its checks.
GENEROUS = 3.0


def load(name: str) -> ModuleType:
    """A module of the benchmarks, whose folder is on no path here: it has names of other rooms."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


verdict = load("soak_verdict")
answer = load("soak_answer")
BY_NAME = {each.name: each for each in verdict.QUANTITIES}


def points(*, level: float, rise: float, noise: float, minutes: float) -> list[tuple[float, float]]:
    """A hundred windows that rise evenly beneath their noise."""
    chance = random.Random(7)
    return [
        (
            60 * minutes * n / WINDOWS,
            level + rise * n / WINDOWS + noise * chance.uniform(-1, 1),
        )
        for n in range(WINDOWS)
    ]


# The verdict.


@pytest.mark.parametrize(
    ("name", "level", "rise", "noise"),
    [
        # A KB and a task for every thousandth request, at fifty a second, for a quarter of an hour.
        ("rss_mb", 150.0, 44.0, 4.0),
        ("tasks", 505.0, 60.0, 10.0),
        ("descriptors", 1_000.0, 90.0, 30.0),
        ("first_p99", 100.0, 600.0, 40.0),
        ("open", 400.0, 0.0, 20.0),
    ],
)
def test_what_leaks_is_not_ok(name: str, level: float, *, rise: float, noise: float) -> None:
    series = points(level=level, rise=rise, noise=noise, minutes=15)
    judged = verdict.judge(BY_NAME[name], series, wanted=500)
    assert judged is not None
    assert not judged.ok


@pytest.mark.parametrize("minutes", [0.25, 15.0, 60.0])
@pytest.mark.parametrize("name", list(BY_NAME))
def test_noise_and_a_warm_up_are_no_leak(name: str, minutes: float) -> None:
    """A fifth of the time is for caches to fill, and one window in ten is wild."""
    series = points(level=500, rise=0, noise=25, minutes=minutes)
    cold = [(at_s, 500 * n / WINDOWS * 5) for n, (at_s, _) in enumerate(series[:20])]
    wild = [(at_s, value * (4 if n % 10 == 3 else 1)) for n, (at_s, value) in enumerate(series)]
    judged = verdict.judge(BY_NAME[name], cold + wild[20:], wanted=500)
    assert judged is not None
    assert judged.ok


def test_of_a_few_windows_nothing_is_said() -> None:
    assert verdict.judge(BY_NAME["tasks"], [(float(n), 10.0 * n) for n in range(5)]) is None


def test_a_longer_run_sees_a_smaller_leak() -> None:
    bounds = []
    for minutes in (15.0, 60.0):
        judged = verdict.judge(
            BY_NAME["rss_mb"], points(level=150, rise=0, noise=1, minutes=minutes)
        )
        bounds.append(judged.bound)
    assert bounds[0] == pytest.approx(4 * bounds[1], rel=0.02)


# What is one visible end.

CHUNK = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\n\n'
FINISH = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
FAILED = b'data: {"error": {"message": "m", "type": "t", "code": "stream_truncated"}}\n\n'


@pytest.mark.parametrize(
    ("body", "whole", "end"),
    [
        (CHUNK + FINISH + b": cost\n\n" + DONE, True, "finished"),
        (CHUNK + FAILED, True, "error event"),
        (CHUNK, True, "cut"),
        (CHUNK + FINISH, True, "cut"),
        (CHUNK + DONE, True, "cut"),
        (CHUNK + FINISH + DONE, False, "cut"),
        (CHUNK + b"data: {\n\n" + FINISH + DONE, True, "cut"),
        (CHUNK + b'data: {"error": {"message": "no code"}}\n\n', True, "cut"),
        (CHUNK + FINISH + DONE + FAILED, True, "two ends"),
        (CHUNK + FAILED + CHUNK, True, "two ends"),
    ],
)
def test_the_end_of_a_stream_is_told_by_what_came(body: bytes, end: str, *, whole: bool) -> None:
    seen = answer.Answer(lambda: None)
    seen.status = 200
    seen.on_header(b"Content-Type", b"text/event-stream")
    for n in range(0, len(body), 7):
        seen.on_body(body[n : n + 7])
    if whole:
        seen.on_message_complete()
    assert seen.end == end


# The tool.


def test_fifty_streams_for_some_seconds_have_one_end_each_and_leave_nothing(tmp_path: Path) -> None:
    """Ours: the whole soak, small; its trends are judged generously."""
    told = tmp_path / "soak.json"
    words = ("--minutes", "0.2", "--streams", "50", "--pace", "0.05", "--tokens", "30")
    ran = subprocess.run(
        [sys.executable, str(BENCHMARKS / "soak.py"), *words, "--json", str(told)],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert ran.returncode in {0, 1}, ran.stderr
    assert "streams without exactly one visible end" in ran.stdout
    soaked = json.loads(told.read_bytes())
    bad = [each for each in soaked["checks"] if not each["ok"]]
    # The one check that a machine without time can fail.
    assert [each for each in bad if not each["title"].startswith("good answers")] == []
    assert soaked["odd"] == []
    kinds = soaked["ends"]
    assert sum(kinds["good"].values()) > 50
    assert kinds["caller hangs up"]["hung up"]
    assert sum(kinds["good"].values()) * 0.8 < kinds["good"]["finished"]
    rows = {each["title"]: each for each in soaked["rows"]}
    for title in ("memory, MB", "descriptors", "tasks", "requests in flight"):
        assert rows[title]["found"] <= GENEROUS * rows[title]["bound"], rows[title]
