"""This file knows how to drive wrk: the same POST over so many connections, and what came of it."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from servers import MODEL, Target, cores, cpu_s

SCRIPT: Final = """
local file = assert(io.open("%s", "rb"))
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests":%%d,"duration_us":%%d,"failed":%%d,"p50_us":%%d,"p99_us":%%d}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Run(msgspec.Struct, kw_only=True):
    """One run of wrk.

    Attributes:
        requests: How many were answered.
        duration_us: How long it ran.
        failed: How many were not answered with 2xx.
        p50_us: Median latency.
        p99_us: Its 99th percentile.
        server_cpu_s: What the server's process tree used meanwhile.
    """

    requests: int
    duration_us: int
    failed: int
    p50_us: int
    p99_us: int
    server_cpu_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.duration_us * 1e6

    @property
    def cpu_us(self) -> float:
        """CPU of the server for one request."""
        return self.server_cpu_s / self.requests * 1e6

    @property
    def core_share(self) -> float:
        """How much of a core the server used: near 1 means that nothing else held it up."""
        return self.server_cpu_s / self.duration_us * 1e6


def chat_body(size: int) -> bytes:
    """A whole chat of about so many bytes; a large one is a long conversation, as agents send."""
    turn = "The tool returned 14 rows; the third one has no price, so the sum is open. " * 10
    messages = [{"role": "system", "content": "You are a careful assistant."}]
    while size - len(msgspec.json.encode(messages)) > len(turn) + 100:
        role = "user" if len(messages) % 2 else "assistant"
        messages.append({"role": role, "content": turn})
    last = {"role": "user", "content": ""}
    asked = {"model": MODEL, "messages": [*messages, last]}
    last["content"] = "x" * max(1, size - len(msgspec.json.encode(asked)))
    return msgspec.json.encode(asked)


def drive(folder: Path, target: Target, *, body: bytes, connections: int, seconds: float) -> Run:
    """Run wrk on core 1 against a target."""
    (folder / "body").write_bytes(body)
    script = folder / "post.lua"
    script.write_text(SCRIPT % (folder / "body", target.key))
    command = ["taskset", "-c", str(cores()[1]), "wrk", "-t1", f"-c{connections}"]
    before = cpu_s(target.pid)
    ended = subprocess.run(
        [*command, f"-d{seconds:g}s", "-s", str(script), f"{target.whole}/chat/completions"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode:
        sys.exit(f"wrk failed: {ended.stderr.strip() or ended.stdout.strip()}")
    run = msgspec.json.decode(ended.stdout.strip().splitlines()[-1], type=Run)
    run.server_cpu_s = cpu_s(target.pid) - before
    if run.failed or not run.requests:
        sys.exit(f"{target.name}: {run.failed} of {run.requests} requests failed")
    return run
