"""What a vendor says goes back as it came, is counted in every shape, and is told in the head."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from door import HI, SECRET, Door, FakeKey, door, raw
from droveway.chat import Usage
from droveway.engine.engine import Engine
from droveway.engine.records import Row
from droveway.gateway.app import Gateway
from droveway.gateway.server import Served, listen
from droveway.sandbox import Sandbox
from lab import INSTANT, run

TOLD: Final = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
MINE: Final = Usage(input=9, output=4)


@asynccontextmanager
async def before(answer: bytes, kind: str) -> AsyncIterator[Door]:
    """A gateway before a vendor that gives this answer, whatever it is asked."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + answer)
        writer.close()
        await writer.wait_closed()

    vendor = await asyncio.start_server(say, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{vendor.sockets[0].getsockname()[1]}/v1"
    async with vendor, Sandbox(profile=INSTANT) as box, Engine.at(url) as engine:
        gateway = Gateway(engine, find_key=lambda _: FakeKey())
        async with Served(gateway, listen("127.0.0.1", 0), drain_s=5) as server:
            yield Door(url=server.url, gateway=gateway, engine=engine, box=box, server=server)


async def asked(it: Door, **fields: Any) -> tuple[bytes, bytes, Row]:
    """Ask, and return the head, the body without its chunks' sizes, and the row."""
    body = json.dumps({"model": "deepseek-flash", "messages": HI, **fields}).encode()
    head, _, rest = (await raw(it, body)).partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        rest = b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n(?=[0-9a-f]+\r\n)", rest, re.DOTALL))
    return head, rest, it.engine.journal.rows[-1]


def stream(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in chunks) + (
        b"data: [DONE]\n\n"
    )


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "a", "model": "deepseek-flash", "choices": choices, **more}


# As it came.


def test_a_whole_answer_goes_back_with_the_very_bytes() -> None:
    answer = (
        b' {"usage":{"total_tokens":13, "prompt_tokens":9,"completion_tokens":4,"x":1e-7},\r\n'
        b'"choices" : [{"message":{"content":"\\u0041\\/","role":"assistant","new":[null]},'
        b'"finish_reason":"stop"}],"model":"deepseek-flash","big":123456789012345678901234567890}\n'
    )

    async def check() -> None:
        async with before(answer, "application/json") as it:
            head, body, row = await asked(it)
            assert body == answer
            assert b"content-length: %d\r\n" % len(answer) in head + b"\r\n"
            assert row.usage == MINE

    run(check())


def test_events_of_a_stream_go_back_with_the_very_bytes() -> None:
    events = (
        b'{"choices" : [ {"delta":{"content":"\\u0041\\/","new":1}} ],"x":[null]}',
        b'{"big":123456789012345678901234567890,"choices":[{"delta":{"content":"\xe6\xb1\x89"}}]}',
        b'{"choices":[{"finish_reason":"stop","delta":{}}],"usage":null, "y" : 1.50}',
    )
    sent = b"".join(b"data: %s\n\n" % each for each in events)
    # Comments, names of events and lines that are no JSON are not the model's words.
    dirt = b": a vendor's own comment\n\ndata: {not JSON\n\nevent: message\nid: 7\nretry: 1\n"

    async def check() -> None:
        async with before(dirt + sent + b"data: [DONE]\n\n", "text/event-stream") as it:
            _, body, row = await asked(it, stream=True)
            said, _, last_words = body.partition(b": droveway ")
            assert said == sent
            assert last_words.endswith(b"\n\ndata: [DONE]\n\n")
            assert row.usage is not None
            assert row.usage.source == "counted"

    run(check())


# Counted, in whatever shape the count comes.

