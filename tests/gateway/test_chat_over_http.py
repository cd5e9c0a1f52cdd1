"""The gateway over real sockets, with the official SDK and curl as clients, the sandbox behind."""

import asyncio
import gzip
import json
import shutil
import zlib
from typing import Any

import openai
import pydantic
import pytest

from door import HI, SECRET, Door, FakeKey, door, raw
from droveway.sandbox import Rule, Script
from lab import run


def test_the_official_sdk_gets_a_whole_answer_and_what_it_cost() -> None:
    async def check() -> None:
        async with door() as it, it.sdk as sdk:
            got = await sdk.chat.completions.with_raw_response.create(
                model="deepseek-flash", messages=HI
            )
            answer = got.parse()
            assert answer.choices[0].message.content
            assert got.headers["x-droveway-attempts"] == "1"
            assert got.headers["x-droveway-provider"] == "remote"
            row = it.engine.journal.rows[-1]
            assert got.headers["x-droveway-request-id"] == row.id
            assert row.cost is not None
            assert got.headers["x-droveway-cost"] == row.cost.decimal()
            assert (row.key_id, row.tags) == ("key_1", {"team": "blue"})

    run(check())


def test_the_official_sdk_streams_and_the_last_words_tell_the_bill() -> None:
    async def check() -> None:
        async with door() as it, it.sdk as sdk:
            stream = await sdk.chat.completions.create(
                model="deepseek-flash", messages=HI, stream=True
            )
            chunks = [chunk async for chunk in stream]
            assert all(chunk.choices for chunk in chunks), "usage was not asked for"
            assert chunks[-1].choices[0].finish_reason == "stop"
            body = b'{"model":"deepseek-flash","stream":true,"messages":[{"role":"user","content":"a"}]}'
            said = await raw(it, body)
            comment = said.partition(b": droveway ")[2].partition(b"\n")[0]
            told = json.loads(comment)
            assert told["attempts"] == 1
            assert told["cost"] == it.engine.journal.rows[-1].cost.decimal()  # type: ignore[union-attr]
            assert b"data: [DONE]" in said.partition(b": droveway ")[2]

    run(check())


def test_a_usage_chunk_comes_when_it_was_asked_for() -> None:
    async def check() -> None:
        async with door() as it, it.sdk as sdk:
            stream = await sdk.chat.completions.create(
                model="deepseek-flash",
                messages=HI,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
            assert chunks[-1].choices == []
            assert chunks[-1].usage is not None

    run(check())


class Rating(pydantic.BaseModel):
    title: str
    score: int


def test_tools_round_trip_parse_and_models_work_through_the_sdk() -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }

    async def check() -> None:
        async with door() as it, it.sdk as sdk:
            asked: list[Any] = [{"role": "user", "content": "Use add with 3."}]
            first = await sdk.chat.completions.create(model="plain", messages=asked, tools=[tool])  # type: ignore[list-item]
            (call,) = first.choices[0].message.tool_calls or []
            asked += [
                first.choices[0].message,
                {"role": "tool", "tool_call_id": call.id, "content": "42"},
            ]
            second = await sdk.chat.completions.create(model="plain", messages=asked, tools=[tool])  # type: ignore[list-item]
            assert "42" in (second.choices[0].message.content or "")
            parsed = await sdk.chat.completions.parse(
                model="plain",
                messages=HI,
                response_format=Rating,
            )
            assert isinstance(parsed.choices[0].message.parsed, Rating)
            assert [model.id async for model in sdk.models.list()] == ["auto"]
            assert (await sdk.models.retrieve("auto")).id == "auto"
            with pytest.raises(openai.NotFoundError):
                await sdk.models.retrieve("nothing/here")

    run(check())


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("400", openai.BadRequestError, "invalid_request"),
        ("401", openai.InternalServerError, "upstream_failed"),
        ("402", openai.InternalServerError, "upstream_failed"),
        ("403", openai.InternalServerError, "upstream_failed"),
        ("404", openai.NotFoundError, "model_not_found"),
        ("413", openai.APIStatusError, "request_too_large"),
        ("422", openai.UnprocessableEntityError, "invalid_request"),
        ("429-ms:5", openai.RateLimitError, "rate_limited"),
        ("500", openai.InternalServerError, "upstream_failed"),
        ("html-200", openai.InternalServerError, "upstream_failed"),
    ],
)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_every_error_class_of_the_sdk_is_met(
    fault: str, kind: type[openai.APIStatusError], code: str, *, stream: bool
) -> None:
    async def check() -> None:
        async with door() as it, it.sdk as sdk:
            with pytest.raises(kind) as caught:
                await sdk.chat.completions.create(
                    model=f"fault-{fault}@9", messages=HI, stream=stream
                )
            assert caught.value.code == code
            assert "sk-vendor" not in str(caught.value)
            assert caught.value.response.headers["x-droveway-request-id"]

    run(check(), within_s=60)


