"""`droveway check` without the network, `droveway doctor` with it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from droveway.sandbox import Profile, Sandbox, Script, refused_port, running_sandbox

Call = Callable[..., Result]

SETTINGS = """
[providers.deepseek]
base_url = "https://api.deepseek.com"
api_key = "env:MY_KEY"
[providers.local]
base_url = "http://127.0.0.1:8000/v1"
models = ["qwen"]
[models.fast]
candidates = ["local/qwen", "deepseek/deepseek-flash"]
[routing]
complex = "fast"
[prices."local/qwen"]
input = "0.15"
output = "0.60"
"""


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    path = Path("mine.toml")
    path.write_text(SETTINGS)
    return path


def test_check_shows_providers_aliases_tiers_and_prices_with_keys_masked(
    settings: Path, droveway: Call
) -> None:
    shown = droveway("check", "--config", settings, "--json")
    assert shown.exit_code == 0
    assert "secret" not in shown.stdout
    told = json.loads(shown.stdout)
    assert [(each["name"], each["key"]) for each in told["providers"]] == [
        ("deepseek", "***"),
        ("local", None),
    ]
    assert told["aliases"] == {"fast": ["local/qwen", "deepseek/deepseek-flash"]}
    assert told["tiers"]["complex"]["price"]["output"] == "0.60"
    assert told["prices"] == ["local/qwen"]
    text = droveway("check", "--config", settings).stdout
    assert "local/qwen then deepseek/deepseek-flash" in text
    assert "secret" not in text


def test_check_takes_the_settings_of_the_directory(settings: Path, droveway: Call) -> None:
    settings.rename("droveway.toml")
    assert "droveway.toml" in json.loads(droveway("check", "--json").stdout)["settings"]


def test_check_without_anything_says_that_the_sandbox_answers(droveway: Call) -> None:
    assert "embedded sandbox" in droveway("check").stdout


def test_check_finds_providers_by_their_usual_keys(
    droveway: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    told = json.loads(droveway("check", "--json").stdout)
    assert [each["name"] for each in told["providers"]] == ["openai"]
    assert told["tiers"]["simple"] == {"model": "deepseek-flash", "answered_by": [], "price": None}
    assert "nobody has it" in droveway("check").stdout


@pytest.mark.parametrize(
    "broken",
    [
        '[providers.x]\nbase_url = "https://example.com"\napi_key = "env:NOT_SET"\n',
        '[providers.x]\nbase_url = "https://example.com"\napi_key = "sk-plain"\n',
        '[models.f]\ncandidates = ["no/one"]\n[providers.x]\nbase_url = "http://x"\nmodels = ["a"]',
        "[providers\n",
    ],
)
def test_check_refuses_settings_that_cannot_work(broken: str, droveway: Call) -> None:
    Path("droveway.toml").write_text(broken)
    shown = droveway("check")
    assert shown.exit_code == 2
    assert shown.stderr.startswith("error: ")
    assert "sk-plain" not in shown.stderr


def test_doctor_is_content_with_a_provider_that_answers(droveway: Call) -> None:
    with running_sandbox(Sandbox(script=Script(profile=Profile(instant=True)))) as box:
        shown = droveway("doctor", "--base-url", box.base_url, "--json")
        assert shown.exit_code == 0
        (finding,) = json.loads(shown.stdout)
        assert (finding["ok"], finding["advice"]) == (True, None)
        assert finding["latency_ms"] > 0
        assert len(box.journal) == 1
        assert "ok" in droveway("doctor", "--base-url", box.base_url).stdout


def test_doctor_says_what_is_wrong_with_each_provider(droveway: Call) -> None:
    with (
        running_sandbox(Sandbox(script=Script(profile=Profile(instant=True)))) as box,
        refused_port() as port,
    ):
        Path("droveway.toml").write_text(
            f'[providers.good]\nbase_url = "{box.base_url}"\n'
            f'[providers.gone]\nbase_url = "http://127.0.0.1:{port}/v1"\n'
        )
        shown = droveway("doctor", "--json")
    assert shown.exit_code == 1
    good, gone = json.loads(shown.stdout)
    assert (good["provider"], good["ok"]) == ("good", True)
    assert (gone["provider"], gone["ok"]) == ("gone", False)
    assert "base_url" in gone["advice"]


def test_doctor_shows_a_refused_key_as_advice(droveway: Call) -> None:
    box = Sandbox(script=Script(profile=Profile(instant=True)), api_keys=["right"])
    with running_sandbox(box):
        shown = droveway("doctor", "--base-url", box.base_url, "--api-key", "wrong")
    assert shown.exit_code == 1
    assert "check the key" in " ".join(shown.stdout.split())


def test_a_lone_key_of_another_vendor_is_asked_for_its_own_model(
    droveway: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ours: nobody with one key should have to know a model's name."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    with refused_port() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        shown = droveway("ask", "Hi")
    assert shown.exit_code == 1
    assert "asking for openai/gpt-4.1" in shown.stderr
