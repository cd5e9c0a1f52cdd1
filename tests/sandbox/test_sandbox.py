"""These tests know the sandbox itself: its limits, cache, journal, refusals, seeds and clock."""

import asyncio
import http.client
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
import uvloop

from droveway.clock import StillClock, settle_loop
from droveway.sandbox import (
    Limits,
    Profile,
    Sandbox,
    running_sandbox,
    serve,
    stream_bytes,
)

INSTANT = Profile(instant=True)
QUESTION = [{"role": "user", "content": "Explain the prompt cache of a vendor"}]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running_sandbox(profile=INSTANT, journal_bodies=True) as running:
        yield running


def call(
    box: Sandbox,
    path: str = "/v1/chat/completions",
    *,
    key: str = "k",
    verb: str = "POST",
    **how: Any,
) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", box.port, timeout=10)
    raw = how.pop("raw", None)
    body = raw if raw is not None else json.dumps({"model": "m", "messages": QUESTION, **how})
    headers = {"authorization": f"Bearer {key}"}
    connection.request(verb, path, body if verb == "POST" else None, headers)
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), json.loads(told)


def run(test: Callable[[], Awaitable[None]], *, uv: bool = False) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    (uvloop.run if uv else asyncio.run)(bounded())


async def until(done: Callable[[], bool]) -> None:
    while not done():
        await asyncio.sleep(0.002)


def request_bytes(**fields: Any) -> bytes:
    body = json.dumps({"model": "m", "messages": QUESTION, "stream": True, **fields}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: b\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


@pytest.mark.parametrize(
    "fields",
    [
        {"raw": "{"},
        {"raw": "[]"},
        {"raw": "[" * 5000},
        {"model": ""},
        {"model": None},
        {"messages": None},
        {"messages": "hi"},
        {"messages": []},
        {"messages": ["hi"]},
        {"messages": [{"role": "boss", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "tool", "content": "5", "tool_call_id": "c"}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}, QUESTION[0]]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": 7}]},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_completion_tokens": 0},
        {"stream": "yes"},
        {"stream_options": {"include_usage": True}},
        {"temperature": 3},
        {"temperature": "hot"},
        {"n": 2},
        {"n": []},
        {"tools": [{"type": "function"}]},
        {"tools": 5},
        {
            "tools": [{"function": {"name": "f", "parameters": {"properties": 5}}}],
            "tool_choice": "required",
        },
    ],
)
def test_a_request_out_of_order_is_a_400(box: Sandbox, fields: dict[str, Any]) -> None:
    status, _, told = call(box, **fields)
    assert status == 400
    assert told["error"]["type"] == "invalid_request_error"
    assert told["error"]["message"]


def test_unknown_paths_and_verbs_are_refused(box: Sandbox) -> None:
    assert call(box, "/v1/nothing")[0] == 404
    assert call(box, "/v1/chat/completions", verb="GET")[0] == 405


def test_the_balance_has_deepseeks_shape(box: Sandbox) -> None:
    _, _, told = call(box, "/user/balance", verb="GET")
    assert told["is_available"] is True
    assert told["balance_infos"][0]["total_balance"] == "110.00"


def test_the_balance_is_what_it_was_told_to_be() -> None:
    """Spec (DeepSeek, get-user-balance): each currency for itself, as decimal strings."""
    with running_sandbox(profile=INSTANT) as box:
        box.set_balance("0.00", granted="0.00")
        box.set_balance("12.345", granted="1.50", currency="CNY")
        assert call(box, "/user/balance", verb="GET")[2] == {
            "is_available": True,
            "balance_infos": [
                {
                    "currency": "USD",
                    "total_balance": "0.00",
                    "granted_balance": "0.00",
                    "topped_up_balance": "0.00",
                },
                {
                    "currency": "CNY",
                    "total_balance": "13.845",
                    "granted_balance": "1.50",
                    "topped_up_balance": "12.345",
                },
            ],
        }
        box.set_balance("0.00", currency="CNY")
        assert call(box, "/v1/user/balance", verb="GET")[2]["is_available"] is False


def test_bytes_that_are_no_http_are_refused(box: Sandbox) -> None:
    with socket.create_connection(("127.0.0.1", box.port), 10) as client:
        client.sendall(b"hello there\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 400 ")


def test_pipelined_requests_are_answered_in_order(box: Sandbox) -> None:
    box.forget()
    with socket.create_connection(("127.0.0.1", box.port), 10) as client:
        names = [f"model-{i}" for i in range(300)]
        asked = [request_bytes(stream=False, model=name, max_tokens=1) for name in names]
        client.sendall(b"".join(asked))
        got = b""
        while got.count(b"HTTP/1.1 200") < 300 or not got.endswith(b"}"):
            got += client.recv(1 << 16)
    assert [seen.model for seen in box.journal] == names