@pytest.mark.parametrize(
    "body",
    [
        b'{ "messages" : [{"role":"user","content":"\\u0041\\n"}] ,"model":"deepseek-flash" }',
        (
            b'{"x":{"model":"nested"},"model":"deepseek-flash","big":123456789012345678901234567890,'
            b'"messages":[{"role":"user","content":[{"type":"text","text":"a"},'
            b'{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],"seed":1.50}'
        ),
        b'{"messages":[{"role":"user","content":"'
        + b"word " * 21_000
        + b'"}],"model":"deepseek-flash"}',
    ],
    ids=["spaces and escapes", "nested, big, images", "107 KB"],
)
def test_the_bytes_that_arrive_are_the_bytes_that_were_sent(body: bytes) -> None:
    async def check() -> None:
        async with door() as it:
            said = await raw(it, body)
            assert said.startswith(b"HTTP/1.1 200 OK")
            assert it.box.journal[-1].body == body

    run(check())


def test_the_splices_are_the_models_name_and_the_wish_for_usage_and_nothing_else() -> None:
    body = b'{"mod\\u0065l":"remote/deepseek-flash", "stream":true ,"messages":[{"role":"user","content":"a"}]}'
    sent = (
        b'{"mod\\u0065l":"deepseek-flash", "stream":true ,"messages":[{"role":"user","content":"a"}]'
        b',"stream_options":{"include_usage":true}}'
    )

    async def check() -> None:
        async with door() as it:
            await raw(it, body)
            assert it.box.journal[-1].body == sent

    run(check())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b'{"model":"a","model":"b","messages":[]}', 400),
        (b'{"messages":[]}', 400),
        (b'{"model":"a"}', 400),
        (b'{"model":"","messages":[]}', 400),
        (b'{"model":7,"messages":[]}', 400),
        (b'{"model":"a","messages":[],"stream":"yes"}', 400),
        (b'{"model":"a","messages":[],"max_tokens":0}', 400),
        (b'{"model":"a","messages":[],"max_tokens":1e999}', 400),
        (b'{"model":"a","messages":' + b"[" * 100_000, 400),
        (b'{"model":"a\xff","messages":[]}', 400),
    ],
)
def test_a_body_that_cannot_be_used_is_a_typed_400_and_asks_nobody(
    body: bytes, status: int
) -> None:
    async def check() -> None:
        async with door() as it:
            said = await raw(it, body)
            assert int(said.split(b" ")[1]) == status
            told = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
            assert told["code"] == "invalid_request"
            assert it.box.journal == []

    run(check())


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        (["authorization: Bearer wrong"], 401, "invalid_api_key"),
        (["authorization: Basic x"], 401, "invalid_api_key"),
        ([f"x-api-key: {SECRET}", "authorization: Bearer other"], 400, "invalid_request"),
        ([f"authorization: bearer   {SECRET}  "], 200, None),
        ([f"x-api-key:  {SECRET} "], 200, None),
        (["content-encoding: br"], 400, "invalid_request"),
        ([f"x-pad-{n}: y" for n in range(120)], 400, "invalid_request"),
        (["host: second"], 400, "invalid_request"),
    ],
)
def test_keys_and_headers_are_taken_or_refused_as_documented(
    headers: list[str], status: int, code: str | None
) -> None:
    body = json.dumps({"model": "deepseek-flash", "messages": HI}).encode()

    async def check() -> None:
        async with door() as it:
            said = await raw(it, body, *headers)
            assert int(said.split(b" ")[1]) == status
            if code is not None:
                assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == code

    run(check())


def test_a_cut_stream_ends_with_an_error_event_and_without_done() -> None:
    body = json.dumps({"model": "fault-cut-event:5", "stream": True, "messages": HI}).encode()

    async def check() -> None:
        async with door() as it:
            said = await raw(it, body)
            assert b"[DONE]" not in said
            event = json.loads(
                b'{"error"' + said.partition(b'data: {"error"')[2].partition(b"\n")[0]
            )
            assert event["error"]["code"] == "upstream_failed"
            assert event["error"]["retryable"] is True
            assert it.engine.journal.rows[-1].outcome == "failed"

    run(check())