DELTA: Final = {"content": "one two"}
LAST: Final = chunk({}, "stop")
SHAPES: Final = {
    "a last chunk without choices": (chunk(DELTA), LAST, chunk(None, usage=TOLD)),
    "on the chunk that finishes": (chunk(DELTA), chunk({}, "stop", usage=TOLD)),
    "on a chunk with an empty delta": (chunk(DELTA), LAST, chunk({}, usage=TOLD)),
    "on every chunk, counting along": (
        chunk({"role": "assistant"}, usage={**TOLD, "completion_tokens": 0, "total_tokens": 9}),
        chunk(DELTA, usage={**TOLD, "completion_tokens": 2, "total_tokens": 11}),
        chunk({}, "stop", usage=TOLD),
    ),
    "null until the last": (
        chunk(DELTA, usage=None),
        chunk({}, "stop", usage=None),
        chunk(None, usage=TOLD),
    ),
    "twice": (chunk(DELTA), chunk({}, "stop", usage=TOLD), chunk(None, usage=TOLD)),
    "before the finish": (chunk(DELTA), chunk(None, usage=TOLD), LAST),
    "without a list of choices": (chunk(DELTA), LAST, {"id": "a", "usage": TOLD}),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wanted", [False, True])
def test_the_vendors_count_is_taken_in_every_shape_and_told_to_who_asked(
    shape: str, *, wanted: bool
) -> None:
    chunks = SHAPES[shape]

    async def check() -> None:
        async with before(stream(*chunks), "text/event-stream") as it:
            options = {"stream_options": {"include_usage": True}} if wanted else {}
            _, body, row = await asked(it, stream=True, **options)
            assert row.usage == MINE
            assert row.cost is not None
            words = json.loads(body.partition(b": droveway ")[2].partition(b"\n")[0])
            assert words["usage"]["output"] == 4
            assert words["cost"] == row.cost.decimal()
            passed = [
                each for each in chunks if wanted or each.get("choices") or "usage" not in each
            ]
            got = [
                json.loads(line) for line in re.findall(rb"^data: (\{.*\})$", body, re.MULTILINE)
            ]
            assert got == passed

    run(check())


CACHED: Final = Usage(input=6, cached_read=3, output=4, reasoning=2)


@pytest.mark.parametrize(
    "more",
    [
        {"prompt_tokens_details": {"cached_tokens": 3}},
        {"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 6},
        {"prompt_tokens_details": {"cached_tokens": 3}, "prompt_cache_hit_tokens": 3},
        {"prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": None}, "cost": 0.1},
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_cached_and_reasoning_tokens_are_told_apart(more: dict[str, Any], *, whole: bool) -> None:
    usage = {**TOLD, **more, "completion_tokens_details": {"reasoning_tokens": 2}}
    message = {"role": "assistant", "content": "a"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = (
        json.dumps({"model": "deepseek-flash", "choices": [choice], "usage": usage}).encode()
        if whole
        else stream(chunk(DELTA), LAST, chunk(None, usage=usage))
    )

    async def check() -> None:
        kind = "application/json" if whole else "text/event-stream"
        async with before(answer, kind) as it:
            _, _, row = await asked(it, stream=not whole)
            assert row.usage == CACHED

    run(check())


TRUE: Final = ("", "usage-twice", "usage-on-choices", "usage-on-finish")
NONE: Final = ("missing", "null", "negative", "huge", "float", "string")


@pytest.mark.parametrize("fault", [*TRUE, *(f"usage-{each}" for each in NONE)])
@pytest.mark.parametrize("streams", [False, True])
def test_a_count_that_can_be_billed_is_billed_and_any_other_is_counted_here(
    fault: str, *, streams: bool
) -> None:
    async def check() -> None:
        async with door() as it:
            model = f"fault-{fault}" if fault else "deepseek-flash"
            _, _, row = await asked(it, model=model, stream=streams)
            seen = it.box.journal[-1]
            assert row.outcome == "completed"
            assert row.usage is not None
            if fault in TRUE:
                assert row.usage.source == "provider"
                assert row.usage.input_total == seen.prompt_tokens
                assert row.usage.cached_read == seen.cached_tokens
                assert row.usage.output == seen.completion_tokens
                assert row.usage.reasoning == seen.reasoning_tokens
            else:
                assert row.usage.source == "counted"
                assert 0 < row.usage.input < 100
                assert 0 < row.usage.output < 100

    run(check())


# Told in the head.


def headers(head: bytes) -> dict[str, str]:
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    found = {name: value for name, _, value in lines}
    assert len(found) == len(lines), "no header is there twice"
    return found


def test_a_whole_answer_tells_where_its_time_went_and_a_stream_says_nothing_too_early() -> None:
    async def check() -> None:
        async with door() as it:
            head, _, row = await asked(it)
            timing = headers(head)["server-timing"]
            found = re.fullmatch(r"overhead;dur=(\d+\.\d\d), upstream;dur=(\d+\.\d\d)", timing)
            assert found is not None
            assert float(found[1]) == round(row.overhead_ms, 2)
            assert float(found[2]) == round(row.attempts[-1].total_ms, 2)
            assert headers(head)["x-droveway-overhead-ms"] == found[1]
            for more in ({"stream": True}, {"model": "fault-400"}):
                head, _, _ = await asked(it, **more)
                assert "server-timing" not in headers(head)

    run(check())


def test_every_answer_has_one_id_under_both_names_and_the_journal_knows_it() -> None:
    async def check() -> None:
        async with door() as it:
            ids = set()
            for more in ({}, {"stream": True}, {"model": "fault-400"}, {"model": "fault-402"}):
                head, _, row = await asked(it, **more)
                told = headers(head)
                assert told["x-request-id"] == told["x-droveway-request-id"] == row.id
                ids.add(row.id)
            assert len(ids) == 4
            # What is refused at the door has an id too, and no row.
            said = await raw(it, b"{}", f"authorization: Bearer {SECRET}x")
            told = headers(said.partition(b"\r\n\r\n")[0])
            assert told["x-request-id"] == told["x-droveway-request-id"]
            assert re.fullmatch(r"req_[0-9a-f]{24}", told["x-request-id"])
            assert len(it.engine.journal.rows) == 4

    run(check())


@pytest.mark.parametrize("streams", [False, True])
def test_a_key_with_limits_is_told_what_is_left_of_them(*, streams: bool) -> None:
    async def check() -> None:
        async with door(FakeKey(rpm=7, tpm=1_000_000)) as it:
            left: list[int] = []
            for _ in range(3):
                head, _, _ = await asked(it, stream=streams, max_tokens=50)
                told = headers(head)
                assert told["x-ratelimit-limit-requests"] == "7"
                assert told["x-ratelimit-limit-tokens"] == "1000000"
                assert told["x-ratelimit-reset-requests"] == "61s"
                assert told["x-ratelimit-reset-tokens"] == "61s"
                left.append(int(told["x-ratelimit-remaining-requests"]))
                assert 999_000 < int(told["x-ratelimit-remaining-tokens"]) <= 1_000_000 - 50
            assert left == [6, 5, 4]
        async with door() as it:
            head, _, _ = await asked(it, stream=streams)
            assert b"ratelimit" not in head

    run(check())


def test_a_key_with_one_limit_is_told_of_that_one_only() -> None:
    async def check() -> None:
        async with door(FakeKey(rpm=1)) as it:
            head, _, _ = await asked(it)
            names = {name for name in headers(head) if name.startswith("x-ratelimit")}
            assert names == {
                f"x-ratelimit-{each}-requests" for each in ("limit", "remaining", "reset")
            }
            head, body, _ = await asked(it)
            assert b" 429 " in head
            assert json.loads(body)["error"]["code"] == "rate_limited"
            assert 1 <= int(headers(head)["retry-after"]) <= 61

    run(check())
