"""This file knows how tests run real gateways as processes, and the vendor that stands behind."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from droveway.clock import SystemClock

TOKEN: Final = "an-operators-own-token"
SECONDS: Final = 20
LOOK_S: Final = 0.02
# Connections are spread over workers by chance: of so many, each of two workers gets some.
EVERYWHERE: Final = 30
KEY: Final = re.compile(r"dw_\w+")
_LENGTH: Final = re.compile(rb"(?i)content-length: *(\d+)")


class Vendor:
    """A vendor that says its name, and keeps those who ask for `held` waiting.

    Attributes:
        name: What its answers consist of.
        may_end: Lets go whom it holds.
        holds: How many it holds.
        bodies: What it was sent.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.may_end = asyncio.Event()
        self.holds = 0
        self.bodies: list[bytes] = []
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = _LENGTH.search(head)
                assert found is not None
                body = await reader.readexactly(int(found[1]))
                self.bodies.append(body)
                asked = json.loads(body)
                if asked.get("stream"):
                    await self._stream(writer, held=asked["model"] == "held")
                else:
                    await self._whole(writer, held=asked["model"] == "held")
        writer.close()

    async def _whole(self, writer: asyncio.StreamWriter, *, held: bool) -> None:
        if held:
            await self._hold()
        said = {"role": "assistant", "content": self.name}
        usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        body = json.dumps({"id": "a", "model": "m", "choices": [choice], "usage": usage}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(body) + body)

    async def _stream(self, writer: asyncio.StreamWriter, *, held: bool) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        writer.write(_chunk({"content": self.name}, None))
        if held:
            await self._hold()
        writer.write(_chunk({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    async def _hold(self) -> None:
        self.holds += 1
        try:
            await self.may_end.wait()
        finally:
            self.holds -= 1


def _chunk(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = b"data: %b\n\n" % json.dumps({"id": "a", "model": "m", "choices": [choice]}).encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


@asynccontextmanager
async def vendor(name: str) -> AsyncIterator[Vendor]:
    """A vendor that listens."""
    made = Vendor(name)
    tasks: set[asyncio.Task[None]] = set()

    def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(made.answer(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(came, "127.0.0.1", 0, backlog=512)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        made.may_end.set()
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Said(msgspec.Struct):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def text(self) -> str:
        """What a vendor said in a whole answer: its name."""
        assert self.status == 200, self.body
        return str(self.told["choices"][0]["message"]["content"])


class Gateway:
    """A gateway with its processes, as seen from outside.

    Attributes:
        process: The one that was started.
        port: Where it listens.
        key: The first key.
        said: The lines of stderr that were read so far.
    """

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.key = ""
        self.said: list[str] = []

    async def told(self, mark: str) -> str:
        """Read stderr up to a line that holds a mark, and return that line."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.said.append(line)
            if mark in line:
                return line
        raise AssertionError(f"{mark!r} was never said: {self.said}")

    async def hang_up(self, mark: str) -> str:
        """Send SIGHUP, and return the line that tells what came of it."""
        self.process.send_signal(signal.SIGHUP)
        return await self.told(mark)

    async def ask(self, body: object, *, token: str = "", line: str = "") -> Said:
        """Ask on a connection of its own, whose end is the answer's."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = b"" if body is None else msgspec.json.encode(body)
        head = (
            f"{line or 'POST /v1/chat/completions'} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            f"authorization: Bearer {token or self.key}\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        try:
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        top, _, rest = answer.partition(b"\r\n\r\n")
        first, *others = top.decode().split("\r\n")
        return Said(int(first.split()[1]), dict(each.split(": ", 1) for each in others), rest)

    async def everywhere(self, body: object) -> list[Said]:
        """Ask on so many connections that every worker gets some."""
        return await asyncio.gather(*(self.ask(body) for _ in range(EVERYWHERE)))

    async def reload(self) -> Said:
        """Ask one of the processes for a reload."""
        return await self.ask(None, token=TOKEN, line="POST /admin/v1/reload")

    def workers(self) -> set[int]:
        """The processes that the parent has now."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return {int(each) for each in children.split()}


@asynccontextmanager
async def serving(*arguments: str, **environ: str) -> AsyncIterator[Gateway]:
    """A gateway in the working directory; whatever fails, none of its processes is left."""
    process = await asyncio.create_subprocess_exec(
        *droveway("serve", "--port", "0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(Path.cwd()), "ADMIN": TOKEN, **environ},
    )
    children: set[int] = set()
    assert process.stdout is not None
    try:
        first = (await process.stdout.readline()).decode()
        assert first.startswith("listening on "), (await process.communicate())[1]
        gateway = Gateway(process, int(first.rsplit(":", 1)[1]))
        await gateway.told("curl")
        found = KEY.search("".join(gateway.said))
        gateway.key = found[0] if found else ""
        gateway.said.clear()
        yield gateway
        children = gateway.workers()
        # Nothing is on its way, so there is nobody to give notice to: the second one hurries it.
        for number in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
        rest = (await process.communicate())[1].decode()
        gateway.said += rest.splitlines(keepends=True)
        assert "Traceback" not in rest, rest
    finally:
        for pid in children | ({process.pid} if process.returncode is None else set()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.returncode is None:
            await process.communicate()


def droveway(*arguments: str) -> Sequence[str]:
    """The words of a command of its own process."""
    return [sys.executable, "-m", "droveway", *arguments]


async def command(*arguments: str) -> str:
    """Run a command to its end, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *droveway(*arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return out.decode()


async def until(true: Any, what: str) -> None:
    """Look again and again, but not for ever; `true` may be a coroutine function."""
    clock = SystemClock()
    deadline = clock.monotonic() + SECONDS
    while True:
        found = true()
        if await found if asyncio.iscoroutine(found) else found:
            return
        assert clock.monotonic() < deadline, f"not within {SECONDS} s: {what}"
        await clock.sleep(LOOK_S)