def test_a_second_turn_hits_the_prefix_cache(box: Sandbox) -> None:
    """Vendor quirk: DeepSeek caches in blocks of 64 tokens, for each account."""
    talk = [{"role": "user", "content": "word " * 200}]
    first = call(box, model="deepseek-flash", messages=talk)[2]["usage"]
    talk += [{"role": "assistant", "content": "ok"}, {"role": "user", "content": "and now?"}]
    second = call(box, model="deepseek-flash", messages=talk)[2]["usage"]
    other = call(box, model="deepseek-flash", messages=talk, key="other")[2]["usage"]
    assert first["prompt_cache_hit_tokens"] == other["prompt_cache_hit_tokens"] == 0
    hit = first["prompt_tokens"] // 64 * 64
    assert second["prompt_cache_hit_tokens"] == hit > 0
    assert second["prompt_tokens_details"]["cached_tokens"] == hit
    assert second["prompt_cache_miss_tokens"] == second["prompt_tokens"] - hit


def test_request_limits_answer_with_a_vendors_headers() -> None:
    limits = Limits(rpm=7, tpm=1_000_000)
    with running_sandbox(profile=INSTANT, limits=limits, clock=StillClock()) as box:
        answers = [call(box) for _ in range(8)]
        assert [status for status, _, _ in answers] == [200] * 7 + [429]
        remaining = [headers["x-ratelimit-remaining-requests"] for _, headers, _ in answers]
        assert remaining == list("65432100")
        _, headers, told = answers[-1]
        assert headers["x-ratelimit-limit-requests"] == "7"
        assert headers["x-ratelimit-reset-requests"] == "1m0s"
        assert headers["x-ratelimit-limit-tokens"] == "1000000"
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("9", "8572")
        assert told["error"]["code"] == "rate_limit_exceeded"
        assert call(box, key="other")[0] == call(box, model="n")[0] == 200


def test_token_limits_refill_with_time() -> None:
    async def test() -> None:
        clock = StillClock()
        async with Sandbox(profile=INSTANT, limits=Limits(tpm=100), clock=clock) as box:
            statuses = []
            for wait_s in (0, 0, 300):
                await clock.advance(wait_s)
                reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
                writer.write(request_bytes())
                statuses.append(await reader.readuntil(b"\r\n"))
                writer.close()
                await writer.wait_closed()
            assert [line.split()[1] for line in statuses] == [b"200", b"429", b"200"]

    run(test)


