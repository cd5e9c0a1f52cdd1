"""These tests know how the sandbox's embeddings look to the official OpenAI SDK."""

import base64
import json
import math
import re
import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.sandbox import FAULTS, Limits, Profile, Rule, Sandbox, Script, running_sandbox
from droveway.sandbox.asked import RefusedError
from droveway.sandbox.embeddings import INPUT_TOKENS_MAX, read_wanted
from droveway.sandbox.tokens import tokenize

INSTANT = Profile(instant=True)
MODEL = "text-embedding-3-small"
# What these bend, a stream's events or a chat's choices, embeddings do not have.
FOR_CHATS_ONLY = {
    *("end-without-finish", "end-without-done", "done-without-finish", "finish-twice"),
    *("finish-unknown", "huge-event", "tool-index-reuse", "no-role", "empty-choices-first"),
    *("data-after-done", "usage-twice", "usage-on-choices", "usage-on-finish", "crlf", "cr"),
    *("split-utf8", "multi-line-data", "no-space", "extra-fields"),
}
# They change when the bytes come, not which.
SAME_BYTES = {"split-lines", "slow-tokens"}


def sdk(box: Sandbox, **options: Any) -> openai.OpenAI:
    told = {"api_key": "key", "max_retries": 0, "timeout": 10, **options}
    return openai.OpenAI(base_url=box.base_url, **told)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running_sandbox(profile=INSTANT) as running:
        yield running


@pytest.fixture(scope="module")
def client(box: Sandbox) -> Iterator[Any]:
    with sdk(box) as made:
        yield made


def vectors(client: Any, asked: object, **fields: Any) -> list[list[float]]:
    told = client.embeddings.create(model=MODEL, input=asked, **fields)
    assert [each.index for each in told.data] == list(range(len(told.data)))
    return [each.embedding for each in told.data]


def raw(box: Sandbox, body: bytes, fault: str = "") -> bytes:
    """Send one request; return what came until the connection ended or nothing more did."""
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: box\r\ncontent-length: {len(body)}\r\n"
    head += f"x-sandbox-fault: {fault}\r\nconnection: close\r\n\r\n"
    said = b""
    with socket.create_connection(("127.0.0.1", box.port), 10) as wire:
        wire.sendall(head.encode() + body)
        wire.settimeout(0.3)
        try:
            while data := wire.recv(1 << 16):
                said += data
                if said.endswith(b"\r\n1\r\n\n\r\n"):  # blank lines without end
                    break
        except (TimeoutError, ConnectionResetError):
            pass
    return re.sub(rb"x-request-id: .*\r\n", b"", said)


def test_a_text_becomes_one_vector_of_length_one(box: Sandbox, client: Any) -> None:
    told = client.embeddings.create(model=MODEL, input="The harbour crane lifts a box.")
    (only,) = told.data
    assert (told.object, only.object, told.model) == ("list", "embedding", MODEL)
    assert len(only.embedding) == 1536
    assert math.hypot(*only.embedding) == pytest.approx(1, abs=1e-6)
    tokens = len(tokenize("The harbour crane lifts a box."))
    assert (told.usage.prompt_tokens, told.usage.total_tokens) == (tokens, tokens)
    seen = box.journal[-1]
    assert (seen.path, seen.model, seen.status) == ("/v1/embeddings", MODEL, 200)
    assert (seen.prompt_tokens, seen.completion_tokens, seen.tokens_sent) == (tokens, 0, 0)


def test_the_four_forms_of_input_are_taken_in_order(client: Any) -> None:
    one, two = vectors(client, ["crane", "box"])
    assert vectors(client, "crane") == [one]
    assert vectors(client, ["box", "crane"]) == [two, one]
    assert vectors(client, [[7, 8], [9]]) == [*vectors(client, [7, 8]), *vectors(client, [9])]
    assert len({tuple(v) for v in (one, two, *vectors(client, [[7, 8], [9]]))}) == 4


def test_tokens_are_counted_as_they_are_given(client: Any) -> None:
    told = client.embeddings.create(model=MODEL, input=[[1, 2, 3], [4]])
    assert told.usage.total_tokens == 4
    assert client.embeddings.create(model=MODEL, input="船坞").usage.total_tokens == 2


