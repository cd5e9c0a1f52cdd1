"""`droveway run`: tasks in, results out, and on after a stop."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from droveway.agents.roles import built_in_roles
from droveway.cli.results import Results
from droveway.sandbox import Profile, Rule, Sandbox, Script, running_sandbox

Call = Callable[..., Result]

INSTANT = Profile(instant=True)
ROLES = list(built_in_roles())
SECONDS = 60
MT_BENCH = Path(__file__).parents[3] / "shared/data/mt_bench_questions.jsonl"
# USD per token of deepseek-flash, per million, off-peak and peak (vendor list 2026-11-15).
OFF_PEAK = {"input": Decimal("0.15"), "cached_read": Decimal("0.003"), "output": Decimal("0.60")}


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with running_sandbox(Sandbox(script=Script(profile=INSTANT), journal_bodies=True)) as box:
        yield box


def write(*lines: object) -> Path:
    path = Path("tasks.jsonl")
    path.write_text(
        "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines)
    )
    return path


def results(path: str = "results.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def questions(box: Sandbox) -> Counter[str]:
    return Counter(json.loads(seen.body or b"")["messages"][-1]["content"] for seen in box.journal)


def test_every_form_of_a_task_gets_its_result(box: Sandbox, droveway: Call) -> None:
    """spec: DESIGN, forms of `run`."""
    tasks = write(
        {"id": "a", "query": "one", "role": "qa_tester", "metadata": {"k": [1]}},
        {"question_id": 81, "turns": ["two", "three"], "category": "ignored"},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "x"},
            ]
        },
        {"id": "d", "query": "four", "model": "mine"},
    )
    shown = droveway("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url)
    assert shown.exit_code == 0
    told = {each["id"]: each for each in results()}
    assert set(told) == {"a", 81, 3, "d"}
    assert told["a"]["role"] == "qa_tester"
    assert told["a"]["metadata"] == {"k": [1]}
    assert [told[name]["role"] for name in (81, 3, "d")] == ROLES[:3]
    assert len(told[81]["turns"]) == 2
    assert all(told[81]["turns"])
    assert told["d"]["model"] == "mine"
    assert told["d"]["cost"] is None
    for each in told.values():
        assert each["outcome"] == "ok"
        assert each["attempts"] == (2 if each["id"] == 81 else 1)
        assert each["latency_ms"] >= each["first_token_ms"] > 0
        assert each["at"].endswith("+00:00")
        assert "error" not in each


def test_tokens_are_those_of_the_journal_and_the_cost_is_theirs(
    box: Sandbox, droveway: Call
) -> None:
    tasks = write(*({"query": f"question {i}"} for i in range(40)))
    droveway("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url, "--model", "gpt-4.1")
    told = results()
    journal = box.journal
    assert sum(each["usage"]["cached_read"] for each in told) == sum(
        s.cached_tokens for s in journal
    )
    inputs = sum(each["usage"]["input"] + each["usage"]["cached_read"] for each in told)
    assert inputs == sum(seen.prompt_tokens for seen in journal)
    assert sum(each["usage"]["output"] for each in told) == sum(
        s.completion_tokens for s in journal
    )
    for each in told:
        usage = each["usage"]
        cost = usage["input"] * 2 + usage["cached_read"] * Decimal("0.5") + usage["output"] * 8
        assert Decimal(each["cost"]) == cost / 1_000_000


@pytest.mark.long  # tests/test_main_job.py does the same through the command
def test_the_whole_bench_with_the_17_roles_matches_the_journal(droveway: Call) -> None:
    """spec: the main job on real input; every turn answered, to the token and the nano-unit."""
    if not MT_BENCH.exists():
        pytest.skip(f"{MT_BENCH} is not on this machine; it is a test input, not the product's")
    with running_sandbox() as box:
        shown = droveway("run", MT_BENCH, "-o", "results.jsonl", "--base-url", box.base_url,
                         "--model", "deepseek-flash", "--json")  # fmt: skip
        journal = box.journal
    assert shown.exit_code == 0
    totals = json.loads(shown.stdout)["totals"]
    told = results()
    assert [len(told), {len(each["turns"]) for each in told}] == [80, {2}]
    assert {each["id"] for each in told} == set(range(81, 161))
    assert {each["role"] for each in told} == set(ROLES)
    assert totals["tokens"]["input_total"] == sum(seen.prompt_tokens for seen in journal)
    assert totals["tokens"]["cached_read"] == sum(seen.cached_tokens for seen in journal)
    assert totals["tokens"]["output"] == sum(seen.completion_tokens for seen in journal)
    off_peak = sum(totals["tokens"][name] * price for name, price in OFF_PEAK.items())
    # Each answer is rounded by itself, to the nano-unit; half of one for each of 160 calls.
    assert any(
        abs(Decimal(totals["cost"]) - off_peak * side / 1_000_000) <= Decimal("80e-9")
        for side in (1, 2)
    )


def test_bad_lines_are_told_by_number_and_the_rest_is_done(box: Sandbox, droveway: Call) -> None:
    tasks = write(
        {"id": "a", "query": "one"},
        '{"id": "b", "query": "tw',
        "",
        {"id": "c", "query": "x", "role": "qa_testr"},
        {"id": "a", "query": "again"},
        {"id": "e"},
        {"id": "f", "query": "x", "turns": ["y"]},
        {"id": "g", "query": 7},
        {"id": "h", "query": "  "},
        "[1]",
        {"id": [1], "query": "x"},
        {"id": "z", "query": "last"},
    )
    shown = droveway("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url)
    assert shown.exit_code == 1
    assert {each["id"] for each in results()} == {"a", "z"}
    said = shown.stderr.splitlines()
    numbers = [int(line.split()[1]) for line in said if line.startswith("line ")]
    assert numbers == [2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert "no JSON" in said[0]
    assert "did you mean 'qa_tester'" in said[1]
    assert "on line 1 already" in said[2]
    assert "9 lines are no tasks" in said[-1]


def test_a_failed_task_is_told_and_only_it_is_done_again(box: Sandbox, droveway: Call) -> None:
    tasks = write(
        {"id": "good", "query": "one"}, {"id": "bad", "query": "two", "model": "fault-400"}
    )
    line = ("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url)
    first = droveway(*line)
    assert first.exit_code == 1
    told = {each["id"]: each for each in results()}
    assert told["bad"]["outcome"] == "failed"
    assert told["bad"]["error"]["code"] == "invalid_request"
    assert told["bad"]["text"] is None
    assert "run the same line again" in first.stderr
    write({"id": "good", "query": "one"}, {"id": "bad", "query": "two"})
    second = droveway(*line)
    assert second.exit_code == 0
    assert sorted((each["id"], each["outcome"]) for each in results()) == [
        ("bad", "ok"),
        ("good", "ok"),
    ]
    assert questions(box) == {"one": 1, "two": 2}
    third = droveway(*line)
    assert third.exit_code == 0
    assert "2 tasks were answered before" in third.stdout
    assert sum(questions(box).values()) == 3


def test_a_cut_answer_is_failed_with_what_had_come(box: Sandbox, droveway: Call) -> None:
    """spec: never silently cut."""
    tasks = write({"id": 1, "query": "one", "model": "fault-cut-event:9"})
    assert droveway("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url).exit_code == 1
    (told,) = results()
    assert told["outcome"] == "failed"
    assert told["error"]["partial"]


def test_max_cost_is_a_hard_limit_and_the_rest_is_skipped(box: Sandbox, droveway: Call) -> None:
    tasks = write(*({"id": i, "query": f"question {i}"} for i in range(12)))
    shown = droveway("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url,
                     "--max-cost", "0.002", "--max-tokens", "1000", "--concurrency", "1")  # fmt: skip
    assert shown.exit_code == 1
    told = results()
    assert len(told) == 12
    assert {each["outcome"] for each in told} == {"ok", "skipped"}
    assert sum(Decimal(each["cost"]) for each in told if each["cost"]) <= Decimal("0.002")
    assert "max_cost" in shown.stderr


def test_own_roles_are_taken_and_a_wrong_file_refused(box: Sandbox, droveway: Call) -> None:
    Path("roles.toml").write_text('[roles.poet]\ntitle = "Poet"\ninstructions = "Rhyme."\n')
    tasks = write({"id": 1, "query": "sea", "role": "poet"})
    line = ("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url, "--roles")
    assert droveway(*line, "roles.toml").exit_code == 0
    sent = json.loads(box.journal[-1].body or b"")
    assert sent["messages"][0]["content"] == "Rhyme."
    assert droveway(*line, "missing.toml").exit_code == 2


def test_json_has_roles_and_totals(box: Sandbox, droveway: Call) -> None:
    tasks = write({"id": 1, "query": "sea", "role": "hr_assistant"}, "{")
    shown = droveway("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url, "--json")
    told = json.loads(shown.stdout)
    assert [each["role"] for each in told["roles"] if each["ok"]] == ["hr_assistant"]
    assert told["totals"]["success_rate"] == 1.0
    assert told["totals"]["bad_lines"] == 1


@pytest.mark.parametrize("output", ["tasks.jsonl", ".", "no/such/place.jsonl", "other.txt"])
def test_an_output_that_cannot_be_used_is_told_before_anything_is_sent(
    output: str, box: Sandbox, droveway: Call
) -> None:
    Path("other.txt").write_text("a letter to grandmother")
    tasks = write({"id": 1, "query": "sea"})
    before = tasks.read_bytes()
    shown = droveway("run", tasks, "-o", output, "--base-url", box.base_url)
    assert shown.exit_code == 2
    assert shown.stderr.count("\n") == 1
    assert box.journal == []
    assert tasks.read_bytes() == before
    assert Path("other.txt").read_text() == "a letter to grandmother"


def test_a_disk_that_is_full_is_one_line(box: Sandbox, droveway: Call) -> None:
    tasks = write({"id": 1, "query": "sea"})
    shown = droveway("run", tasks, "-o", "/dev/full", "--base-url", box.base_url)
    assert shown.exit_code == 1
    assert "No space left" in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_an_unreachable_provider_fails_every_task_in_one_line(droveway: Call) -> None:
    tasks = write({"id": 1, "query": "sea"}, {"id": 2, "query": "sun"})
    shown = droveway("run", tasks, "-o", "results.jsonl", "--base-url", "http://127.0.0.1:1/v1",
                     "--max-attempts", "1")  # fmt: skip
    assert shown.exit_code == 1
    assert [each["outcome"] for each in results()] == ["failed", "failed"]
    assert "2 of 2 tasks have no answer" in shown.stderr
    assert "is the provider running" in shown.stderr


def test_ctrl_c_keeps_what_was_answered_and_the_next_run_goes_on() -> None:
    """ours: nothing that was answered is lost, and nothing is asked twice; the journal says so."""
    fast, slow = [f"fast {i}" for i in range(10)], [f"slow {i}" for i in range(12)]
    tasks = write(*({"id": text, "query": text} for text in [*fast, *slow]))
    hang = Script(rules=(Rule(contains="slow", fault="slow-headers"),), profile=INSTANT)
    with running_sandbox(Sandbox(script=hang, journal_bodies=True)) as box:
        line = [sys.executable, "-m", "droveway", "run", str(tasks), "-o", "results.jsonl",
                "--base-url", box.base_url, "--concurrency", "8"]  # fmt: skip
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for_answers(len(fast))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)
        assert process.returncode == 130
        assert "Traceback" not in said
        assert "interrupted; 10 tasks are answered in results.jsonl" in said.splitlines()[-1]
        answered = {each["id"]: each for each in results() if each["outcome"] == "ok"}
        assert set(answered) == set(fast)
        stopped = {each["id"] for each in results() if each["outcome"] == "cancelled"}
        assert len(stopped) + len(answered) == len(results())
        begun = set(questions(box)) - set(fast)
        assert stopped == begun < set(slow), "no further task was begun after the interrupt"
        box.direct(Script(profile=INSTANT))
        again = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert again.returncode == 0
        told = {each["id"]: each for each in results()}
        assert len(results()) == len(told) == 22
        assert all(each["outcome"] == "ok" for each in told.values())
        assert {name: told[name] for name in answered} == answered
        twice = {text: 1 + (text in begun) for text in slow}
        assert questions(box) == dict.fromkeys(fast, 1) | twice


def wait_for_answers(count: int) -> None:
    """Wait until so many results are in the file, within a bound."""
    ticks = threading.Event()
    for _ in range(SECONDS * 50):
        path = Path("results.jsonl")
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        ticks.wait(0.02)
    raise TimeoutError("the run has not got so far")


def test_a_torn_last_line_is_dropped_and_its_task_done_again(box: Sandbox, droveway: Call) -> None:
    """ours: the writer was killed inside a line, at every byte of it."""
    tasks = write({"id": "a", "query": "one"}, {"id": "b", "query": "two"})
    line = ("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url)
    droveway(*line, "--concurrency", "1")
    whole = Path("results.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for end in [*range(first, first + 12), first + 100, len(whole) - 2, len(whole) - 1]:
        Path("results.jsonl").write_bytes(whole[:end])
        assert droveway(*line).exit_code == 0
        assert sorted(each["id"] for each in results()) == ["a", "b"]
    asked = questions(box)
    assert asked["one"] == 1
    assert asked["two"] == 15, "the last of these lacks only its line end, and is whole"


def test_the_file_behind_a_link_is_what_is_rewritten(box: Sandbox, droveway: Call) -> None:
    Path("real.jsonl").write_text('{"id":"a","outcome":"failed"}\n')
    Path("results.jsonl").symlink_to("real.jsonl")
    tasks = write({"id": "a", "query": "one"})
    droveway("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url)
    assert Path("results.jsonl").is_symlink()
    assert [each["outcome"] for each in results("real.jsonl")] == ["ok"]


def test_a_task_without_a_role_keeps_its_turn_when_a_run_goes_on(
    box: Sandbox, droveway: Call
) -> None:
    tasks = write(*({"id": i, "query": f"q {i}"} for i in range(20)))
    line = ("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url)
    droveway(*line)
    roles = {each["id"]: each["role"] for each in results()}
    assert roles == {i: ROLES[i % 17] for i in range(20)}
    kept = [each for each in results() if each["id"] < 10]
    Path("results.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in kept))
    droveway(*line)
    assert {each["id"]: each["role"] for each in results()} == roles


def test_a_second_run_on_the_same_results_is_refused(box: Sandbox, droveway: Call) -> None:
    """Ours: both would ask, and pay for, the same tasks."""
    tasks = write({"id": 1, "query": "one"})
    holder = Results(Path("results.jsonl"))
    try:
        shown = droveway("run", tasks, "-o", "results.jsonl", "--base-url", box.base_url)
        assert shown.exit_code == 2
        assert "another run is writing" in shown.stderr
        assert box.journal == []
    finally:
        holder.close()


def test_a_task_that_was_changed_is_asked_again_under_its_old_id(
    box: Sandbox, droveway: Call
) -> None:
    """Ours: ids default to line numbers, and a line put on top moves them all."""
    run = ["-o", "results.jsonl", "--base-url", box.base_url]
    droveway("run", write({"query": "a"}, {"query": "b"}), *run)
    droveway("run", write({"query": "new"}, {"query": "b"}), *run)
    assert questions(box) == Counter({"a": 1, "b": 1, "new": 1})
    assert len(results()) == 2


def test_an_answer_without_a_word_is_no_answer(box: Sandbox, droveway: Call) -> None:
    """Ours: all that it might write went into thinking; a run with more tokens asks again."""
    tasks = write({"id": 1, "query": "one"})
    run = ["-o", "results.jsonl", "--base-url", box.base_url, "--max-tokens"]
    shown = droveway("run", tasks, *run, "1")
    assert shown.exit_code == 1
    (line,) = results()
    assert (line["outcome"], line["finish_reason"]) == ("failed", "length")
    assert "--max-tokens" in line["error"]["message"]
    assert droveway("run", tasks, *run, "500").exit_code == 0
    (line,) = results()
    assert line["outcome"] == "ok"