def test_concurrency_is_counted_until_the_end() -> None:
    async def test() -> None:
        async with Sandbox(profile=INSTANT, limits=Limits(concurrency=1)) as box:
            _, first = await asyncio.open_connection("127.0.0.1", box.port)
            first.write(request_bytes(model="fault-stall"))
            await until(lambda: len(box.journal) == 1)
            reader, second = await asyncio.open_connection("127.0.0.1", box.port)
            second.write(request_bytes(model="fault-stall"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 429 " in head
            assert b"retry-after: 1\r\n" in head
            first.close()
            await until(lambda: box.journal[0].client_gone)
            second.write(request_bytes(model="fault-stall"))
            await until(lambda: len(box.journal) == 3 and box.journal[2].status == 200)
            second.close()
            for writer in (first, second):
                await writer.wait_closed()

    run(test)


@pytest.mark.parametrize("uv", [False, True])
def test_a_client_that_goes_is_journaled(*, uv: bool) -> None:
    async def test() -> None:
        profile = Profile(token_s=0.005, first_token_s=0.001, answer_tokens=5000)
        async with Sandbox(profile=profile) as box:
            reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
            writer.write(request_bytes())
            await until(lambda: bool(box.journal) and box.journal[0].tokens_sent > 0)
            await reader.readuntil(b"data: ")
            writer.close()
            await writer.wait_closed()
            await until(lambda: box.journal[0].client_gone)
            seen = box.journal[0]
            assert 0 < seen.tokens_sent < seen.completion_tokens
            assert seen.ended_at is None
            await until(lambda: box.open_connections == 0)

    run(test, uv=uv)


@pytest.mark.parametrize("uv", [False, True])
def test_resets_are_resets_on_both_event_loops(*, uv: bool) -> None:
    async def test() -> None:
        async with Sandbox(profile=INSTANT) as box:
            for fault in ("refuse", "cut-event-rst:2"):
                reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
                writer.write(request_bytes(model=f"fault-{fault}"))
                with pytest.raises(ConnectionResetError):
                    await reader.read(-1)
                writer.close()
                assert not box.journal[-1].client_gone

    run(test, uv=uv)


def test_a_slow_reader_is_not_buffered_for_without_bound() -> None:
    """ours: of many 1 MB events only what the sockets hold is written."""

    async def test() -> None:
        async with Sandbox(profile=Profile(instant=True, answer_tokens=500_000)) as box:
            reader, writer = await asyncio.open_connection("127.0.0.1", box.port, limit=1024)
            writer.write(request_bytes())
            await until(lambda: bool(box.journal) and box.journal[0].events_sent > 0)
            stopped = -1
            while stopped != box.journal[0].events_sent:
                stopped = box.journal[0].events_sent
                await asyncio.sleep(0.05)
            assert box.journal[0].tokens_sent < box.journal[0].completion_tokens / 2
            while chunk := await reader.read(1 << 20):
                if chunk.endswith(b"0\r\n\r\n"):
                    break
            assert box.journal[0].tokens_sent == box.journal[0].completion_tokens
            writer.close()
            await writer.wait_closed()

    run(test)


def test_tokens_come_at_the_profiles_pace() -> None:
    async def test() -> None:
        clock = StillClock()
        profile = Profile(
            first_token_s=2, token_s=1, first_token_sigma=0, token_sigma=0, answer_tokens=50
        )
        async with Sandbox(profile=profile, clock=clock) as box:
            reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
            writer.write(request_bytes(max_tokens=5))
            await until(lambda: len(box.journal) == 1)
            counts = []
            for _ in range(8):
                counts.append(box.journal[0].events_sent)
                await clock.advance(1)
            # role at 2 s, a token each second; with the last one its finish and [DONE]
            assert counts == [0, 0, 1, 2, 3, 4, 5, 8]
            await reader.readuntil(b"[DONE]")
            assert box.journal[0].ended_at == 7
            writer.close()
            await writer.wait_closed()

    run(test)


def test_closing_ends_streams_and_tasks() -> None:
    """ours: ResourceWarnings are errors in this suite."""

    async def test() -> None:
        ready = asyncio.Event()
        box = Sandbox(profile=Profile(token_s=60))
        server = asyncio.create_task(serve(box, ready=lambda _: ready.set()))
        await ready.wait()
        _, writer = await asyncio.open_connection("127.0.0.1", box.port)
        writer.write(request_bytes())
        await until(lambda: len(box.journal) == 1)
        server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server
        with pytest.raises(RuntimeError, match="not running"):
            _ = box.port
        writer.close()
        await box.close()
        await settle_loop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(test)


def test_the_journal_is_read_and_reset_over_http(box: Sandbox) -> None:
    box.forget()
    call(box, key="secret-key", model="fault-429-seconds:3")
    _, _, told = call(box, "/sandbox/journal", verb="GET", key="secret-key")
    (entry,) = told["requests"]
    assert (entry["status"], entry["fault"], entry["attempt"]) == (429, "429-seconds:3", 1)
    assert entry["client_gone"] is False
    assert entry["ended_at"] >= entry["began_at"]
    assert "prompt cache" in entry["body"]
    assert "secret-key" not in json.dumps(told)
    call(box, "/sandbox/journal", verb="DELETE")
    assert box.journal == []


def test_the_journal_forgets_the_oldest() -> None:
    with running_sandbox(profile=INSTANT, journal_most=3) as box:
        for i in range(9):
            call(box, model=f"m{i}")
        assert [seen.model for seen in box.journal] == ["m3", "m4", "m5", "m6", "m7", "m8"]


def test_seeds_reproduce_answers_and_counts() -> None:
    def answers(seed: int) -> list[Any]:
        with running_sandbox(profile=INSTANT, seed=seed) as box:
            told = [call(box, model=model)[2] for model in ("m", "n", "deepseek-flash")]
        return [(t["choices"], t["usage"]) for t in told]

    assert answers(1) == answers(1) != answers(2)


def test_an_answer_depends_on_meaning_not_on_bytes(box: Sandbox) -> None:
    """ours: a gateway may re-encode a body or splice an option into it."""
    plain = call(box)[2]["choices"]
    spaced = json.dumps({"messages": QUESTION, "model": "m", "user": "u"}, indent=3)
    assert call(box, raw=spaced)[2]["choices"] == plain


def test_stream_bytes_are_the_body_of_the_stream() -> None:
    asked = {
        "model": "m",
        "messages": QUESTION,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body = stream_bytes(asked, seed=4)
    assert body == stream_bytes(msgspec.json.encode(asked), seed=4)
    events = body.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    said = b"".join(
        choice["delta"].get("content", "").encode()
        for event in events[:-2]
        for choice in json.loads(event[6:])["choices"]
    )
    with running_sandbox(profile=INSTANT, seed=4) as box:
        assert call(box)[2]["choices"][0]["message"]["content"].encode() == said
    with pytest.raises(ValueError, match="messages"):
        stream_bytes({"model": "m"})


def test_a_taken_port_is_an_error_on_the_callers_thread(box: Sandbox) -> None:
    with pytest.raises(OSError, match="in use"), running_sandbox(port=box.port):
        pass
