"""`droveway ask`: one question, one answer."""

import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import Result

from droveway.sandbox import Profile, Rule, Sandbox, Script, running_sandbox

Call = Callable[..., Result]

INSTANT = Profile(instant=True)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    rules = (Rule(contains="Greet", answer="Good day."),)
    script = Script(rules=rules, profile=INSTANT)
    with running_sandbox(Sandbox(script=script, journal_bodies=True)) as box:
        yield box


def test_the_answer_is_alone_on_stdout(box: Sandbox, droveway: Call) -> None:
    shown = droveway("ask", "Greet me", "--base-url", box.base_url)
    assert (shown.exit_code, shown.stdout) == (0, "Good day.\n")
    assert "remote/deepseek-flash" in shown.stderr
    assert "USD" in shown.stderr


def test_a_stream_prints_the_same_answer(box: Sandbox, droveway: Call) -> None:
    shown = droveway("ask", "Greet me", "--stream", "--base-url", box.base_url)
    assert (shown.exit_code, shown.stdout) == (0, "Good day.\n")


def test_the_question_may_come_from_stdin(box: Sandbox, droveway: Call) -> None:
    shown = droveway("ask", "-", "--base-url", box.base_url, typed="Greet me")
    assert shown.stdout == "Good day.\n"


def test_json_has_everything_that_is_known(box: Sandbox, droveway: Call) -> None:
    told = json.loads(droveway("ask", "Greet me", "--json", "--base-url", box.base_url).stdout)
    assert told["text"] == "Good day."
    assert told["usage"]["output"] == box.journal[-1].completion_tokens
    assert told["attempts"] == 1
    assert told["currency"] == "USD"


def test_a_model_without_a_price_has_no_cost(box: Sandbox, droveway: Call) -> None:
    """spec: unknown is null, never 0."""
    shown = droveway("ask", "Greet me", "--json", "--model", "mine", "--base-url", box.base_url)
    assert json.loads(shown.stdout)["cost"] is None


def test_max_cost_refuses_before_anything_is_sent(box: Sandbox, droveway: Call) -> None:
    shown = droveway("ask", "Greet me", "--max-cost", "0.000001", "--base-url", box.base_url)
    assert shown.exit_code == 1
    assert "max_cost" in shown.stderr
    assert box.journal == []


def test_a_role_brings_its_instructions(box: Sandbox, droveway: Call) -> None:
    droveway("ask", "Greet me", "--role", "qa_tester", "--base-url", box.base_url)
    sent = json.loads(box.journal[-1].body or b"")
    assert sent["messages"][0]["role"] == "system"


def test_a_cut_stream_keeps_what_came_and_fails(box: Sandbox, droveway: Call) -> None:
    """spec: never silently cut."""
    model = "fault-cut-event:9"
    shown = droveway("ask", "Tell me", "--stream", "--model", model, "--base-url", box.base_url)
    assert shown.exit_code == 1
    assert "not whole" in shown.stderr
    assert len(shown.stdout) > 1


@pytest.mark.parametrize(
    ("fault", "advice"), [("401", "key"), ("402", "top up"), ("404", "model"), ("400", "400")]
)
def test_a_refusal_is_one_line_that_says_what_to_do(
    fault: str, advice: str, *, box: Sandbox, droveway: Call
) -> None:
    shown = droveway("ask", "Hi", "--model", f"fault-{fault}", "--base-url", box.base_url)
    assert shown.exit_code == 1
    assert shown.stderr.count("\n") == 1
    assert advice in shown.stderr


def test_an_unreachable_provider_is_one_line(droveway: Call) -> None:
    shown = droveway("ask", "Hi", "--base-url", "http://127.0.0.1:1/v1")
    assert shown.exit_code == 1
    assert "is the provider running" in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_without_any_provider_the_sandbox_answers_and_says_so(droveway: Call) -> None:
    shown = droveway("ask", "Hi")
    assert shown.exit_code == 0
    assert "embedded sandbox" in shown.stderr


def test_the_key_comes_from_the_environment_with_its_spaces_dropped(
    droveway: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DROVEWAY_API_KEY", "  right-key\n")
    script = Script(profile=INSTANT)
    with running_sandbox(Sandbox(script=script, api_keys=["right-key"])) as box:
        assert droveway("ask", "Hi", "--base-url", box.base_url).exit_code == 0
        wrong = droveway("ask", "Hi", "--base-url", box.base_url, "--api-key", "wrong-key")
        assert wrong.exit_code == 1
        assert "wrong-key" not in wrong.stderr
