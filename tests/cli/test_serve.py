"""`droveway serve`: what a first user is told, and a clean end."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

SECONDS = 60
KEY = re.compile(r"dw_\w+")
BODY = {"model": "auto", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gateway without settings or keys, in an empty folder; ends whatever fails."""
    with subprocess.Popen(
        [sys.executable, "-m", "droveway", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
    ) as process:
        watch = threading.Timer(SECONDS, process.kill)
        watch.start()
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("listening on http://127.0.0.1:")
            yield process, said.removeprefix("listening on ").strip()
        finally:
            watch.cancel()
            process.kill()


def told_until(process: subprocess.Popen[str], mark: str) -> str:
    assert process.stderr is not None
    told = ""
    while mark not in told:
        line = process.stderr.readline()
        assert line, f"{mark!r} was never said: {told}"
        told += line
    return told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_first_user_gets_a_key_that_works_and_the_server_ends_cleanly(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with serving(tmp_path) as (process, url):
        told = told_until(process, "curl")
        assert "the sandbox answers" in told
        found = KEY.search(told)
        assert found is not None
        asked = Request(
            f"{url}/v1/chat/completions",
            json.dumps(BODY).encode(),
            {"authorization": f"Bearer {found[0]}"},
        )
        with urlopen(asked, timeout=20) as answer:
            assert json.load(answer)["choices"]
            request_id = answer.headers["x-droveway-request-id"]
        process.send_signal(number)
        rest, complaint = process.communicate(timeout=SECONDS)
        assert (process.returncode, rest) == (code, "")
        assert complaint.endswith("stopped\n")
        assert "draining" not in complaint, "nothing is on its way"
        assert "Traceback" not in complaint
    shown = subprocess.run(
        [sys.executable, "-m", "droveway", "requests", "show", request_id, "--json"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=tmp_path,
        check=True,
    )
    assert json.loads(shown.stdout)["outcome"] == "completed"


def test_the_second_start_shows_no_key_and_nothing_that_a_shell_would_run(tmp_path: Path) -> None:
    for start in (1, 2):
        with serving(tmp_path) as (process, _):
            told = told_until(process, "curl")
            assert ("first key" in told) == (start == 1)
            assert "`" not in told


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-m", "droveway", "serve", "--port", port],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            cwd=tmp_path,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: cannot listen on")
    assert len(ended.stderr.splitlines()) == 1
