"""`droveway serve --workers`: several processes on one port, none of them left behind."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from droveway.clock import StillClock, SystemClock
from droveway.engine.journal_store import StoredJournal
from droveway.errors import DrovewayError, SettingsError
from droveway.gateway import server, workers
from droveway.gateway.lifeline import Source
from droveway.gateway.restarts import EARLY_ENDS_MAX, PAUSE_MAX_S, STEADY_S, Restarts
from droveway.gateway.workers import KILL_GRACE_S, Workers
from droveway.settings import ServerSettings, Settings
from droveway.storage import Store
from lab import run

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at /proc")

SECONDS = 30
KEY = re.compile(r"dw_\w+")
LOOK_S = 0.02
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": %s}]}\n\n'
STREAM = {"model": "box/m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


# What the tests start.


class Vendor(ThreadingHTTPServer):
    """Begins every stream at once, and ends all of them when it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.may_end = threading.Event()


class _Answer(BaseHTTPRequestHandler):
    server: Vendor
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        with suppress(ConnectionError):  # a caller that was cut is no longer there
            self.wfile.write(CHUNK % b"null")
            self.server.may_end.wait(SECONDS)
            self.wfile.write(CHUNK % b'"stop"' + b"data: [DONE]\n\n")

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing."""


@contextmanager
def vendor() -> Iterator[Vendor]:
    with Vendor() as box:
        thread = threading.Thread(target=box.serve_forever, args=(LOOK_S,))
        thread.start()
        try:
            yield box
        finally:
            box.may_end.set()
            box.shutdown()
            thread.join()


@dataclass
class Running:
    """A gateway with workers, as seen from outside."""

    process: subprocess.Popen[str]
    port: int
    opened: ExitStack
    told: list[str] = field(default_factory=list)
    key: str = ""

    def workers(self) -> set[int]:
        """The processes that the parent has now."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return {int(each) for each in children.split()}

    def serving(self) -> set[int]:
        """Those of them that listen."""
        listening = _sockets(self.port, state="0A")
        return {pid for pid in self.workers() if _sockets_of(pid) & listening}

    def ask(self, method: str, path: str, body: object = None) -> HTTPResponse:
        """Ask on a connection of its own, which stays open until the end."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        self.opened.callback(connection.close)
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"authorization": f"Bearer {self.key}"})
        return connection.getresponse()

    def statuses(self, *, least: int = 1) -> set[int]:
        """Ask until every worker has a connection to keep, and return all statuses."""
        self.opened.close()
        found: set[int] = set()
        asked = 0
        while asked < least or not self.connected() >= self.workers():
            answer = self.ask("GET", "/v1/models")
            answer.read()
            found.add(answer.status)
            asked += 1
            assert asked < 200, "one worker gets no connection"
        return found

    def streams_in_every_worker(self) -> list[HTTPResponse]:
        """Open streams until each worker has one; each has delivered its first event."""
        streams: list[HTTPResponse] = []
        while not self.connected() >= self.workers():
            stream = self.ask("POST", "/v1/chat/completions", STREAM)
            assert stream.status == 200
            while b'"x"' not in stream.readline():
                pass
            streams.append(stream)
            assert len(streams) < 200, "one worker gets no connection"
        return streams

    def connected(self) -> set[int]:
        """The workers that hold a connection of a caller."""
        accepted = _sockets(self.port, state="01")
        return {pid for pid in self.workers() if _sockets_of(pid) & accepted}


def _sockets(port: int, *, state: str) -> set[str]:
    """The sockets on a local port, by inode; 0A listens, 01 is connected."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == state}


def _sockets_of(pid: int) -> set[str]:
    found: set[str] = set()
    with suppress(FileNotFoundError):  # it has ended, or closed one, meanwhile
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(str(each.readlink()).removeprefix("socket:[").rstrip("]"))
    return found


@contextmanager
def serving(toml: str = "") -> Iterator[Running]:
    """Two workers in the working directory; whatever fails, none of the processes is left."""
    Path("droveway.toml").write_text(toml, encoding="utf-8")
    with (
        ExitStack() as opened,
        subprocess.Popen(
            [sys.executable, "-m", "droveway", "serve", "--port", "0", "--workers", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(Path.cwd())},
        ) as process,
    ):
        left: set[int] = set()
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("listening on http://127.0.0.1:"), process.communicate()[1]
            running = Running(process, int(said.rsplit(":", 1)[1]), opened)
            _read_welcome(running)
            left = running.workers()
            yield running
            left |= running.workers() if process.poll() is None else set()
        finally:
            process.kill()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _read_welcome(running: Running) -> None:
    assert running.process.stderr is not None
    while not (running.told and "curl" in running.told[-1]):
        line = running.process.stderr.readline()
        assert line, running.told
        running.told.append(line)
    found = KEY.search("".join(running.told))
    running.key = found[0] if found else ""


