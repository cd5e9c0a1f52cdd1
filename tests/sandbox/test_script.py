"""These tests know the TOML form of a script, and how a wrong one refuses to start."""

import http.client
from pathlib import Path

import pytest

from droveway.errors import SettingsError
from droveway.sandbox import Sandbox, load_script, running_sandbox


def ask(box: Sandbox) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=10)
    body = '{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    connection.request("POST", "/v1/chat/completions", body)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders())


def test_a_script_is_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "script.toml"
    path.write_text(
        """
        seed = 7
        [profile]
        instant = true
        [limits]
        rpm = 1000
        [[rules]]
        model = "m"
        fault = "429-seconds:1@2"
        """
    )
    with running_sandbox(script=load_script(path)) as box:
        answers = [ask(box) for _ in range(3)]
    assert [status for status, _ in answers] == [429, 429, 200]
    assert answers[0][1]["x-ratelimit-limit-requests"] == "1000"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 7", "no key 'sed'; did you mean 'seed'"),
        ("[[rules]]\nfalt = '500'", r"no key 'rules\[0\].falt'; did you mean 'fault'"),
        ("[profile]\nspeed = 3", "no key 'profile.speed'; known: first_token_s"),
        ("[limits]\nrpm = 0", "at least 1"),
        ("[[rules]]\nfault = 'cut-evnt'", "did you mean cut-event"),
        ("[[rules]]\nmodel = 'm'", "needs a `fault` or an `answer`"),
        ("[[rules]]\nfault = '500'\nprobability = 2", "from 0 to 1"),
        ("[[rules]]\nfault = 500", "Expected `str"),
        ("seed = ", "cannot read"),
    ],
)
def test_a_wrong_script_refuses_to_start(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "script.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_script(path)


def test_a_missing_script_refuses_to_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        load_script(tmp_path / "none.toml")