def test_floats_and_base64_are_the_same_numbers(box: Sandbox, client: Any) -> None:
    said = raw(
        box, msgspec.json.encode({"model": MODEL, "input": "a", "encoding_format": "base64"})
    )
    packed = json.loads(said.partition(b"\r\n\r\n")[2])["data"][0]["embedding"]
    numbers = struct.unpack("<1536f", base64.b64decode(packed))
    plain = json.loads(
        raw(box, msgspec.json.encode({"model": MODEL, "input": "a"})).partition(b"\r\n\r\n")[2]
    )["data"][0]["embedding"]
    assert list(numbers) == plain == vectors(client, "a")[0]
    assert vectors(client, "a", encoding_format="float") == [plain]


@pytest.mark.parametrize("dimensions", [1, 2, 256, 1536])
def test_dimensions_cut_the_vector_and_keep_its_direction(client: Any, dimensions: int) -> None:
    (whole,), (cut,) = vectors(client, "a"), vectors(client, "a", dimensions=dimensions)
    assert len(cut) == dimensions
    length = math.hypot(*whole[:dimensions])
    assert cut == pytest.approx([number / length for number in whole[:dimensions]], abs=1e-6)


def test_the_seed_and_the_model_decide_the_vector(client: Any) -> None:
    with running_sandbox(profile=INSTANT, seed=1) as other, sdk(other) as another:
        assert vectors(another, "a") != vectors(client, "a")
    by_model = client.embeddings.create(model="other", input="a")
    assert [by_model.data[0].embedding] != vectors(client, "a")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "a"}, "model"),
        ({"model": "", "input": "a"}, "model"),
        ({"model": MODEL}, "input"),
        ({"model": MODEL, "input": ""}, "input"),
        ({"model": MODEL, "input": []}, "input"),
        ({"model": MODEL, "input": ["a", ""]}, "input"),
        ({"model": MODEL, "input": ["a", 1]}, "input"),
        ({"model": MODEL, "input": [[]]}, "input"),
        ({"model": MODEL, "input": [1, -1]}, "input"),
        ({"model": MODEL, "input": [True]}, "input"),
        ({"model": MODEL, "input": [[[1]]]}, "input"),
        ({"model": MODEL, "input": {"text": "a"}}, "input"),
        ({"model": MODEL, "input": ["a"] * 2049}, "input"),
        ({"model": MODEL, "input": [1] * (INPUT_TOKENS_MAX + 1)}, "input"),
        ({"model": MODEL, "input": [[1] * INPUT_TOKENS_MAX] * 37}, "input"),
        ({"model": MODEL, "input": "a", "dimensions": 0}, "dimensions"),
        ({"model": MODEL, "input": "a", "dimensions": 1537}, "dimensions"),
        ({"model": MODEL, "input": "a", "dimensions": True}, "dimensions"),
        ({"model": MODEL, "input": "a", "dimensions": "9"}, "dimensions"),
        ({"model": MODEL, "input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"model": MODEL, "input": "a", "encoding_format": []}, "encoding_format"),
        ([], None),
    ],
)
def test_what_a_vendor_would_refuse_is_refused_in_its_shape(
    box: Sandbox, fields: object, param: str | None
) -> None:
    said = raw(box, json.dumps(fields).encode())
    assert said.startswith(b"HTTP/1.1 400 ")
    error = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert box.journal[-1].status == 400
    assert box.journal[-1].prompt_tokens == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(JSON, JSON, JSON)
def test_any_json_is_read_or_refused(asked: object, dimensions: object, encoding: object) -> None:
    fields = {"model": "m", "input": asked, "dimensions": dimensions, "encoding_format": encoding}
    try:
        wanted = read_wanted(json.dumps(fields).encode())
    except RefusedError as refused:
        assert refused.status == 400
        return
    assert wanted.tokens >= len(wanted.inputs) >= 1