def until(true: Callable[[], bool], what: str) -> None:
    """Look again and again, but not for ever."""
    clock = SystemClock()
    deadline = clock.monotonic() + SECONDS
    while not true():
        assert clock.monotonic() < deadline, f"not within {SECONDS} s: {what}"
        threading.Event().wait(LOOK_S)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def rows() -> list[str]:
    with Store("sqlite:droveway.db", create=False) as store:
        return [row.outcome for row in StoredJournal(store).recent(1_000)]


# While it serves.


def test_a_dead_worker_is_replaced_and_a_revoked_key_is_refused_by_every_worker(
    spawned: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    with serving() as running:
        assert "".join(running.told).count(running.key) == 2
        before = running.workers()
        assert running.serving() == before
        assert len(before) == 2
        for pid in before:  # everybody can read the words of a command: they tell nothing
            words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
            assert words[1:] == ["-m", "droveway.cli.serve_worker", ""]
        assert running.statuses() == {200}

        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in running.workers(), "the victim ends")
        (survivor,) = before - {victim}
        assert {running.ask("GET", "/v1/models").status for _ in range(20)} == {200}
        until(lambda: len(running.serving()) == 2, "another one comes up")
        assert survivor in running.serving()
        assert running.statuses() == {200}

        assert spawned("keys", "revoke", "first").returncode == 0
        assert running.statuses(least=20) == {401}

        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.ask("GET", "/readyz").status == 503, "it was heard")
        running.process.send_signal(signal.SIGINT)
        rest, complaint = running.process.communicate(timeout=SECONDS)
    assert (running.process.returncode, rest) == (0, "")
    said = [line for line in complaint.splitlines() if "sandbox answers" not in line]
    assert len(said) == 2
    assert f"(process {victim}) ended by SIGKILL; it is started again in 0.1 s" in said[0]
    assert said[1] == "stopped"


def test_nobody_is_left_when_the_parent_is_killed_and_streams_may_still_end() -> None:
    with vendor() as box, serving(toml_of(box)) as running:
        streams = running.streams_in_every_worker()
        orphans = running.workers()
        running.process.kill()
        running.process.wait(SECONDS)
        until(lambda: not _sockets(running.port, state="0A"), "nothing new is taken")
        box.may_end.set()
        for stream in streams:
            assert b"data: [DONE]" in stream.read()
        until(lambda: all(map(gone, orphans)), "the workers end")
        assert rows() == ["completed"] * len(streams)


# On the way down.


def test_streams_in_every_worker_end_whole_when_all_processes_get_sigterm() -> None:
    """Ours: whoever stops a service may signal all of its processes, as systemd does."""
    with vendor() as box, serving(toml_of(box)) as running:
        streams = running.streams_in_every_worker()
        every = running.workers()
        for pid in (running.process.pid, *every):
            os.kill(pid, signal.SIGTERM)
        until(lambda: running.ask("GET", "/readyz").status == 503, "/readyz says so")
        until(lambda: not running.serving(), "nothing new is taken")
        assert running.workers() == every
        box.may_end.set()
        for stream in streams:
            assert b"data: [DONE]" in stream.read()
        _, complaint = running.process.communicate(timeout=SECONDS)
        assert (running.process.returncode, complaint) == (0, drain_of(streams) + "stopped\n")
        assert rows() == ["completed"] * len(streams)


def test_ctrl_c_is_counted_once_and_the_second_one_cuts_with_a_word() -> None:
    with vendor() as box, serving(toml_of(box)) as running:
        streams = running.streams_in_every_worker()
        every = running.workers()
        ctrl_c(running)
        until(lambda: running.ask("GET", "/readyz").status == 503, "one worker has heard")
        assert running.workers() == every
        assert running.connected() == every
        ctrl_c(running)
        for stream in streams:
            rest = stream.read()
            assert b'"code":"unavailable"' in rest
            assert b"[DONE]" not in rest
        _, complaint = running.process.communicate(timeout=SECONDS)
        assert running.process.returncode == 130
        begun, *told, last = complaint.splitlines()
        assert (begun + "\n", last) == (drain_of(streams), "stopped")
        assert len(told) == len(streams)
        assert all("failed: unavailable" in line for line in told)
        assert rows() == ["failed"] * len(streams)


def toml_of(box: Vendor) -> str:
    host, port = box.server_address[:2]
    return f'[server]\ndrain_s = 25\n[providers.box]\nbase_url = "http://{host!s}:{port}/v1"\n'


def drain_of(streams: list[HTTPResponse]) -> str:
    """What is said once, for all workers, when they begin to wait."""
    many = f"{len(streams)} requests on their way, at most 25 s; signal again to cut them"
    return f"draining: {many}\n"


def ctrl_c(running: Running) -> None:
    """What a terminal does: everybody in the group hears it, and whoever else should not mind."""
    for pid in running.workers():
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGHUP)
    os.killpg(running.process.pid, signal.SIGINT)


# What cannot start.


