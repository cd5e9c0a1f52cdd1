"""`droveway sandbox`: one line on stdout when ready, and a clean end."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Spawn = Callable[..., CompletedProcess[str]]

SECONDS = 30


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A sandbox that listens, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "droveway", "sandbox", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def ask(url: str) -> dict[str, Any]:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return {**json.load(answer), "headers": dict(answer.headers)}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_answers_until_it_is_stopped_and_prints_one_line(
    number: signal.Signals, code: int
) -> None:
    with started("--instant") as (process, url):
        assert ask(url)["choices"][0]["message"]["content"]
        process.send_signal(number)
        rest, hints = process.communicate(timeout=SECONDS)
        assert (rest, process.returncode) == ("", code)
        assert f"{url}/v1" in hints
        assert "curl" in hints
        assert "Traceback" not in hints


def test_limits_and_script_are_followed() -> None:
    Path("script.toml").write_text('[[rules]]\nanswer = "As told."\n[limits]\ntpm = 90000\n')
    with started("--instant", "--rpm", "600", "--script", "script.toml") as (_, url):
        answer = ask(url)
    assert answer["choices"][0]["message"]["content"] == "As told."
    assert answer["headers"]["x-ratelimit-limit-requests"] == "600"
    assert answer["headers"]["x-ratelimit-limit-tokens"] == "90000"


def test_a_port_in_use_is_one_line_that_says_what_to_do(spawned: Spawn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        shown = spawned("sandbox", "--port", port)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.startswith(f"error: port {port} of 127.0.0.1 is in use; choose another")
    assert shown.stderr.count("\n") == 1