@pytest.mark.parametrize("fault", ["stall:3", "slow-headers"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_caller_that_goes_away_closes_the_vendors_connection(fault: str, *, stream: bool) -> None:
    body = json.dumps({"model": f"fault-{fault}", "stream": stream, "messages": HI}).encode()

    async def check() -> None:
        async with door() as it:
            host, port = it.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
                f"authorization: Bearer {SECRET}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
            async with asyncio.timeout(5):
                while not it.box.open_connections:
                    await asyncio.sleep(0.005)
            writer.close()
            async with asyncio.timeout(2):
                while it.box.open_connections or not it.engine.journal.rows:
                    await asyncio.sleep(0.005)
            row = it.engine.journal.rows[-1]
            assert (row.outcome, row.client_gone) == ("cancelled", True)
            del reader

    run(check())


def test_comments_keep_a_caller_alive_while_the_model_thinks() -> None:
    body = json.dumps({"model": "fault-stall:0@1", "stream": True, "messages": HI}).encode()

    async def check() -> None:
        async with door(keepalive_s=0.1) as it:
            call = asyncio.create_task(raw(it, body))
            await asyncio.sleep(0.5)
            for exchange in list(it.engine._open):
                exchange.give_up()
            said = await call
            assert said.count(b": keep-alive") >= 2

    run(check())


def test_a_key_that_is_over_its_own_limit_is_told_and_touches_nobody() -> None:
    body = json.dumps({"model": "deepseek-flash", "messages": HI}).encode()

    async def check() -> None:
        async with door(FakeKey(rpm=2)) as it:
            said = [await raw(it, body) for _ in range(3)]
            assert [int(each.split(b" ")[1]) for each in said] == [200, 200, 429]
            assert b"retry-after: " in said[2]
            assert len(it.box.journal) == 2

    run(check())


def test_a_key_may_ask_for_its_models_only() -> None:
    body = json.dumps({"model": "deepseek-v4-pro", "messages": HI}).encode()

    async def check() -> None:
        async with door(FakeKey(models=("deepseek-flash",))) as it:
            said = await raw(it, body)
            assert said.startswith(b"HTTP/1.1 403")
            assert it.box.journal == []

    run(check())


def test_going_down_says_so_first_and_lets_streams_end() -> None:
    body = json.dumps({"model": "fault-slow-tokens:0.03", "stream": True, "messages": HI}).encode()

    async def check() -> None:
        async with door() as it:
            call = asyncio.create_task(raw(it, body))
            async with asyncio.timeout(5):
                while not it.box.open_connections:
                    await asyncio.sleep(0.005)
            it.server.go_down()
            assert it.gateway.draining
            said = await call
            assert b"data: [DONE]" in said

    run(check())


def test_curl_is_served() -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")

    async def check() -> None:
        async with door(script=Script(rules=(Rule(answer="Hello from curl."),))) as it:
            curl = await asyncio.create_subprocess_exec(
                "curl", "-sN", f"{it.url}/v1/chat/completions", "-H", f"x-api-key: {SECRET}",
                "-d", json.dumps({"model": "plain", "messages": HI}),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            said, _ = await curl.communicate()
            assert json.loads(said)["choices"][0]["message"]["content"] == "Hello from curl."

    run(check())


def test_unknown_paths_and_methods_are_typed_errors() -> None:
    async def check() -> None:
        async with door() as it:
            said = await raw(it, b"{}", path="/v1/nothing")
            assert said.startswith(b"HTTP/1.1 404")
            assert b"route_not_found" in said
            said = await raw(it, b"{}", path="/v1/models")
            assert said.startswith(b"HTTP/1.1 405")
            said = await raw(it, b"", path="/healthz")
            assert b"takes GET" in said

    run(check())


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_what_cannot_end_in_time_is_told_and_not_cut(*, stream: bool) -> None:
    """Ours: the server once cancelled it, and the caller heard nothing."""
    fault = "stall:3" if stream else "slow-headers"
    body = json.dumps({"model": f"fault-{fault}", "stream": stream, "messages": HI}).encode()

    async def check() -> None:
        async with door() as it:
            call = asyncio.create_task(raw(it, body))
            async with asyncio.timeout(5):
                while not it.box.open_connections:
                    await asyncio.sleep(0.005)
            it.server.go_down()
            it.server.go_down()
            said = await call
            assert b'"code":"unavailable"' in said
            assert b"[DONE]" not in said
            assert stream or said.startswith(b"HTTP/1.1 503")
            row = it.engine.journal.rows[-1]
            assert (row.outcome, row.client_gone) == ("failed", False)

    run(check())


def test_readiness_is_refused_before_anything_else_is() -> None:
    async def check() -> None:
        async with door() as it:
            it.server._notice_s = 0.5
            assert (await get(it, "/readyz")).startswith(b"HTTP/1.1 200")
            it.server.go_down()
            assert (await get(it, "/readyz")).startswith(b"HTTP/1.1 503")
            assert (await get(it, "/healthz")).startswith(b"HTTP/1.1 200")

    run(check())


async def get(door: Door, path: str) -> bytes:
    host, port = door.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", gzip.compress(json.dumps({"model": "plain", "messages": HI}).encode()), 200),
        ("deflate", zlib.compress(json.dumps({"model": "plain", "messages": HI}).encode()), 200),
        ("gzip", gzip.compress(b" " * 40_000_000), 413),
        ("gzip", b"no gzip at all", 400),
        ("gzip", gzip.compress(b"{}")[:-6], 400),
    ],
    ids=["gzip", "deflate", "bomb", "nonsense", "torn"],
)
def test_a_packed_body_is_unpacked_within_its_bound(coding: str, body: bytes, status: int) -> None:
    async def check() -> None:
        async with door() as it:
            said = await raw(it, body, f"content-encoding: {coding}")
            assert int(said.split(b" ")[1]) == status

    run(check())


def test_a_body_that_is_too_large_is_refused_before_it_is_read() -> None:
    async def check() -> None:
        async with door() as it:
            it.gateway.body_bytes_max = 100
            said = await raw(it, b"x" * 101)
            assert said.startswith(b"HTTP/1.1 413")
            assert (
                json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"
            )

    run(check())
