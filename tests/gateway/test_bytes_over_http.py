"""The bytes that a vendor receives are the bytes that were sent, over real sockets."""

import gzip
import json
from typing import Final

import pytest

from door import SECRET, Door, door, raw
from lab import run

WISH: Final = b',"stream_options":{"include_usage":true}'
TURN: Final = b'[{"role":"user","content":"a"}]'
IMAGE: Final = b"iVBORw0KGgoAAAANSUhEUg" * 40
# Each before the model's value, from there to the last value, and what closes it.
BODIES: Final = {
    "odd order": (b'{"messages":%s,"model":' % TURN, b',"user":"u"', b"}"),
    "blanks": (
        b'\t{ "messages" : [ {"role":"user" ,"content":"a"} ]\r\n,"model"\t: ',
        b' , "n" : 1',
        b"\n}\n ",
    ),
    "escapes": (
        b'{"messages":[{"role":"user","content":"\\u0041\\ud83d\\ude00\\/\\n\\\\\\""}],"model":',
        b',"met\\u0061data":{"\\u006d":"\\u6c49"}',
        b"}",
    ),
    "escaped keys": (
        b'{"me\\u0073sages":%s,"mod\\u0065l":' % TURN,
        b',"temper\\u0061ture":0.10',
        b"}",
    ),
    "nested model": (
        b'{"metadata":{"model":"not this","a":[{"model":"nor this"}]},"model":',
        b',"messages":%s,"x":{"model":"nor that"}' % TURN,
        b"}",
    ),
    "numbers": (
        b'{"big":123456789012345678901234567890,"small":-1.50E-007,"model":',
        b',"messages":%s,"seed":9223372036854775808,"top_p":1.0' % TURN,
        b"}",
    ),
    "unknown fields": (
        b'{"x-vendor":[null,true,{"":""}],"thinking":{"type":"enabled"},"model":',
        b',"messages":[{"role":"user","content":"a","cache_control":{"type":"ephemeral"}}]',
        b"}",
    ),
    "images": (
        b'{"model":',
        b',"messages":[{"role":"user","content":[{"type":"text","text":"\xe6\xb1\x89"},'
        b'{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}]}]' % IMAGE,
        b"}",
    ),
    "107 KB": (b'{"messages":[{"role":"user","content":"%s"}],"model":' % (b"word " * 21_400), b"", b"}"),
    "like a splice": (
        b'{"messages":[{"role":"user","content":"}\\",\\"model\\":\\"b\\"{[\\\\"}],"model":',
        b',"stop":["\\"","}"]',
        b"}",
    ),
}  # fmt: skip
# As it is asked for, and as the vendor is asked: a name that stays is not written anew.
NAMES: Final = {
    b'"deepseek-flash"': b'"deepseek-flash"',
    b'"deepseek-fl\\u0061sh"': b'"deepseek-fl\\u0061sh"',
    b'"remote/deepseek-flash"': b'"deepseek-flash"',
    b'"\\u0072emote\\/deepseek-flash"': b'"deepseek-flash"',
}
BY_NAME: Final = pytest.mark.parametrize("name", BODIES)


async def received(it: Door, sent: bytes, path: str = "/v1/chat/completions") -> bytes:
    """Send a body that is answered, and return what the vendor got."""
    it.box.forget()
    said = await raw(it, sent, path=path)
    assert said.startswith(b"HTTP/1.1 200 OK"), said
    (seen,) = it.box.journal
    assert seen.path.endswith(path)
    assert seen.body is not None
    return seen.body


@BY_NAME
def test_a_whole_answer_is_asked_for_with_the_very_bytes(name: str) -> None:
    before, after, end = BODIES[name]

    async def check() -> None:
        async with door() as it:
            for asked, sent in NAMES.items():
                assert json.loads(before + asked + after + end)
                got = await received(it, before + asked + after + end)
                assert got == before + sent + after + end

    run(check())


@BY_NAME
def test_a_stream_is_asked_for_with_the_very_bytes_and_the_wish_for_usage(name: str) -> None:
    before, after, end = BODIES[name]
    after += b' ,"stream" :true'

    async def check() -> None:
        async with door() as it:
            for asked, sent in NAMES.items():
                got = await received(it, before + asked + after + end)
                assert got == before + sent + after + WISH + end
                wished = b',"stream_options": {"x":1 , "include_usage" : true}'
                got = await received(it, before + asked + after + wished + end)
                assert got == before + sent + after + wished + end

    run(check())


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (b'{ "include_usage" : false }', b'{ "include_usage" : true }'),
        (b'{"include_us\\u0061ge":false,"y":[1]}', b'{"include_us\\u0061ge":true,"y":[1]}'),
        (b'{"include_usage":null}', b'{"include_usage":true}'),
        (b'{"include_obfuscation": false}', b'{"include_obfuscation": false,"include_usage":true}'),
        (b"{ }", b'{"include_usage":true }'),
        (b"null", b'{"include_usage":true}'),
    ],
)
def test_of_stream_options_only_the_wish_is_changed(given: bytes, sent: bytes) -> None:
    body = b'{"model":"deepseek-flash","stream_options":%s,"stream":true,"messages":%s}'

    async def check() -> None:
        async with door() as it:
            assert await received(it, body % (given, TURN)) == body % (sent, TURN)

    run(check())


