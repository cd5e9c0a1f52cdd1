"""This file knows what the parts of a streamed chunk cost alone, with warm caches."""

import asyncio
import time
from collections.abc import Callable

import uvloop

from droveway.clock import SystemClock
from droveway.dialects.openai_chat import ChunkReader
from droveway.engine.assembly import provider_at
from droveway.engine.attempt import Attempt
from droveway.engine.bodies import StreamBody, open_body
from droveway.engine.outbox import Outbox
from droveway.settings import Timeout
from droveway.sse import EventParser
from upstream import TOKEN

TIMES = 50_000
EVENT = TOKEN.split(b"\r\n", 1)[1][:-2]


def timed(name: str, work: Callable[[], object]) -> None:
    """Print us a call."""
    began = time.perf_counter()
    for _ in range(TIMES):
        work()
    print(f"{name:28} {(time.perf_counter() - began) / TIMES * 1e6:6.2f} us")


async def main() -> None:
    """Time the parts, then the whole of them, then the wake-up."""
    clock, outbox, events, chunks = SystemClock(), Outbox(), EventParser(), ChunkReader()
    attempt = Attempt(
        provider_at("http://127.0.0.1:9/v1", None),
        open_body=open_body,
        streaming=True,
        outbox=outbox,
        clock=clock,
        loop=asyncio.get_running_loop(),
        timeout=Timeout(),
        total_at=clock.monotonic() + 600,
        retry_after_max_s=1,
    )
    body = StreamBody(attempt)
    events.feed(EVENT)
    timed("events from bytes", lambda: events.feed(EVENT))
    timed("chunk from JSON", lambda: chunks.read(EVENT[6:-2]))

    def whole() -> None:
        body.feed(EVENT)
        outbox.take_now()

    timed("all of it, to the outbox", whole)
    loop = asyncio.get_running_loop()
    (event,) = chunks.read(EVENT[6:-2])
    began = time.perf_counter()
    for _ in range(TIMES):
        loop.call_soon(outbox.put, event, 1)
        await outbox.take()
    print(f"{'waking the reader':28} {(time.perf_counter() - began) / TIMES * 1e6:6.2f} us")
    attempt.watch.stop()


if __name__ == "__main__":
    uvloop.run(main())
