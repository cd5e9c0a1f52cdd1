"""This file knows what the gateway costs beside nginx: one run, one core each, the same vendors.

The gateway (one worker, a key with limits, the journal on) and the reference (nginx as reverse
proxy, one worker) take turns on core 0; vendors and load are on core 1. Each figure is taken in
three rounds, the systems by turns in each, and the table shows medians. Machines differ and are
noisy: what counts is the ratio within the run, and a figure is not judged when something else used
the cores. CPU figures stand that best. `--json FILE` writes every round.
"""

import argparse
import http.client
import os
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlparse

import msgspec
import uvloop

from droveway.bench.bench import Asked, Bench
from droveway.bench.load import Pace
from droveway.bench.report import Report
from droveway.cli import tables
from droveway.clock import SystemClock
from droveway.engine.assembly import provider_at
from droveway.settings import Secret
from goals import Figures, lines, table
from servers import (
    MODEL,
    PACED_MODEL,
    SLOW_MODEL,
    Target,
    cores,
    cpu_s,
    direct,
    gateway,
    make_key,
    memory_mb,
    reference,
    settings,
    upstreams,
)
from wrk import Run, chat_body, drive

TOKENS: Final = 100
PACE_S: Final = 0.02
EVENTS: Final = TOKENS + 3  # finish, usage, [DONE]
STREAMS: Final = 200
OPEN_STREAMS: Final = 1000
MISSING: Final = {
    "nginx": "nginx is missing (Debian: apt-get install nginx-light): no reference, no ratios",
    "wrk": "wrk is missing (Debian: apt-get install wrk): no rows of requests/s and their CPU",
}


def say(text: str) -> None:
    """Tell on stderr how far it is."""
    print(text, file=sys.stderr, flush=True)


class Session:
    """The systems of one run and the figures so far.

    Args:
        folder: Temporary, for settings, stores and logs.
        targets: Whom to measure, by turns.

    Attributes:
        billed: A second gateway, where every request is paid from an account.
    """

    def __init__(self, folder: Path, targets: list[Target]) -> None:
        self.folder = folder
        self.targets = targets
        self.billed: Target | None = None
        self.figures: Figures = defaultdict(lambda: defaultdict(list))

    def note(self, target: Target, **values: float) -> None:
        """Keep figures of a round."""
        for key, value in values.items():
            self.figures[key][target.name].append(value)

    def round(self, *, wrk: bool) -> None:
        """Measure everything that has rounds, each system in turn."""
        if wrk:
            small, large = chat_body(1_000), chat_body(107_000)
            for target in self.targets:
                run = self._drive(target, small, 64)
                self.note(target, rps=run.per_s)
                if target.pid:
                    self.note(target, cpu_us=run.cpu_us, core_share=run.core_share)
                if target.name == "nginx":
                    self.note(target, rps_billed=run.per_s)
            if self.billed is not None:
                run = self._drive(self.billed, small, 64)
                self.note(self.billed, rps_billed=run.per_s, core_share_billed=run.core_share)
            for target in self.targets:
                run = self._drive(target, large, 32)
                self.note(target, rps_large=run.per_s)
                if target.pid:
                    self.note(target, core_share_large=run.core_share)
        for target in self.targets:
            self._latency(target)
        for target in self.targets:
            self._streams(target)

    def _drive(self, target: Target, body: bytes, connections: int) -> Run:
        return drive(self.folder, target, body=body, connections=connections, seconds=2.0)

    def _latency(self, target: Target) -> None:
        pace = Pace(rate=100, warmup_s=0.5, duration_s=3.0)
        report = measured(target, target.whole, asked=Asked(model=MODEL, stream=False), pace=pace)
        told = report.targets[0]
        assert told.answer_ms is not None
        assert told.late_ms is not None
        self.note(target, latency_p50=told.answer_ms.p50, latency_p99=told.answer_ms.p99)
        self.note(target, late_p99=told.late_ms.p99)

    def _streams(self, target: Target) -> None:
        """Have 200 streams open, begun one after the other, and none of them bunched."""
        life_s = TOKENS * PACE_S
        pace = Pace(rate=STREAMS / life_s, connections=4 * STREAMS, warmup_s=life_s, duration_s=3.0)
        before, own, began = cpu_s(target.pid), time.process_time(), time.monotonic()
        report = measured(target, target.paced, asked=Asked(model=PACED_MODEL), pace=pace)
        used, own = cpu_s(target.pid) - before, time.process_time() - own
        told = report.targets[0]
        assert told.first_content_ms is not None
        self.note(
            target,
            ttft_p50=told.first_content_ms.p50,
            ttft_p99=told.first_content_ms.p99,
            load_share=own / (time.monotonic() - began),
        )
        if target.pid:
            self.note(target, chunk_cpu_ms=used / (report.sent * EVENTS) * 1e6)


