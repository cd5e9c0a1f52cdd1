"""Whole answers that are no JSON in every way there is: an error at once, never a hang."""

import asyncio

import pytest

from droveway.engine.engine import Engine
from droveway.errors import BadRequestError, ProtocolError
from droveway.settings import Timeout
from lab import ask, converse, run, terms

PATIENT = Timeout(connect_s=5, first_token_s=20, idle_s=20, total_s=20)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b"[" * 100_000, b'{"choices": 3}', b"null", b'{"error": {"a": "\xff"}}'],
    ids=["empty", "bad utf-8", "deep", "wrong type", "null", "bad utf-8 inside"],
)
def test_a_whole_answer_that_is_no_json_fails_at_once(body: bytes) -> None:
    async def check() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            head = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            )
            writer.write(head % len(body) + body)
            await writer.drain()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, Engine.at(f"http://127.0.0.1:{port}/v1") as engine:
            async with asyncio.timeout(5):
                exchange, _ = await converse(engine, ask(), terms(timeout=PATIENT))
            assert isinstance(exchange.error, ProtocolError)

    run(check())


def test_a_request_that_json_cannot_hold_is_told_before_anything_is_sent() -> None:
    async def check() -> None:
        async with Engine.at("http://127.0.0.1:9/v1") as engine:
            exchange, _ = await converse(engine, ask("\ud800"))
            assert isinstance(exchange.error, BadRequestError)
            assert engine.line_of(engine.plan("deepseek-flash")[0]).pacer.in_flight == 0

    run(check())
