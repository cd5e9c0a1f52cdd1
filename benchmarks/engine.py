"""This file knows what the engine costs: CPU of our process a chat and a chunk, on one core.

The vendor is `upstream.py` in a child process on core 1; the engine runs on core 0 with uvloop.
CPU is that of this process alone (`getrusage`), so a busy machine changes it little. Every figure
is the median of several rounds in one run; `--json FILE` writes all of them.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from droveway.chat import ChatRequest, Message, TextDelta
from droveway.engine.engine import Engine

HERE = Path(__file__).parent
ASKED = ChatRequest(
    model="deepseek-flash",
    messages=(
        Message(role="system", content="You are a careful assistant. " * 8),
        Message(role="user", content="Tell me about droving, and be brief about it. " * 14),
    ),
)
STREAMED = ChatRequest(model=ASKED.model, messages=ASKED.messages, stream=True)
GOALS = {
    "chat_cpu_ms": 0.3,
    "paced_chunk_cpu_us": 20.0,
    "import_cpu_s": 0.35,
    "import_rss_mb": 45.0,
}


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def vendor(tokens: int, pace_s: float) -> Iterator[str]:
    """Run the static vendor on core 1."""
    command = [sys.executable, str(HERE / "upstream.py"), str(tokens), str(pace_s)]
    cores = os.sched_getaffinity(0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        os.sched_setaffinity(child.pid, {max(cores)})
        os.sched_setaffinity(0, {min(cores)})
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.kill()
            os.sched_setaffinity(0, cores)


async def chats(engine: Engine, count: int, at_once: int) -> None:
    """Ask for whole answers, so many at once."""

    async def ask() -> None:
        for _ in range(count // at_once):
            await engine.chat(ASKED)

    await asyncio.gather(*(ask() for _ in range(at_once)))


async def streams(engine: Engine, count: int) -> int:
    """Read so many streams at once; return how many chunks came."""

    async def read() -> int:
        exchange = await engine.begin(STREAMED)
        return sum([isinstance(event, TextDelta) async for event in engine.events(exchange)])

    return sum(await asyncio.gather(*(read() for _ in range(count))))


async def measured(rounds: int, work: Callable[[], Awaitable[int]]) -> list[float]:
    """CPU seconds a unit of work, of each round."""
    figures = []
    for _ in range(rounds):
        before = cpu_s()
        units = await work()
        figures.append((cpu_s() - before) / units)
    return figures


async def chat_cost(rounds: int) -> list[float]:
    """CPU ms of one whole chat through the full engine, 16 at once."""
    with vendor(1, 0) as url:
        async with Engine.at(url) as engine:
            await chats(engine, 320, 16)

            async def work() -> int:
                await chats(engine, 3_200, 16)
                return 3_200

            return [figure * 1e3 for figure in await measured(rounds, work)]


async def chunk_cost(rounds: int) -> list[float]:
    """CPU us of one chunk, 100 streams open, a chunk of each every 20 ms."""
    with vendor(150, 0.02) as url:
        async with Engine.at(url) as engine:
            await streams(engine, 10)
            return [figure * 1e6 for figure in await measured(rounds, lambda: streams(engine, 100))]


def import_cost(rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds and resident MB of a process that only imports the package."""
    code = (
        "import resource as r, droveway; u = r.getrusage(r.RUSAGE_SELF);"
        "print(u.ru_utime + u.ru_stime, u.ru_maxrss / 1024)"
    )
    lines = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(rounds)
    ]
    pairs = [tuple(map(float, line.stdout.split())) for line in lines]
    return [cpu for cpu, _ in pairs], [rss for _, rss in pairs]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    import_cpu, import_rss = import_cost(told.rounds)
    figures = {
        "chat_cpu_ms": uvloop.run(chat_cost(told.rounds)),
        "paced_chunk_cpu_us": uvloop.run(chunk_cost(told.rounds)),
        "import_cpu_s": import_cpu,
        "import_rss_mb": import_rss,
    }
    print(f"{'figure':22} {'median':>9} {'least':>9} {'most':>9} {'goal':>9}")
    for name, values in figures.items():
        row = (statistics.median(values), min(values), max(values), GOALS[name])
        print(f"{name:22}" + "".join(f" {value:9.3f}" for value in row))
    if told.json is not None:
        told.json.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