def test_workers_that_die_before_they_serve_end_the_server_with_one_line_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    spawned: Callable[..., subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    crash = "import os, sys\nif 'droveway.cli.serve_worker' in sys.orig_argv:\n    os._exit(7)\n"
    (tmp_path / "sitecustomize.py").write_text(crash, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    ended = spawned("serve", "--port", "0", "--workers", "2")
    assert (ended.returncode, ended.stdout) == (1, "")
    *restarts, last = ended.stderr.splitlines()
    assert re.fullmatch(
        rf"error: worker \d \(process \d+\) ended with exit code 7, as {EARLY_ENDS_MAX} did in a "
        "row before they served; see above what they said",
        last,
    )
    assert all("it is started again in" in each for each in restarts)
    assert len(restarts) in range(EARLY_ENDS_MAX - 1, 2 * EARLY_ENDS_MAX - 1)


def test_settings_that_only_a_worker_finds_wrong_are_told_once(
    tmp_path: Path, spawned: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "droveway.toml").write_text(
        '[server]\nworkers = 2\n[providers.openai]\napi_key = "env:NOT_THERE"\n', encoding="utf-8"
    )
    ended = spawned("serve", "--port", "0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: providers.openai.api_key")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("take", [server.listen, server.reserve])
def test_a_port_in_use_is_one_line(
    spawned: Callable[..., subprocess.CompletedProcess[str]],
    take: Callable[[str, int], socket.socket],
) -> None:
    """Ours: neither a server nor workers that have only just begun are joined by accident."""
    with take("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        ended = spawned("serve", "--port", port, "--workers", "2")
        with pytest.raises(SettingsError, match="cannot listen on"):
            server.listen("127.0.0.1", port)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: cannot listen on")
    assert len(ended.stderr.splitlines()) == 1


# Without the command around them.


def test_workers_inherit_one_socket_where_the_kernel_does_not_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (server, workers):
        monkeypatch.setattr(module, "SPREADS", False)
    settings = Settings(server=ServerSettings(port=0, workers=2, drain_s=1))
    command = [sys.executable, "-m", "droveway.cli.serve_worker"]

    async def check() -> None:
        port = server.reserve("127.0.0.1", 0)
        number = port.getsockname()[1]
        ended: list[int] = []
        async with Workers(
            command,
            settings,
            Source(None, {}),
            port=port,
            metrics_directory=str(tmp_path),
            on_ended=ended.append,
        ) as both:
            assert await both.ready()
            reader, writer = await asyncio.open_connection("127.0.0.1", number)
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()
            both.go_down()
            both.go_down()
            assert await both.gone() is signal.SIGTERM
        assert len(ended) == 2
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", number)

    run(check())


STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.alarm(25)
print('{"type": "Ready"}', flush=True)
while True:
    signal.pause()
"""


def test_a_worker_that_does_not_end_is_killed_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(server=ServerSettings(workers=2, drain_s=600))

    async def check() -> None:
        clock = StillClock()
        port = server.reserve("127.0.0.1", 0)
        async with Workers(
            [sys.executable, "-c", STUBBORN],
            settings,
            Source(None, {}),
            port=port,
            metrics_directory=str(tmp_path),
            clock=clock,
        ) as both:
            assert await both.ready()
            both.go_down()
            await clock.advance(600.0)
            assert caplog.messages == []
            await clock.advance(KILL_GRACE_S)
            with pytest.raises(DrovewayError, match="ended by SIGKILL while going down"):
                await both.gone()
        assert len(caplog.messages) == 2
        assert all("does not end, and is killed" in each for each in caplog.messages)

    run(check())


# When it is started again.


def test_every_end_makes_the_pause_longer_up_to_a_bound() -> None:
    restarts = Restarts()
    pauses = [restarts.pause_s(now * 100.0, ready_at=now * 100.0 - 1.0) for now in range(12)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == PAUSE_MAX_S


def test_a_worker_that_served_for_long_is_started_again_at_once() -> None:
    restarts = Restarts()
    for _ in range(6):
        restarts.pause_s(0.0, ready_at=0.0)
    assert restarts.pause_s(STEADY_S, ready_at=0.0) == 0.1


def test_only_ends_in_a_row_and_close_together_are_too_many() -> None:
    never_ready = [None] * (EARLY_ENDS_MAX - 1)
    in_a_row, interrupted, slow = Restarts(), Restarts(), Restarts()
    for ready_at in never_ready:
        assert in_a_row.pause_s(1.0, ready_at=ready_at)
        assert interrupted.pause_s(1.0, ready_at=ready_at)
        assert slow.pause_s(1.0, ready_at=ready_at)
    assert in_a_row.pause_s(1.0, ready_at=None) is None
    assert interrupted.pause_s(1.0, ready_at=0.5) is not None
    assert interrupted.pause_s(1.0, ready_at=None) is not None
    assert slow.pause_s(100.0, ready_at=None) is not None
