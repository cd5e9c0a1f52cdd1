"""Input as nobody should send it: each is a typed error of ours, and the server goes on.

The groups are those of a list of twenty kinds of bad input that gateways have stumbled over; what
is bad as HTTP is in `test_door.py`.
"""

import gzip
import json
import logging
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import h11
import pytest

from door import SECRET, FakeKey, door, raw
from droveway.sandbox import Rule, Script
from lab import run
from operator_door import operator_door, send

MESSAGES = b'"messages":[{"role":"user","content":"Say hi."}]'
GOOD = b'{"model":"plain",' + MESSAGES + b"}"
# Without its moment: the tests' names are made of it.
packed = partial(gzip.compress, mtime=0)
CODES = {400: "invalid_request", 401: "invalid_api_key", 413: "request_too_large"}


def read(said: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Read one answer as a strict client does."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(said)
    client.receive_data(b"")
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(piece := client.next_event(), h11.Data):
        body += bytes(piece.data)
    assert isinstance(piece, h11.EndOfMessage)
    return head.status_code, dict(head.headers), body


def refused(sent: bytes, *headers: str, caplog: pytest.LogCaptureFixture, path: str = "") -> str:
    """Send what is refused; return the message, when all is as it must be."""

    async def check() -> str:
        async with door() as it:
            options = {"path": path} if path else {}
            status, told, body = read(await raw(it, sent, *headers, **options))
            assert told[b"content-type"] == b"application/json"
            error: dict[str, Any] = json.loads(body)["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["code"] == CODES[status]
            assert "Traceback" not in error["message"]
            assert len(error["message"]) < 6_000
            assert it.box.journal == [], "nobody was asked"
            assert read(await raw(it, GOOD))[0] == 200, "the server goes on"
            return str(error["message"])

    message = run(check())
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
    return message


def passed(sent: bytes, *headers: str, script: Script | None = None) -> dict[bytes, bytes]:
    """Send what is taken as it is; return the headers of the answer."""

    async def check() -> dict[bytes, bytes]:
        async with door(script=script or Script()) as it:
            status, told, _ = read(await raw(it, sent, *headers))
            assert status == 200
            assert it.box.journal[-1].body == sent
            return told

    return run(check())


def with_field(field: bytes) -> bytes:
    return b'{"model":"plain",' + MESSAGES + b"," + field + b"}"


# 1. Numbers.


@pytest.mark.parametrize("cap", [b"max_tokens", b"max_completion_tokens"])
@pytest.mark.parametrize(
    "value",
    [
        *(b"-1", b"0", b"-0", b"1.5", b"10.0", b"1e999", b"01", b"+1", b"0x10", b"1_0"),
        *(b"NaN", b"Infinity", b'"10"', b"true", b"[10]", b"{}"),
        *(b"2147483649", b"9223372036854775808", b"1" * 100_000),
    ],
    ids=lambda value: value[:20].decode(),
)
def test_a_cap_that_is_no_small_whole_number_is_refused(
    cap: bytes, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    refused(with_field(b'"%b":%b' % (cap, value)), caplog=caplog)


@pytest.mark.parametrize("field", [b'"stream":"yes"', b'"stream":1', b'"stream_options":[]'])
def test_a_field_that_must_be_read_is_of_its_type(
    field: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    refused(with_field(field), caplog=caplog)


# 2. Depth and length.


@pytest.mark.parametrize(
    "sent",
    [
        with_field(b'"x":' + b"[" * 100_000 + b"]" * 100_000),
        with_field(b'"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        b'{"model":"plain","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 100_000,
        b'{"model":"' + b"a" * 1_000_000 + b'",' + MESSAGES + b"}",
        b'{"model":"plain","'
        + b"k" * 100_000
        + b'":1,"'
        + b"k" * 100_000
        + b'":1,'
        + MESSAGES
        + b"}",
    ],
    ids=["arrays", "objects", "messages", "unclosed", "a model like a book", "a key like a book"],
)
def test_what_is_too_deep_or_too_long_is_refused(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    refused(sent, caplog=caplog)


def test_a_long_number_in_a_field_that_we_do_not_read_is_left_alone() -> None:
    passed(with_field(b'"x":' + b"1" * 4_000))


# 3. One key, two values.


@pytest.mark.parametrize(
    "sent",
    [
        b'{"model":"cheap","model":"dear",' + MESSAGES + b"}",
        b'{"model":"cheap",' + MESSAGES + b',"mod\\u0065l":"dear"}',
        b'{"model":"same","model":"same",' + MESSAGES + b"}",
        with_field(b'"max_tokens":1,"max_tokens":1000000'),
        with_field(b'"max_tokens":1000000,"max_tokens":1'),
        with_field(b'"n":1.5,"n":1'),
        with_field(MESSAGES),
    ],
)
def test_a_key_that_is_there_twice_is_refused(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Ours: where the last value was how the first one begins, both were once taken for one."""
    assert "twice" in refused(sent, caplog=caplog)


# 4. Text that is none, or looks like other text.


@pytest.mark.parametrize(
    "sent",
    [
        b'{"model":"\\ud800",' + MESSAGES + b"}",
        b'{"model":"\\udc00\\ud800",' + MESSAGES + b"}",
        b'{"model":"\xed\xa0\x80",' + MESSAGES + b"}",
        b'{"model":"a\xff",' + MESSAGES + b"}",
        b'{"model":"a\x00",' + MESSAGES + b"}",
        b'{"\xff":1,"model":"a",' + MESSAGES + b"}",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD.decode().encode("utf-32"),
        GOOD + GOOD,
        GOOD + b"\x00",
        b"",
        b"\x00",
        b"null",
        b'"model"',
        b"model=plain",
        b"<model>plain</model>",
    ],
)
def test_what_is_no_json_object_in_utf_8_is_refused(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    refused(sent, caplog=caplog)


@pytest.mark.parametrize("user", [b"\\u0000", b"\\u202e", b"\xe2\x80\xae", b"\\ud83d\\ude00"])
def test_strange_text_in_a_field_that_we_do_not_read_is_left_alone(user: bytes) -> None:
    passed(with_field(b'"user":"%b"' % user))


# 8. Packed bodies.


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", packed(bytes(2**26))),
        ("deflate", zlib.compress(bytes(2**26))),
        ("gzip", packed(packed(GOOD))),
        ("gzip", packed(GOOD)[:-4]),
        ("gzip", packed(GOOD) + packed(b" ")),
        ("gzip", packed(GOOD) + b"x"),
        ("gzip", zlib.compress(GOOD)),
        ("gzip", b""),
        ("deflate", packed(GOOD)),
        ("gzip, gzip", packed(packed(GOOD))),
        ("br", GOOD),
        ("zstd", GOOD),
        ("", GOOD),
    ],
)
def test_a_packed_body_is_whole_and_within_its_bound(
    coding: str, packed: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    refused(packed, f"content-encoding: {coding}", caplog=caplog)


# 9. Keys.


@pytest.mark.parametrize(
    "headers",
    [
        ["authorization: Bearer ' OR '1'='1"],
        ["authorization: Bearer %_%_"],
        ["authorization: Bearer"],
        ["authorization: Bearer \xff\xfe"],
        [f"authorization: {SECRET}"],
        [f"authorization: Basic {SECRET}"],
        [f"authorization: Bearer {SECRET}, Bearer other"],
        [f"authorization: Bearer {SECRET} other"],
        ["x-api-key:"],
        ["x-api-key: " + "a" * 30_000],
        ["x-api-key: " + "a" * 1_000_000],
        [f"authorization: Bearer {SECRET}", "authorization: Bearer other"],
        [f"authorization: Bearer {SECRET}", "x-api-key: other"],
        [f"x-api-key: {SECRET}", "x-api-key: other"],
    ],
)
def test_a_key_that_is_none_or_two_is_refused(
    headers: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    message = refused(GOOD, *headers, caplog=caplog)
    assert len(headers) == 1 or "two different keys" in message, "whose money is anybody's guess"
    assert SECRET not in message
    assert "OR" not in message


@pytest.mark.parametrize(
    "secret",
    ["' OR '1'='1", "%_%_", "dw_", "\xff\xfe", "a" * 30_000, "dw_" + "a" * 43, "../../etc/passwd"],
)
def test_a_strange_key_opens_neither_the_api_nor_the_admin_api(
    secret: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with operator_door(tmp_path) as it:
            for line in ("GET /v1/models", "GET /admin/v1/keys"):
                said = await send(it, line, token=secret)
                assert (said.status, said.error["code"]) == (401, "invalid_api_key")

    run(check())
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


# 10. Names that we echo in headers.


@pytest.mark.parametrize(
    "name",
    [
        "a\r\nset-cookie: b=c",
        "a\nset-cookie: b=c",
        "a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "a\x00b",
        "a\x7fb\x85c\u2028d",
        "\u202eniap",
        "\U0001f404",
    ],
)
@pytest.mark.parametrize("stream", [b"true", b"false"])
def test_a_model_s_name_cannot_split_an_answer(name: str, stream: bytes) -> None:
    sent = b'{"model":%b,"stream":%b,' % (json.dumps(name).encode(), stream) + MESSAGES + b"}"

    async def check() -> None:
        async with door() as it:
            status, told, _ = read(await raw(it, sent))
            assert status == 200
            assert b"set-cookie" not in told
            assert len(told[b"x-droveway-model"]) == len(name)
            assert all(0x20 <= sign < 0x7F for sign in told[b"x-droveway-model"])
            assert it.engine.journal.rows[-1].asked == name

    run(check())


def test_a_refused_name_is_told_as_json_and_in_no_header() -> None:
    name = "a\r\nset-cookie: b=c"
    sent = b'{"model":%b,' % json.dumps(name).encode() + MESSAGES + b"}"

    async def check() -> None:
        async with door(FakeKey(models=("plain",))) as it:
            status, told, body = read(await raw(it, sent))
            assert (status, json.loads(body)["error"]["code"]) == (403, "model_not_allowed")
            assert b"set-cookie" not in told

    run(check())


@pytest.mark.parametrize("header", ["x-request-id: a\tb", "x-droveway-request-id: mine"])
def test_the_id_of_a_request_is_ours(header: str) -> None:
    assert passed(GOOD, header)[b"x-droveway-request-id"].startswith(b"req_")


# 11. Addresses.


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/", "http://[::ffff:127.0.0.1]/", "http://2130706433/", "file:///"],
)
def test_an_address_in_a_request_is_asked_by_nobody_here(url: str) -> None:
    image = b'{"type":"image_url","image_url":{"url":"%b"}}' % url.encode()
    sent = b'{"model":"plain","base_url":"%b","api_base":"%b","messages":[{"role":"user","content":[%b]}]}'
    passed(sent % (url.encode(), url.encode(), image))


# 15 and 20. What a model or an operator writes.


def test_markup_in_an_answer_comes_as_json() -> None:
    said = Script(rules=(Rule(answer="<script>alert(1)</script>"),))
    assert passed(GOOD, script=said)[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    "word", ["%25_%25_", "%27%20OR%201=1--", "%00", "%0d%0aset-cookie:%20a", "%ff"]
)
def test_a_strange_word_in_a_search_finds_nothing_and_harms_nothing(
    word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with operator_door(tmp_path) as it:
            await send(it, "POST /v1/chat/completions", GOOD, token=SECRET)
            found = await send(it, f"GET /admin/v1/requests?model={word}")
            assert found.status == 400 or found.told["data"] == []
            for line in (f"requests?key={word}", f"requests/{word}", f"keys/{word}", f"{word}"):
                said = await send(it, f"GET /admin/v1/{line}")
                assert said.status in {400, 404}
                assert "set-cookie" not in said.headers
                assert said.error["message"]
            everything = await send(it, "GET /admin/v1/requests")
            assert len(everything.told["data"]) == 1

    run(check())
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    "name", ["<script>", "=cmd()", "a\x00b", "a\r\nb", "\u202e", "", "a" * 10_000]
)
def test_a_key_s_strange_name_is_told_as_json_or_refused(name: str, tmp_path: Path) -> None:
    async def check() -> None:
        async with operator_door(tmp_path) as it:
            said = await send(it, "POST /admin/v1/keys", {"name": name})
            assert said.status in {201, 400}
            listed = await send(it, "GET /admin/v1/keys")
            assert listed.headers["content-type"] == "application/json"
            names = [key["name"] for key in listed.told["data"]]
            assert (name in names) == (said.status == 201)

    run(check())
