"""A request leaves no circle of objects: bodies would wait in memory for the collector."""

import asyncio
import gc
import json

import pytest

from door import HI, SECRET, door
from lab import run

OURS = "droveway."
NOT_THE_GATEWAY = "droveway.sandbox"


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send one request on a kept connection, and read its answer to the end."""
    body = json.dumps({"model": "plain", "messages": HI, "stream": True}).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
        b"content-length: %d\r\n\r\n%b" % (SECRET.encode(), len(body), body)
    )
    while await reader.readline() != b"0\r\n":
        pass
    await reader.readline()


@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_a_request_that_has_ended_leaves_nothing_to_the_collector(kind: str) -> None:
    async def check() -> None:
        async with door() as it, it.sdk as sdk:
            host, port = it.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))

            async def once() -> None:
                if kind == "stream":
                    await ask(reader, writer)
                else:
                    await sdk.chat.completions.create(model="plain", messages=HI)

            await once()
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                for _ in range(5):
                    await once()
                while it.engine.open_exchanges:
                    await asyncio.sleep(0)
                gc.collect()
                left = {f"{type(each).__module__}.{type(each).__name__}" for each in gc.garbage}
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
            ours = {name for name in left if name.startswith(OURS)}
            assert {name for name in ours if not name.startswith(NOT_THE_GATEWAY)} == set()
            writer.close()
            await writer.wait_closed()

    run(check())