def test_embeddings_are_asked_for_with_the_very_bytes() -> None:
    tails = (
        b',"input":"\\u0041 b"',
        b' ,"input" : ["a","\xe6\xb1\x89"],"encoding_format":"base64","dimensions":8',
        b',"input":[[1,2,3],[4]],"x":{"model":"y"},"big":123456789012345678901234567890',
        b',"input":"%s"' % (b"word " * 2_000),
        # Neither has a meaning here, and neither is touched.
        b',"input":"a","stream":false,"max_tokens":0',
    )

    async def check() -> None:
        async with door() as it:
            for tail in tails:
                for asked, sent in NAMES.items():
                    got = await received(it, b'{"model":%s%s }' % (asked, tail), "/v1/embeddings")
                    assert got == b'{"model":%s%s }' % (sent, tail)

    run(check())


def test_packed_and_chunked_bodies_arrive_as_what_was_packed() -> None:
    before, after, end = BODIES["images"]
    body = before + b'"deepseek-flash"' + after + end

    async def check() -> None:
        async with door() as it:
            await raw(it, gzip.compress(body), "content-encoding: gzip")
            assert it.box.journal[-1].body == body
            assert "content-encoding" not in it.box.journal[-1].headers
            assert it.box.journal[-1].headers["content-length"] == str(len(body))

    run(check())


# What could be read in two ways is refused, and nobody is asked.

AMBIGUOUS: Final = {
    "twice": b'{"model":"deepseek-flash","messages":%s,"model":"deepseek-flash"}',
    "twice, escaped": b'{"model":"deepseek-flash","messages":%s,"mod\\u0065l":"deepseek-v4-pro"}',
    "escaped first": b'{"\\u006dodel":"deepseek-flash","messages":%s,"model":"deepseek-v4-pro"}',
    "both escaped": b'{"mode\\u006c":"a","messages":%s,"mod\\u0065l":"b"}',
    "an unknown field": b'{"x":1,"model":"deepseek-flash","messages":%s,"x":1}',
    "an empty key": b'{"":1,"model":"deepseek-flash","messages":%s,"":2}',
    "numbers that begin alike": b'{"n":12,"model":"deepseek-flash","messages":%s,"n":1}',
    "numbers that end alike": b'{"n":1,"model":"deepseek-flash","messages":%s,"n":12}',
    "a cap": b'{"max_tokens":1,"model":"deepseek-flash","messages":%s,"max_toke\\u006es":9}',
    "a surrogate pair": (
        b'{"\xf0\x9f\x98\x80":1,"model":"deepseek-flash","messages":%s,"\\ud83d\\ude00":1}'
    ),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_is_there_twice_is_a_400_however_it_is_written(
    name: str, *, stream: bool
) -> None:
    body = AMBIGUOUS[name] % TURN
    if stream:
        body = body[:-1] + b',"stream":true}'

    async def check() -> None:
        async with door() as it:
            for sent, path in ((body, "/v1/chat/completions"), (
                body.replace(b'"messages"', b'"input"'), "/v1/embeddings",
            )):  # fmt: skip
                said = await raw(it, sent, path=path)
                assert said.startswith(b"HTTP/1.1 400")
                error = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
                assert error["code"] == "invalid_request"
                assert "twice" in error["message"]
            assert it.box.journal == []

    run(check())


def test_a_key_that_is_twice_further_in_is_the_vendors_to_judge() -> None:
    body = b'{"model":"deepseek-flash","messages":%s,"x":{"a":1,"a":2}}' % TURN

    async def check() -> None:
        async with door() as it:
            assert await received(it, body) == body

    run(check())


@pytest.mark.parametrize("depth", [900, 1_100, 100_000])
@pytest.mark.parametrize("field", ["x", "messages", "model", "stream_options", "input"])
def test_what_is_nested_too_deeply_is_a_400_and_what_is_not_goes_through(
    field: str, depth: int
) -> None:
    """Ours: the decoder has a limit, and nobody behind it sees more than it has read."""
    fields = {"model": b'"deepseek-flash"', "messages": TURN, "input": b'"a"', "stream": b"true"}
    fields[field] = b"[" * depth + b"]" * depth
    body = b"{" + b",".join(b'"%s":%s' % (k.encode(), v) for k, v in fields.items()) + b"}"

    async def check() -> None:
        async with door() as it:
            path = "/v1/embeddings" if field == "input" else "/v1/chat/completions"
            said = await raw(it, body, path=path)
            status = int(said.split(b" ")[1])
            if field == "x" and depth < 1_000:
                assert status == 200
                assert it.box.journal[-1].body == body[:-1] + WISH + b"}"
            else:
                assert status == 400
                assert b'"code":"invalid_request"' in said
            if depth > 1_000:
                assert it.box.journal == []
            # And the door is as it was.
            again = await raw(it, b'{"model":"deepseek-flash","messages":%s}' % TURN)
            assert again.startswith(b"HTTP/1.1 200")

    run(check())


def test_the_callers_key_stays_here() -> None:
    async def check() -> None:
        async with door(api_keys={"sk-vendor"}) as it:
            await received(it, b'{"model":"deepseek-flash","messages":%s}' % TURN)
            assert SECRET not in str(it.box.journal[-1])

    run(check())
