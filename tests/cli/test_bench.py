"""`droveway bench`: figures of a server over a socket, alone and side by side."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from droveway.sandbox import Profile, Rule, Sandbox, Script, refused_port, running_sandbox

Call = Callable[..., Result]

INSTANT = Profile(instant=True, answer_tokens=12, reasoning_tokens=4)
# Five requests to each server, all of them counted; how long they take does not matter.
FIVE = ("--rate", "50", "--duration", "0.1", "--warmup", "0")
SPREAD = ["p50", "p90", "p95", "p99", "p99.9"]
SECONDS = 60


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with running_sandbox(profile=INSTANT, journal_bodies=True) as box:
        yield box


def measured(droveway: Call, *arguments: object) -> dict[str, Any]:
    shown = droveway("bench", *arguments, *FIVE, "--json", "-")
    assert shown.exit_code == 0, shown.stderr
    told: dict[str, Any] = json.loads(shown.stdout)
    return told


def test_a_stream_has_every_time_and_its_tokens(box: Sandbox, droveway: Call) -> None:
    told = measured(droveway, box.base_url)
    (server,) = told["targets"]
    assert (server["url"], server["requests"], server["ok"]) == (box.base_url, 5, 5)
    assert (server["success_rate"], server["errors"]) == (1, {})
    for name in ("first_content_ms", "between_content_ms", "answer_ms", "scheduled_ms", "late_ms"):
        assert list(server[name]) == SPREAD
        assert list(server[name].values()) == sorted(server[name].values())
    assert server["first_content_ms"]["p50"] <= server["answer_ms"]["p50"]
    journal = box.journal
    assert server["usage"]["output"] == sum(seen.completion_tokens for seen in journal)
    assert float(server["cost"]) > 0
    assert server["currency"] == "USD"
    assert server["gateway_cost"] is None
    assert told["difference"] == {}
    assert told["sent"] == 5
    assert told["own_cpu_ms_per_request"] >= 0


def test_a_whole_answer_has_no_first_content(box: Sandbox, droveway: Call) -> None:
    (server,) = measured(droveway, box.base_url, "--whole")["targets"]
    assert server["first_content_ms"] is server["between_content_ms"] is None
    assert server["ok"] == 5
    assert not any(seen.stream for seen in box.journal)


def test_the_roles_the_model_and_the_cap_go_out(box: Sandbox, droveway: Call) -> None:
    measured(droveway, box.base_url, "--roles", 2, "--model", "mine", "--max-tokens", 7)
    asked = [json.loads(seen.body or b"") for seen in box.journal]
    assert {(each["model"], each["max_tokens"], each["stream"]) for each in asked} == {
        ("mine", 7, True)
    }
    assert len({each["messages"][0]["content"] for each in asked}) == 2


def test_two_servers_are_set_side_by_side(box: Sandbox, droveway: Call) -> None:
    with running_sandbox(profile=INSTANT) as other:
        urls = [box.base_url, other.base_url]
        told = measured(droveway, urls[0], "--against", urls[1])
        assert [len(each.journal) for each in (box, other)] == [5, 5]
    first, second = told["targets"]
    assert [first["url"], second["url"]] == urls
    for name in ("first_content_ms", "answer_ms", "scheduled_ms"):
        for percent in SPREAD:
            difference = told["difference"][name]["difference_ms"][percent]
            assert difference == pytest.approx(
                first[name][percent] - second[name][percent], abs=2e-3
            )
    ratio = told["difference"]["answer_ms"]["ratio"]["p50"]
    assert ratio == pytest.approx(first["answer_ms"]["p50"] / second["answer_ms"]["p50"], rel=0.05)


def test_people_get_tables_and_programs_get_the_same_in_a_file(
    box: Sandbox, droveway: Call
) -> None:
    with running_sandbox(profile=INSTANT) as other:
        shown = droveway("bench", box.base_url, "--against", other.base_url, *FIVE,
                         "--json", "bench.json")  # fmt: skip
    assert shown.exit_code == 0
    told = json.loads(Path("bench.json").read_text())
    assert f"{box.base_url} (ms)" in shown.stdout
    assert "difference, the first minus the second" in shown.stdout
    assert "5 of 5 answered (100.00 %)" in shown.stdout
    assert f"cost {told['targets'][0]['cost']} USD" in shown.stdout
    median = told["targets"][0]["answer_ms"]["p50"]
    assert f"{median:,.2f}" in shown.stdout
    assert all(len(line) <= 100 for line in shown.stdout.splitlines())


def test_failures_are_counted_by_kind_and_none_succeeding_is_exit_code_1(
    box: Sandbox, droveway: Call
) -> None:
    shown = droveway("bench", box.base_url, "--model", "fault-503", *FIVE)
    assert shown.exit_code == 1
    assert "0 of 5 answered (0.00 %)" in shown.stdout
    assert "failed: http_503 5" in shown.stdout
    assert "cost unknown" in shown.stdout
    assert shown.stderr == (
        f"error: no request to {box.base_url} succeeded; most often: http_503\n"
    )


def test_some_failures_are_told_and_are_no_failure_of_the_command(
    box: Sandbox, droveway: Call
) -> None:
    with refused_port() as port:
        told = measured(droveway, box.base_url, "--against", f"http://127.0.0.1:{port}/v1")
    assert [each["success_rate"] for each in told["targets"]] == [1, 0]
    assert told["targets"][1]["errors"] == {"connect": 5}
    assert told["difference"] == {}


def test_each_server_gets_its_own_key_and_never_the_others(droveway: Call) -> None:
    first = Sandbox(profile=INSTANT, api_keys={"sk-first"})
    second = Sandbox(profile=INSTANT, api_keys={"sk-second"})
    with running_sandbox(first), running_sandbox(second):
        pair = (first.base_url, "--against", second.base_url, "--api-key", "sk-first")
        without = measured(droveway, *pair)
        assert [each["errors"] for each in without["targets"]] == [{}, {"http_401": 5}]
        both = measured(droveway, *pair, "--against-key", "sk-second")
        assert [each["ok"] for each in both["targets"]] == [5, 5]


def test_a_key_in_the_environment_is_for_its_server_alone(
    droveway: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROVEWAY_API_KEY", "sk-first")
    first = Sandbox(profile=INSTANT, api_keys={"sk-first"})
    second = Sandbox(profile=INSTANT, api_keys={"sk-first"})
    with running_sandbox(first), running_sandbox(second):
        told = measured(droveway, first.base_url, "--against", second.base_url)
    assert [each["errors"] for each in told["targets"]] == [{}, {"http_401": 5}]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("ftp://127.0.0.1",),
        ("http://example.com/v1",),
        ("http://127.0.0.1:1/v1", "--roles", "18"),
        ("http://127.0.0.1:1/v1", "--rate", "0"),
        ("http://127.0.0.1:1/v1", "--duration", "0"),
        ("http://127.0.0.1:1/v1", "--against", "nowhere"),
        ("http://127.0.0.1:1/v1", "--against-key", "sk-other"),
        ("http://127.0.0.1:1/v1", "--json", "no/such/place.json"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], droveway: Call
) -> None:
    shown = droveway("bench", *arguments)
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert shown.stderr.startswith("error: ")
    assert shown.stderr.count("\n") == 1
    assert "sk-other" not in shown.stderr


def test_ctrl_c_shows_what_was_measured_so_far() -> None:
    """spec: exit code 130; the sandbox answers the first role and lets the second one hang."""
    hang = Script(rules=(Rule(contains="task 1.", fault="slow-headers"),), profile=INSTANT)
    with running_sandbox(Sandbox(script=hang)) as box:
        line = [sys.executable, "-m", "droveway", "bench", box.base_url, "--connections", "1",
                "--warmup", "0", "--duration", "600"]  # fmt: skip
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = process.stderr.readline()  # a line now and then says how far it is
        while "  1 measured" not in said:
            assert said, "it ended by itself"
            said = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "1 of 1 answered (100.00 %)" in out
    assert err == "error: interrupted; the figures are of the time until then\n"
