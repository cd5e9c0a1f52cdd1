"""This file knows what a paced chunk costs with no engine at all: the kernel, uvloop, one wake-up.

The same streams as `engine.py` reads, read by a bare protocol that only counts; then by one that
also wakes a task for each chunk. What the engine adds is the difference.
"""

import asyncio
import statistics
from typing import cast
from urllib.parse import urlparse

import uvloop

from engine import cpu_s, vendor

ASKED = b'POST / HTTP/1.1\r\ncontent-length: 13\r\n\r\n"stream":true'
STREAMS = 100


class Counting(asyncio.Protocol):
    """Counts what comes; wakes a task for it when one waits."""

    def __init__(self) -> None:
        self.pieces = 0
        self.ended = False
        self.waiter: asyncio.Future[None] | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a stream."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(ASKED)

    def data_received(self, data: bytes) -> None:
        """Count."""
        self.pieces += 1
        if b"[DONE]" in data:
            self.ended = True
            self.transport.close()
            self.done.set_result(None)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def each(self) -> None:
        """Wake for each piece."""
        while not self.ended:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter


async def measured(*, waking: bool) -> float:
    """CPU us a piece, 100 streams open."""
    with vendor(150, 0.02) as url:
        where = urlparse(url)
        assert where.hostname is not None
        assert where.port is not None
        loop = asyncio.get_running_loop()
        before = cpu_s()
        pairs = [
            await loop.create_connection(Counting, where.hostname, where.port)
            for _ in range(STREAMS)
        ]
        protocols = [protocol for _, protocol in pairs]
        await asyncio.gather(*(each.each() if waking else each.done for each in protocols))
        return (cpu_s() - before) / sum(each.pieces for each in protocols) * 1e6


def main() -> None:
    """Measure both, five times each."""
    for name, waking in (("bare protocol", False), ("and a task woken", True)):
        figures = [uvloop.run(measured(waking=waking)) for _ in range(5)]
        print(
            f"{name:22} {statistics.median(figures):9.3f} {min(figures):9.3f} {max(figures):9.3f}"
            " us a piece"
        )


if __name__ == "__main__":
    main()
