"""This file knows the servers of a side by side run: how they start, are pinned, cost and end.

Core 0 is the gateway's, whichever is measured; core 1 is for what stands behind and before it.
nginx is two of them: a static vendor that answers every POST with the same bytes, and the
reference, a reverse proxy to the same vendors that neither authenticates nor reads JSON.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from upstream import WHOLE

HERE: Final = Path(__file__).parent
MODEL: Final = "deepseek-flash"
PACED_MODEL: Final = "paced"
SLOW_MODEL: Final = "slow"
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
START_S: Final = 20.0
SLOW_TOKENS: Final = 300
SLOW_PACE_S: Final = 0.2
# So high that no limit is reached, so that each is evaluated for every request all the same.
KEY_LIMITS: Final = ("--rpm", "100000000", "--tpm", "1000000000000", "--concurrency", "100000")


class Upstreams(NamedTuple):
    """Ports of the vendors: one answers at once, one streams at a pace, one streams slowly."""

    whole: int
    paced: int
    slow: int


class Target(NamedTuple):
    """What is asked.

    Attributes:
        name: "direct", "nginx" or "droveway".
        pid: Root of its process tree; 0 where nothing stands in between.
        whole: Base URL for answers at once; likewise the following.
        paced: For paced streams.
        slow: For slow streams.
        key: Its key.
    """

    name: str
    pid: int
    whole: str
    paced: str
    slow: str
    key: str = "none"


@cache
def cores() -> tuple[int, int]:
    """The core of the gateway, and the core of everything else; the same where there is one."""
    # Asked once: later this process is pinned itself.
    usable = os.sched_getaffinity(0)
    return min(usable), max(usable)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on one core; what is started meanwhile stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def process_tree(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds of a process tree so far, all threads, user and kernel; 0 of no process."""
    return sum(map(_own_cpu_s, process_tree(pid))) if pid else 0.0


def _own_cpu_s(pid: int) -> float:
    # The name stands in parentheses and may hold anything; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def memory_mb(pid: int, kind: str) -> float:
    """`Pss` or `Rss` of a process tree in MB."""
    total_kb = 0
    for each in process_tree(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                total_kb += int(line.split()[1])
    return total_kb / 1024


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    until = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            if time.monotonic() > until:
                sys.exit(f"nothing listens on port {port} after {START_S:g} s; see its error log")
            time.sleep(0.01)
        else:
            return


@contextmanager
def _running(command: list[str], core: int, log: Path) -> Iterator[subprocess.Popen[str]]:
    with on_core(core), log.open("w") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    with child:
        try:
            yield child
        finally:
            _stop(child)


def _stop(child: subprocess.Popen[str]) -> None:
    """Stop a server; asked a second time, the gateway does not wait for a balancer to notice."""
    for wait_s in (0.3, START_S):
        child.terminate()
        try:
            child.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue
        return
    child.kill()


@contextmanager
def python_vendor(folder: Path, tokens: int, pace_s: float) -> Iterator[int]:
    """Run `upstream.py` on core 1; yields its port."""
    command = [sys.executable, str(HERE / "upstream.py"), str(tokens), str(pace_s)]
    with _running(command, cores()[1], folder / f"vendor_{pace_s}.log") as child:
        assert child.stdout is not None
        yield int(child.stdout.readline().rpartition(":")[2].partition("/")[0])


@contextmanager
def nginx(folder: Path, core: int, servers: str) -> Iterator[int]:
    """Run nginx with one worker; yields the pid of its master."""
    folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"""
daemon off; worker_processes 1; worker_rlimit_nofile 16384; pid {folder}/pid;
{"user root;" if os.geteuid() == 0 else ""}
error_log {folder}/error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/json; server_tokens off; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  client_max_body_size 32m; client_body_buffer_size 1m; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  {servers}
}}
"""
    )
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with _running([*command, "-e", str(folder / "error.log")], core, folder / "stderr") as child:
        yield child.pid


