"""This file knows how fast the transport is alone: requests a second and CPU a request, one core.

A static upstream, no more than a protocol that answers the same bytes, runs in a child process on
core 1; the pool runs on core 0 and keeps so many requests in flight as there are connections.
"""

import argparse
import asyncio
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

from droveway.clock import SystemClock
from droveway.errors import UpstreamError
from droveway.transport import Origin, Pool, Request, ResponseHead
from droveway.transport.message import request_bytes

BODY = b'{"object":"chat.completion","choices":[]}'.ljust(1092)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY
HEADERS = (("Authorization", "Bearer sk-benchmark"), ("Content-Type", "application/json"))


class Static(asyncio.Protocol):
    """Answers once so many bytes came as one request has."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; uvloop's is no subclass of asyncio's."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Count; answer each request that is whole."""
        self.got += len(data)
        while self.got >= self.length:
            self.got -= self.length
            self.transport.write(ANSWER)


async def serve(listener: socket.socket, length: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Static(length), sock=listener)
    await server.serve_forever()


class Loader:
    """One of the callers: a sink that wakes its task when the answer is whole."""

    def __init__(self) -> None:
        self.whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.body_bytes = 0

    def on_head(self, head: ResponseHead) -> None:
        """Keep the status."""
        self.status = head.status

    def on_chunk(self, data: bytes) -> None:
        """Count the body."""
        self.body_bytes += len(data)

    def on_done(self) -> None:
        """Wake the caller."""
        self.whole.set_result(None)

    def on_error(self, error: UpstreamError) -> None:
        """Wake the caller with what went wrong."""
        self.whole.set_exception(error)


async def measure(port: int, *, connections: int, seconds: float) -> dict[str, float]:
    pool = Pool(clock=SystemClock())
    request = Request("POST", Origin("http", "127.0.0.1", port), "/v1/chat", HEADERS, b"x" * 1000)
    done = 0
    until = 0.0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < until:
            sink = Loader()
            await pool.send(request, sink)
            await sink.whole
            assert sink.status == 200
            assert sink.body_bytes == len(BODY)
            done += 1

    async def phase(phase_s: float) -> tuple[int, float, float]:
        nonlocal done, until
        done, until = 0, time.perf_counter() + phase_s
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.gather(*(caller() for _ in range(connections)))
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        return done, time.perf_counter() - began, cpu

    await phase(0.3)
    runs = [await phase(seconds) for _ in range(3)]
    await pool.aclose()
    return {
        "connections": connections,
        "requests_per_s": round(statistics.median(n / wall for n, wall, _ in runs)),
        "cpu_us_per_request": round(statistics.median(c / n * 1e6 for n, _, c in runs), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--request-bytes", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if chosen.serve is not None:
        os.sched_setaffinity(0, {cores[-1]})
        uvloop.run(serve(socket.socket(fileno=chosen.serve), chosen.request_bytes))
        return
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    command = [sys.executable, __file__, "--serve", str(listener.fileno())]
    command += ["--request-bytes", str(_request_bytes(port))]
    upstream = subprocess.Popen(command, pass_fds=(listener.fileno(),))
    os.sched_setaffinity(0, {cores[0]})
    try:
        result = uvloop.run(measure(port, connections=chosen.connections, seconds=chosen.seconds))
    finally:
        upstream.terminate()
        upstream.wait()
        listener.close()
    print(
        f"{result['connections']} connections: {result['requests_per_s']:,} requests/s,"
        f" {result['cpu_us_per_request']} µs CPU a request"
    )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")


def _request_bytes(port: int) -> int:
    origin = Origin("http", "127.0.0.1", port)
    return len(request_bytes(Request("POST", origin, "/v1/chat", HEADERS, b"x" * 1000)))


if __name__ == "__main__":
    main()
