"""This file knows what is sampled in a soak: the gateway's process, its page, what callers saw."""

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlparse

import msgspec

from droveway.cli.percentile import percentile
from servers import cpu_s, process_tree
from soak_callers import Tally
from soak_verdict import Point

SCRAPE_S: Final = 10.0
_GAUGE: Final = r"^{} (\S+)$"


class Window(msgspec.Struct, kw_only=True):
    """What was so in one window; None where it could not be had.

    Attributes:
        at_s: When it ended, since the start.
        rss_mb: Memory of the gateway's process.
        descriptors: Its open files and sockets.
        tasks: Tasks of its event loop, as it says itself.
        in_flight: Requests on their way there, as it says itself.
        cpu: What share of a core it took, in percent.
        open: Requests of the callers that are on their way.
        asked: Requests that have ended since the start.
        first_p50: Milliseconds to the first event of good answers; likewise the following.
        first_p99: The slowest hundredth.
        gap_p50: Milliseconds between their events.
        gap_p99: The slowest hundredth.
    """

    at_s: float
    rss_mb: float
    descriptors: int
    tasks: float | None
    in_flight: float | None
    cpu: float
    open: int
    asked: int
    first_p50: float | None
    first_p99: float | None
    gap_p50: float | None
    gap_p99: float | None


class Watch:
    """Takes samples of a gateway.

    Args:
        url: Where it listens.
        pid: Its process.
        tally: What its callers see.
    """

    def __init__(self, url: str, pid: int, tally: Tally) -> None:
        self.windows: list[Window] = []
        self._url = url
        self._pid = pid
        self._tally = tally
        self._began = self._at = time.monotonic()
        self._cpu_s = cpu_s(pid)

    async def sample(self) -> Window:
        """End a window.

        Raises:
            FileNotFoundError: The process is gone.
        """
        tasks, in_flight = await self.gauges()
        now, used_s = time.monotonic(), cpu_s(self._pid)
        tally = self._tally
        first, tally.first_ms = tally.first_ms, []
        gaps, tally.gaps_ms = tally.gaps_ms, []
        window = Window(
            at_s=now - self._began,
            rss_mb=rss_mb(self._pid),
            descriptors=descriptors(self._pid),
            tasks=tasks,
            in_flight=in_flight,
            cpu=100 * (used_s - self._cpu_s) / (now - self._at),
            open=tally.open,
            asked=tally.asked,
            first_p50=percentile(first, 50),
            first_p99=percentile(first, 99),
            gap_p50=percentile(gaps, 50),
            gap_p99=percentile(gaps, 99),
        )
        self._at, self._cpu_s = now, used_s
        self.windows.append(window)
        return window

    async def gauges(self) -> tuple[float | None, float | None]:
        """Tasks, and requests in flight, as `/metrics` tells them; None where it is silent."""
        try:
            async with asyncio.timeout(SCRAPE_S):
                page = await _get(self._url, "/metrics")
        except (OSError, TimeoutError):
            return None, None
        return _gauge(page, "droveway_tasks"), _gauge(page, "droveway_requests_in_flight")


def series(windows: Sequence[Window], name: str) -> list[Point]:
    """The values of one quantity, where there are any."""
    found = ((each.at_s, getattr(each, name)) for each in windows)
    return [(at_s, float(value)) for at_s, value in found if value is not None]


def rss_mb(pid: int) -> float:
    """Memory of a process and what it started, in MB."""
    total_kb = 0
    for each in process_tree(pid):
        status = Path(f"/proc/{each}/status").read_text()
        total_kb += sum(map(int, re.findall(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)))
    return total_kb / 1024


def descriptors(pid: int) -> int:
    """Open descriptors of a process and what it started."""
    return sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in process_tree(pid))


async def _get(url: str, path: str) -> str:
    where = urlparse(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return (await reader.read()).decode()
    finally:
        writer.close()


def _gauge(page: str, name: str) -> float | None:
    found = re.search(_GAUGE.format(name), page, re.MULTILINE)
    return float(found[1]) if found else None