@contextmanager
def upstreams(folder: Path, *, tokens: int, pace_s: float) -> Iterator[Upstreams]:
    """Run the vendors on core 1; without nginx the one that answers at once is Python too."""
    with ExitStack() as stack:
        if shutil.which("nginx"):
            whole = free_port()
            answer = f"return 200 '{WHOLE.decode()}';"
            server = f"server {{ listen 127.0.0.1:{whole} backlog=2048; {answer} }}"
            stack.enter_context(nginx(folder / "static", cores()[1], server))
            wait_for(whole)
        else:
            whole = stack.enter_context(python_vendor(folder, 1, 0.0))
        paced = stack.enter_context(python_vendor(folder, tokens, pace_s))
        slow = stack.enter_context(python_vendor(folder, SLOW_TOKENS, SLOW_PACE_S))
        yield Upstreams(whole, paced, slow)


@contextmanager
def reference(folder: Path, behind: Upstreams) -> Iterator[Target]:
    """Run nginx as reverse proxy on core 0."""
    ports = [free_port() for _ in behind]
    blocks = [
        f"upstream vendor{port} {{ server 127.0.0.1:{port}; keepalive 1024;"
        " keepalive_requests 1000000000; }"
        f" server {{ listen 127.0.0.1:{own} backlog=2048; location / {{"
        f" proxy_pass http://vendor{port}; proxy_http_version 1.1;"
        ' proxy_set_header Connection "";'
        f" proxy_buffering {'on' if port == behind.whole else 'off'}; }} }}"
        for port, own in zip(behind, ports, strict=True)
    ]
    with nginx(folder / "reference", cores()[0], "\n".join(blocks)) as pid:
        for port in ports:
            wait_for(port)
        yield Target("nginx", pid, *(f"http://127.0.0.1:{port}/v1" for port in ports))


def settings(folder: Path, behind: Upstreams, *, billing: bool = False) -> Path:
    """Write the settings of the gateway; the store beside them."""
    folder.mkdir()
    path = folder / "droveway.toml"
    names = zip((MODEL, PACED_MODEL, SLOW_MODEL), behind, strict=True)
    path.write_text(
        f'[storage]\nurl = "sqlite:{folder}/droveway.db"\n'
        f"[billing]\nenabled = {str(billing).lower()}\n"
        + "".join(
            f'[providers.vendor{port}]\nbase_url = "http://127.0.0.1:{port}/v1"\n'
            f'models = ["{name}"]\nconcurrency = 4096\n'
            f'[prices."vendor{port}/{name}"]\ninput = "0.15"\noutput = "0.60"\n'
            for name, port in names
        )
    )
    return path


def make_key(config: Path, *, account: str = "") -> str:
    """Make a key with limits, and an account that pays for it; the store comes into being."""
    if account:
        _droveway(config, "accounts", "add", account)
        paid = ("1000000", "--currency", "USD", "--reference", "benchmark")
        _droveway(config, "accounts", "topup", account, *paid)
    payer = ("--account", account) if account else ()
    made = _droveway(config, "keys", "add", "benchmark", *KEY_LIMITS, *payer, "--json")
    return str(json.loads(made)["key"])


def _droveway(config: Path, *words: str) -> str:
    command = [sys.executable, "-m", "droveway", *words, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def gateway(config: Path, key: str) -> Iterator[Target]:
    """Run `droveway serve` on core 0."""
    command = [sys.executable, "-m", "droveway", "serve", "--config", str(config), "--port", "0"]
    with _running(command, cores()[0], config.parent / "serve.log") as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line.startswith("listening on "):
            sys.exit(f"droveway serve did not start: {config.with_name('serve.log').read_text()}")
        url = f"{line.split()[-1]}/v1"
        yield Target("droveway", child.pid, url, url, url, key)


def direct(behind: Upstreams) -> Target:
    """No gateway at all."""
    return Target("direct", 0, *(f"http://127.0.0.1:{port}/v1" for port in behind))