def test_only_a_post_with_a_known_key_is_served() -> None:
    with running_sandbox(profile=INSTANT, api_keys={"good"}) as box:
        with sdk(box, api_key="good") as client:
            vectors(client, "a")
            with pytest.raises(openai.APIStatusError) as caught:
                client.get("/embeddings", cast_to=object)
            assert caught.value.status_code == 405
        with sdk(box, api_key="bad") as client, pytest.raises(openai.AuthenticationError):
            vectors(client, "a")
        assert [seen.status for seen in box.journal] == [200, 405, 401]


def test_the_limits_hold_for_embeddings_too() -> None:
    with running_sandbox(profile=INSTANT, limits=Limits(tpm=100)) as box, sdk(box) as client:
        got = client.embeddings.with_raw_response.create(model=MODEL, input=[1] * 90)
        assert got.headers["x-ratelimit-limit-tokens"] == "100"
        with pytest.raises(openai.RateLimitError) as caught:
            vectors(client, [1] * 90)
        assert int(caught.value.response.headers["retry-after"]) > 0
        client.embeddings.create(model="another", input=[1] * 90)


def test_a_rule_of_a_script_is_suffered() -> None:
    rule = Rule(model="text-*", contains="crane", fault="503", times=1)
    script = Script(rules=(Rule(contains="box", fault="finish-twice"), rule))
    with running_sandbox(profile=INSTANT, script=script) as box, sdk(box) as client:
        vectors(client, "the box is left alone")
        with pytest.raises(openai.InternalServerError):
            vectors(client, "the crane")
        vectors(client, "the crane")
        vectors(client, [1, 2])
        assert [seen.fault for seen in box.journal] == [None, "503", None, None]


def test_every_fault_is_suffered_or_does_not_concern_embeddings(box: Sandbox) -> None:
    body = msgspec.json.encode({"model": MODEL, "input": "crane", "dimensions": 8})
    good = raw(box, body)
    assert good.startswith(b"HTTP/1.1 200 ")
    for fault in sorted(FAULTS):
        said = raw(box, body, f"{fault}:0.01" if fault == "slow-tokens" else fault)
        suffered = box.journal[-1].fault
        if fault in FOR_CHATS_ONLY:
            assert (suffered, said) == (None, good)
        else:
            assert (suffered or "").partition(":")[0] == fault
            assert (said == good) == (fault in SAME_BYTES), fault


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("400", openai.BadRequestError),
        ("401", openai.AuthenticationError),
        ("429", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("refuse", openai.APIConnectionError),
        ("hang-up", openai.APIConnectionError),
        ("cut-byte", openai.APIConnectionError),
        ("short-length", openai.APIConnectionError),
        ("slow-headers", openai.APITimeoutError),
    ],
)
def test_the_sdk_meets_the_fault_that_the_models_name_asks_for(
    box: Sandbox, fault: str, kind: type[openai.APIError]
) -> None:
    with sdk(box, timeout=0.3) as client, pytest.raises(kind):
        client.embeddings.create(model=f"fault-{fault}", input="a")


def test_a_fault_for_the_first_request_passes_and_the_sdk_tries_again(box: Sandbox) -> None:
    box.forget()
    with sdk(box, max_retries=2) as client:
        client.embeddings.create(model="fault-429-ms:1@1", input="a")
    assert [(seen.status, seen.attempt) for seen in box.journal] == [(429, 1), (200, 2)]
    assert [seen.prompt_tokens for seen in box.journal] == [0, 1]


def test_a_wrong_usage_is_told_and_the_journal_knows_the_right_one(box: Sandbox) -> None:
    told = {}
    for fault in ("missing", "null", "negative", "huge", "float", "string"):
        asked = {"model": f"fault-usage-{fault}", "input": [1, 2, 3]}
        said = raw(box, msgspec.json.encode(asked)).partition(b"\r\n\r\n")[2]
        told[fault] = json.loads(said).get("usage", "absent")
        assert box.journal[-1].prompt_tokens == 3

    def both(count: object) -> dict[str, object]:
        return {"prompt_tokens": count, "total_tokens": count}

    assert told == {
        "missing": "absent",
        "null": None,
        "negative": both(-4),
        "huge": both(10**18),
        "float": both(3.5),
        "string": both("3"),
    }
