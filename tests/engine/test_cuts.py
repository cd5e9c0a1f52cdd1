"""A stream without its finish marker is never passed off as complete: cut everywhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from droveway.chat import TextDelta
from droveway.engine.engine import Engine
from droveway.errors import StreamTruncatedError
from droveway.sandbox import Profile, stream_bytes
from lab import ONCE, QUICK, ask, converse, lab, run, terms, undaunted_engine

RECORDED = stream_bytes(
    {
        "model": "deepseek-flash",
        "messages": [{"role": "user", "content": "Grüße, 请用中文回答。"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    profile=Profile(instant=True, answer_tokens=10, reasoning_tokens=3),
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def replaying() -> AsyncIterator[tuple[Engine, list[int]]]:
    """A vendor that sends the recorded stream as far as the list's last entry says."""
    upto = [len(RECORDED)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        await reader.readexactly(length)
        writer.write(HEAD + RECORDED[: upto[-1]])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, undaunted_engine(f"http://127.0.0.1:{port}/v1") as engine:
        yield engine, upto


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.long)])
def test_a_stream_cut_at_any_byte_is_whole_or_truncated_and_never_silently_short(step: int) -> None:
    marker = RECORDED.index(b'"finish_reason":"stop"')
    whole_from = RECORDED.index(b"\n\n", marker) + 2

    async def check() -> None:
        async with replaying() as (engine, upto):
            for cut in {*range(0, len(RECORDED) + 1, step), *range(marker, whole_from + 9)}:
                upto.append(cut)
                exchange, events = await converse(engine, ask(stream=True))
                text = "".join(event.text for event in events if isinstance(event, TextDelta))
                if cut >= whole_from:
                    assert exchange.error is None, f"cut at {cut}"
                    assert exchange.answer is not None
                    assert exchange.answer.text == text
                else:
                    assert type(exchange.error) is StreamTruncatedError, f"cut at {cut}"
                    assert exchange.error.partial.text == text
                    assert exchange.answer is None

    assert 1_500 < len(RECORDED) < 20_000
    run(check(), within_s=100)


@pytest.mark.parametrize("kind", ["cut-event", "cut-event-rst", "close-delimited-cut"])
def test_a_stream_cut_at_any_event_is_truncated(kind: str) -> None:
    async def check() -> None:
        async with lab() as (box, engine):
            whole, _ = await converse(engine, ask(model="fault-finish-twice", stream=True))
            assert whole.answer is not None
            events = box.journal[0].events_sent
            finish_at = events - 4  # finish, finish, usage, [DONE]
            for cut in range(events + 1):
                model = f"fault-{kind}:{cut}"
                exchange, _ = await converse(engine, ask(model=model, stream=True))
                if exchange.error is None:
                    assert cut > finish_at - 1, f"cut after {cut} events"
                else:
                    assert type(exchange.error) is StreamTruncatedError, f"cut after {cut}"

    run(check(), within_s=60)


@pytest.mark.parametrize("kind", ["stall", "stall-keepalive"])
def test_a_stall_at_any_of_the_first_events_names_its_phase(kind: str) -> None:
    async def check() -> None:
        async with lab() as (_, engine):
            models = [f"fault-{kind}:{event}" for event in range(6)]
            ended = await asyncio.gather(
                *(converse(engine, ask(model=model, stream=True)) for model in models)
            )
            phases = [getattr(exchange.error, "phase", None) for exchange, _ in ended]
            assert phases == ["first_token"] + ["idle"] * 5

    run(check())


def test_keepalive_comments_do_not_reset_the_idle_clock() -> None:
    """Vendor quirk (DeepSeek, 2026-11): comments come for as long as the socket is open."""

    async def check() -> None:
        async with lab() as (_, engine):
            exchange, _ = await converse(
                engine, ask(model="fault-stall-keepalive:3", stream=True), terms(ONCE)
            )
            assert exchange.row is not None
            assert exchange.row.total_ms < (QUICK.total_s - 1) * 1000

    run(check())