def measured(target: Target, url: str, *, asked: Asked, pace: Pace) -> Report:
    """Measure one target with the bench room."""
    key = Secret(target.key)

    async def work() -> Report:
        bench = Bench([provider_at(url, key)], asked=asked, pace=pace, clock=SystemClock())
        await bench.run()
        return bench.report()

    report = uvloop.run(work())
    told = report.targets[0]
    if told.errors or not told.ok:
        sys.exit(f"{target.name}: {told.ok} answers, failures {told.errors}; no figure of that")
    return report


def first_answer(target: Target) -> None:
    """Ask until the first 200."""
    where = urlparse(target.whole)
    assert where.hostname is not None
    while True:
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
        connection.request(
            "POST",
            f"{where.path}/chat/completions",
            chat_body(1_000),
            {"authorization": f"Bearer {target.key}", "content-type": "application/json"},
        )
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return
        say(f"{target.name} answered {status}")


@contextmanager
def started(config: Path, key: str, session: Session) -> Iterator[Target]:
    """Start the gateway and note how long it took to the first answer."""
    began = time.monotonic()
    with gateway(config, key) as target:
        first_answer(target)
        session.note(target, start_s=time.monotonic() - began)
        yield target


def note_memory(session: Session, target: Target, when: str) -> None:
    """Note memory; PSS shares what several processes map, RSS counts it whole."""
    pss, rss = memory_mb(target.pid, "Pss"), memory_mb(target.pid, "Rss")
    session.note(target, **{f"{when}_mb": pss, f"{when}_rss_mb": rss})


def open_streams(session: Session, target: Target) -> None:
    """Hold so many streams open, each past its first content, and note the memory."""
    where = urlparse(target.slow)
    asked = {"model": SLOW_MODEL, "messages": [{"role": "user", "content": "Hi."}], "stream": True}
    body = msgspec.json.encode(asked)
    head = (
        f"POST {where.path}/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Authorization: Bearer {target.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with ExitStack() as stack:
        held = []
        for _ in range(OPEN_STREAMS):
            each = socket.create_connection((where.hostname, where.port), timeout=20)
            held.append(stack.enter_context(each))
            each.sendall(head.encode() + body)
        for each in held:
            got = b""
            while b'"content"' not in got:
                data = each.recv(65536)
                if not data or (got and b" 200 " not in got[:20]):
                    sys.exit(f"{target.name} did not open a stream: {(got + data)[:200]!r}")
                got += data
        note_memory(session, target, "open")


def measure(folder: Path, rounds: int) -> Session:
    """Run everything."""
    has = {name: shutil.which(name) is not None for name in MISSING}
    for name, words in MISSING.items():
        if not has[name]:
            say(words)
    with ExitStack() as stack:
        behind = stack.enter_context(upstreams(folder, tokens=TOKENS, pace_s=PACE_S))
        config = settings(folder / "gateway", behind)
        key = make_key(config)
        session = Session(folder, [direct(behind)])
        if has["nginx"]:
            session.targets.append(stack.enter_context(reference(folder, behind)))
        say("starting")
        for _ in range(rounds - 1):
            with started(config, key, session):
                pass
        target = stack.enter_context(started(config, key, session))
        session.targets.append(target)
        for each in session.targets[1:]:
            note_memory(session, each, "idle")
        paying = settings(folder / "billed", behind, billing=True)
        account = make_key(paying, account="benchmark")
        session.billed = stack.enter_context(gateway(paying, account))
        first_answer(session.billed)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            session.round(wrk=has["wrk"])
        say(f"{OPEN_STREAMS} streams")
        for each in session.targets[1:]:
            open_streams(session, each)
        return session


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    told = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if len(set(cores())) < 2:
        say("one core only: server, vendors and load share it, so the ratios say little")
    os.sched_setaffinity(0, {cores()[1]})
    with tempfile.TemporaryDirectory() as folder:
        session = measure(Path(folder), told.rounds)
    tables.show(*table(session.figures))
    if told.json is not None:
        data = {"rows": lines(session.figures), "rounds": session.figures}
        told.json.write_bytes(msgspec.json.format(msgspec.json.encode(data)) + b"\n")


if __name__ == "__main__":
    main()
