"""This file knows the ways in which a request can end, and callers who bring each of them about."""

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal, NamedTuple

from door import HI, SECRET
from droveway.gateway.server import Served
from droveway.sandbox import Profile

Caller = Literal["reads", "leaves midway", "leaves at once", "reads slowly", "is slow and leaves"]

PACED: Final = Profile(
    first_token_s=0.005, first_token_sigma=0.0, token_s=0.002, token_sigma=0.0,
    answer_tokens=20, answer_sigma=0.0,
)  # fmt: skip
# More than the outbox and the socket hold.
LONG: Final = Profile(instant=True, tokens_per_chunk=2_000, answer_tokens=120_000, answer_sigma=0.0)
SMALL_BUFFER_BYTES: Final = 8_192
SOON_S: Final = 0.03


class Ending(NamedTuple):
    """One way in which a request can end.

    Attributes:
        model: What is asked; the sandbox's faults are models.
        caller: What the caller does.
        path: Where it asks.
        key: With which key.
        sent: What is sent instead of a request.
        turns: How many requests come on the connection, all at once.
        profile: How the vendor answers.
        concurrency: How many requests the vendor takes at once, where that matters.
        total_s: How long a call may take.
        drains: Whether an answer goes on whose caller is gone.
    """

    model: str = "good"
    caller: Caller = "reads"
    path: str = "/v1/chat/completions"
    key: str = SECRET
    sent: bytes = b""
    turns: int = 1
    profile: Profile = PACED
    concurrency: int | None = None
    total_s: float = 2.0
    drains: bool = False


ENDINGS: Final[Mapping[str, Ending]] = {
    "completed": Ending(),
    "three on one connection": Ending(turns=3),
    "embeddings": Ending(path="/v1/embeddings"),
    "cut": Ending("fault-cut-event:3"),
    "reset": Ending("fault-cut-event-rst:3"),
    "without a finish": Ending("fault-end-without-finish"),
    "refused, then good": Ending("fault-429-ms:20@1"),
    "refused until it is too late": Ending("fault-429-seconds:1", total_s=0.5),
    "failed, then good": Ending("fault-500@1"),
    "failed until the line breaks": Ending("fault-500", total_s=1.0),
    "shut out": Ending("fault-401"),
    "a request that the vendor does not take": Ending("fault-400"),
    "hung up": Ending("fault-hang-up", total_s=0.5),
    "stalled": Ending("fault-stall:3"),
    "never begun": Ending("fault-stall:0"),
    "too long in all": Ending("fault-slow-tokens:0.05", total_s=0.2),
    "few lines that are no JSON": Ending("fault-malformed:2"),
    "many lines that are no JSON": Ending("fault-malformed:9"),
    "a body that is no JSON": Ending("fault-malformed-body"),
    "an error in the stream": Ending("fault-error-event:3"),
    "a page of HTML": Ending("fault-html-200"),
    "the caller left midway": Ending(caller="leaves midway"),
    "the caller left before the head": Ending("fault-stall:0", caller="leaves at once"),
    "the caller left a stall": Ending("fault-stall:3", caller="leaves midway"),
    "the caller left between attempts": Ending("fault-500", caller="leaves at once"),
    "the caller left, and it was drained": Ending(caller="leaves midway", drains=True),
    "a slow caller": Ending(caller="reads slowly", profile=LONG),
    "a slow caller left": Ending(caller="is slow and leaves", profile=LONG),
    "a slow caller left after the end": Ending(
        caller="is slow and leaves", profile=LONG, total_s=0.1
    ),
    "in line": Ending(concurrency=1),
    "the caller left the line": Ending("fault-stall:2", caller="leaves at once", concurrency=1),
    "no such path": Ending(path="/v1/other"),
    "not with this method": Ending(path="/v1/models"),
    "no such key": Ending(key="dw_other"),
    "no HTTP": Ending(sent=b"\x00 no HTTP\r\n\r\n"),
    "half a head": Ending(sent=b"POST /v1/chat/comp", caller="leaves at once"),
    "half a body": Ending(
        sent=b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
        b"content-length: 99\r\n\r\n{" % SECRET.encode(),
        caller="leaves at once",
    ),
}


async def bring_about(ending: Ending, server: Served, *, stream: bool) -> None:
    """Connect, ask, behave as the ending has it, and close the connection."""
    host, port = server.url.removeprefix("http://").split(":")
    slow = ending.caller in {"reads slowly", "is slow and leaves"}
    with socket.socket() as made:
        if slow:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=made, limit=SMALL_BUFFER_BYTES)
        if slow:
            await _narrow(server, made.getsockname()[1])
        writer.write(ending.sent or _requests(ending, stream=stream))
        with suppress(ConnectionError):  # the gateway may cut as well as say so
            await _read(ending, reader)
        if ending.caller in {"reads", "reads slowly"}:
            writer.close()
        else:
            writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _requests(ending: Ending, *, stream: bool) -> bytes:
    asked = {"model": ending.model, "messages": HI, "stream": stream}
    if ending.path.endswith("embeddings"):
        asked = {"model": ending.model, "input": "words"}
    body, whole = json.dumps(asked).encode(), b""
    for turn in range(ending.turns):
        close = b"connection: close\r\n" if turn == ending.turns - 1 else b""
        whole += (
            b"POST %b HTTP/1.1\r\nhost: x\r\n%bauthorization: Bearer %b\r\ncontent-length: %d"
            b"\r\n\r\n%b" % (ending.path.encode(), close, ending.key.encode(), len(body), body)
        )
    return whole


async def _read(ending: Ending, reader: asyncio.StreamReader) -> None:
    if ending.caller == "leaves at once":
        await asyncio.sleep(SOON_S)
    elif ending.caller == "leaves midway":
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(200)
    elif ending.caller == "is slow and leaves":
        await reader.read(1_000)
        await asyncio.sleep(10 * SOON_S)
    else:
        if ending.caller == "reads slowly":
            await asyncio.sleep(10 * SOON_S)
        while await reader.read(2**16):
            pass


async def _narrow(server: Served, port: int) -> None:
    """Let the kernel hold little of what the gateway writes to the caller at a port."""
    while True:
        for each in server._connections:
            transport = each._transport
            if transport is not None and transport.get_extra_info("peername")[1] == port:
                its_socket = transport.get_extra_info("socket")
                its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
                return
        await asyncio.sleep(0)
