"""These tests know what each fault does on the wire, read with a bare socket."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from droveway.sandbox import FAULTS, Profile, Rule, Sandbox, Script, refused_port, running_sandbox

WAIT_S = 10.0
QUIET_S = 0.15


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running_sandbox(profile=Profile(instant=True, answer_tokens=40)) as running:
        yield running


@dataclass
class Wire:
    """What came back on one connection."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""
    body: bytes = b""
    reads: list[bytes] = field(default_factory=list)
    whole: bool = False  # the body ended as its framing promised
    ended: str = "open"  # open | fin | rst

    @property
    def lines(self) -> list[str]:
        return [line[5:].strip() for line in self.text.splitlines() if line.startswith("data:")]

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def events(self) -> list[Any]:
        """The events that are JSON."""
        return [json.loads(line) for line in self.lines if line.startswith('{"')]

    @property
    def finishes(self) -> list[str]:
        choices = [choice for event in self.events for choice in event.get("choices", ())]
        return [c["finish_reason"] for c in choices if c.get("finish_reason")]

    @property
    def usages(self) -> list[Any]:
        return [event["usage"] for event in self.events if event.get("usage")]


def read_wire(wire: Wire) -> None:
    """Take the bytes apart as far as they go."""
    head, _, rest = wire.raw.partition(b"\r\n\r\n")
    if not _:
        return
    first, *lines = head.decode().split("\r\n")
    wire.status = int(first.split()[1])
    wire.headers = dict(line.split(": ", 1) for line in lines)
    if wire.headers.get("transfer-encoding") == "chunked":
        wire.body = b""
        while rest:
            size, _, after = rest.partition(b"\r\n")
            if size == b"0":
                wire.whole = True
                return
            wire.body += after[: int(size, 16)]
            rest = after[int(size, 16) + 2 :]
        return
    wire.body = rest
    length = wire.headers.get("content-length")
    wire.whole = wire.ended == "fin" if length is None else len(rest) == int(length)


def ask(
    box: Sandbox,
    fault: str,
    *,
    stream: bool = True,
    quiet: bool = False,
    usage: bool = True,
    **fields: Any,
) -> Wire:
    """Send one request whose model is a fault; with `quiet`, stop when nothing more comes."""
    request: dict[str, Any] = {
        "model": f"fault-{fault}",
        "messages": [{"role": "user", "content": "Explain the prompt cache of a vendor"}],
        "stream": stream,
        **fields,
    }
    if stream and usage:
        request["stream_options"] = {"include_usage": True}
    body = json.dumps(request).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: box\r\ncontent-length: %d\r\n\r\n"
    wire = Wire()
    with socket.create_connection(("127.0.0.1", box.port), WAIT_S) as client:
        client.sendall(head % len(body) + body)
        client.settimeout(QUIET_S if quiet else WAIT_S)
        while not wire.whole:
            try:
                data = client.recv(1 << 20)
            except TimeoutError:
                assert quiet, f"{fault} left the socket open"
                break
            except ConnectionResetError:
                wire.ended = "rst"
                break
            if not data:
                wire.ended = "fin"
                read_wire(wire)
                break
            wire.reads.append(data)
            wire.raw += data
            read_wire(wire)
            if (
                quiet
                and len(wire.reads) > 5
                and wire.body.endswith((b": keep-alive\n\n", b"\n\n\n"))
            ):
                break
        else:
            client.settimeout(QUIET_S)
            if wire.headers.get("connection") == "close" or wire.body == b"":
                wire.ended = "fin" if client.recv(1) == b"" else "open"
    return wire


def is_good_stream(wire: Wire) -> None:
    assert (wire.status, wire.whole) == (200, True)
    assert wire.lines[-1] == "[DONE]"
    assert wire.finishes == ["stop"]


def plain(status: int, **headers: str) -> Callable[[Sandbox, str], None]:
    def check(box: Sandbox, fault: str) -> None:
        for stream in (True, False):
            wire = ask(box, fault, stream=stream)
            assert (wire.status, wire.whole) == (status, True)
            assert wire.headers["content-type"] == "application/json"
            assert set(json.loads(wire.body)["error"]) == {"message", "type", "param", "code"}
            told = {k: v for k, v in wire.headers.items() if k.startswith("retry")}
            assert told == {name.replace("_", "-"): value for name, value in headers.items()}

    return check


def check_402(box: Sandbox, fault: str) -> None:
    """Vendor quirk: DeepSeek's 402 carries the code of a bad request."""
    plain(402)(box, fault)
    error = json.loads(ask(box, fault).body)["error"]
    assert error["message"] == "Insufficient Balance"
    assert (error["type"], error["code"]) == ("unknown_error", "invalid_request_error")


def date_check(offset_s: int) -> Callable[[Sandbox, str], None]:
    def check(box: Sandbox, fault: str) -> None:
        wire = ask(box, fault)
        at = box.journal[-1].at
        told = parsedate_to_datetime(wire.headers["retry-after"])
        assert wire.status == 429
        assert abs((told - at).total_seconds() - offset_s) <= 1

    return check


def check_502_html(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    assert (wire.status, wire.headers["content-type"]) == (502, "text/html")


def nothing(ended: str) -> Callable[[Sandbox, str], None]:
    def check(box: Sandbox, fault: str) -> None:
        for stream in (True, False):
            wire = ask(box, fault, stream=stream)
            assert (wire.raw, wire.ended) == (b"", ended)
            assert box.journal[-1].status == 0

    return check


def check_cut_head(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    assert wire.raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in wire.raw
    assert wire.ended == "fin"


def check_slow_headers(box: Sandbox, fault: str) -> None:
    assert ask(box, fault, quiet=True).raw == b""
    assert box.journal[-1].status == 0
    is_good_stream(ask(box, f"{fault}:0.05"))


def check_slow_tokens(box: Sandbox, fault: str) -> None:
    wire = ask(box, f"{fault}:0.001")
    is_good_stream(wire)
    seen = box.journal[-1]
    assert seen.ended_at is not None
    assert seen.ended_at - seen.began_at >= 0.001 * (seen.events_sent - 1)


def cut_event(ended: str, *, quiet: bool = False) -> Callable[[Sandbox, str], None]:
    def check(box: Sandbox, fault: str) -> None:
        for count in (0, 1, 3, 7):
            wire = ask(box, f"{fault}:{count}", quiet=quiet)
            assert (wire.status, wire.ended, wire.whole) == (200, ended, False)
            assert len(wire.events) == count == box.journal[-1].events_sent
            assert wire.finishes == []
        wire = ask(box, fault, stream=False, quiet=quiet)
        assert (wire.status, wire.ended, wire.whole) == (200, ended, False)
        assert 0 < len(wire.body) < int(wire.headers["content-length"])

    return check


def cut_byte(ended: str) -> Callable[[Sandbox, str], None]:
    def check(box: Sandbox, fault: str) -> None:
        for count in (0, 1, 57, 500):
            for stream in (True, False):
                wire = ask(box, f"{fault}:{count}", stream=stream)
                assert (wire.status, wire.ended, wire.whole) == (200, ended, False)
                assert len(wire.body) == min(count, box_length(wire))

    return check


def box_length(wire: Wire) -> int:
    return int(wire.headers.get("content-length", 1 << 30))


def check_stall_keepalive(box: Sandbox, fault: str) -> None:
    wire = ask(box, f"{fault}:2", quiet=True)
    assert len(wire.events) == 2
    assert wire.text.count(": keep-alive\n\n") >= 2
    assert not wire.whole
    wire = ask(box, fault, stream=False, quiet=True)
    assert wire.body.strip() == b""
    assert len(wire.body) >= 2


def check_keepalive_first(box: Sandbox, fault: str) -> None:
    wire = ask(box, f"{fault}:2")
    is_good_stream(wire)
    assert wire.text.startswith(": keep-alive\n\n\n: keep-alive\n\n\ndata: ")
    wire = ask(box, f"{fault}:2", stream=False)
    assert wire.body.startswith(b"\n\n{")
    assert json.loads(wire.body)["choices"]


def check_short_length(box: Sandbox, fault: str) -> None:
    for stream in (True, False):
        wire = ask(box, fault, stream=stream)
        assert (wire.ended, wire.whole) == ("fin", False)
        assert int(wire.headers["content-length"]) == len(wire.body) + 100


def check_close_delimited(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    is_good_stream(wire)
    assert not {"content-length", "transfer-encoding"} & set(wire.headers)
    assert wire.headers["connection"] == "close"
    assert json.loads(ask(box, fault, stream=False).body)["choices"]


def check_close_delimited_cut(box: Sandbox, fault: str) -> None:
    wire = ask(box, f"{fault}:4")
    assert (wire.ended, len(wire.events), wire.finishes) == ("fin", 4, [])


def ends(*, finish: bool, done: bool) -> Callable[[Sandbox, str], None]:
    def check(box: Sandbox, fault: str) -> None:
        wire = ask(box, fault)
        assert wire.whole
        assert bool(wire.finishes) is finish
        assert (wire.lines[-1] == "[DONE]") is done
        whole = json.loads(ask(box, fault, stream=False).body)
        assert (whole["choices"][0]["finish_reason"] == "stop") is finish

    return check


def check_finish_twice(box: Sandbox, fault: str) -> None:
    assert ask(box, fault).finishes == ["stop", "stop"]


def check_finish_unknown(box: Sandbox, fault: str) -> None:
    assert ask(box, fault).finishes == ["tired"]
    answer = json.loads(ask(box, fault, stream=False).body)
    assert answer["choices"][0]["finish_reason"] == "tired"


def is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def check_malformed(box: Sandbox, fault: str) -> None:
    wire = ask(box, f"{fault}:3")
    broken = [line for line in wire.lines if not is_json(line) and line != "[DONE]"]
    assert len(broken) == 3
    assert wire.lines[-1] == "[DONE]"
    assert not is_json(ask(box, fault, stream=False).text)


def check_malformed_body(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault, stream=False)
    assert wire.whole
    assert not is_json(wire.text)
    wire = ask(box, fault)
    assert (wire.whole, wire.lines) == (True, [])


def check_error_event(box: Sandbox, fault: str) -> None:
    wire = ask(box, f"{fault}:2")
    assert wire.whole
    assert len(wire.events) == 3
    assert wire.events[-1]["error"]["type"] == "server_error"
    check_error_200(box, fault, streams=(False,))


def check_error_200(box: Sandbox, fault: str, streams: tuple[bool, ...] = (True, False)) -> None:
    for stream in streams:
        wire = ask(box, fault, stream=stream)
        assert (wire.status, wire.headers["content-type"]) == (200, "application/json")
        assert json.loads(wire.body)["error"]["message"]


def check_html_200(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    assert (wire.status, wire.headers["content-type"]) == (200, "text/html")


def check_huge_event(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    is_good_stream(wire)
    assert max(len(line) for line in wire.lines) > 1_000_000
    answer = json.loads(ask(box, fault, stream=False).body)
    assert len(answer["choices"][0]["message"]["content"]) == 1_000_000


def tool(name: str) -> dict[str, Any]:
    number = {"type": "integer"}
    schema = {"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def check_tool_index_reuse(box: Sandbox, fault: str) -> None:
    said = [{"role": "user", "content": "Call add with 2 and 3, then multiply with 4 and 5"}]
    wire = ask(box, fault, messages=said, tools=[tool("add"), tool("multiply")])
    deltas = [e["choices"][0]["delta"] for e in wire.events if e["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert {call["index"] for call in calls} == {0}
    assert len({call["id"] for call in calls if "id" in call}) == 2


def check_no_role(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    is_good_stream(wire)
    assert b'"role"' not in wire.body
    assert b'"role"' not in ask(box, fault, stream=False).body


def check_empty_choices_first(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    is_good_stream(wire)
    assert wire.events[0]["choices"] == []
    assert wire.events[1]["choices"][0]["delta"]["role"] == "assistant"


def check_data_after_done(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    assert wire.lines[-2] == "[DONE]"
    assert json.loads(wire.lines[-1])["choices"][0]["delta"]["content"] == " LATE"


def check_usage_missing(box: Sandbox, fault: str) -> None:
    assert ask(box, fault).usages == []
    assert "usage" not in json.loads(ask(box, fault, stream=False).body)


def check_usage_null(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    assert wire.events[-1]["choices"] == []
    assert wire.usages == []
    assert json.loads(ask(box, fault, stream=False).body)["usage"] is None


def check_usage_twice(box: Sandbox, fault: str) -> None:
    first, second = ask(box, fault).usages
    assert first["completion_tokens"] == second["completion_tokens"] // 2
    assert second["completion_tokens"] == box.journal[-1].completion_tokens


def check_usage_on_choices(box: Sandbox, fault: str) -> None:
    """Vendor quirk: some hosts do so (2026-11)."""
    event = ask(box, fault).events[-1]
    assert event["choices"] == [{"index": 0, "delta": {}}]
    assert event["usage"]["total_tokens"] > 0


def check_usage_on_finish(box: Sandbox, fault: str) -> None:
    event = ask(box, fault).events[-1]
    assert event["choices"][0]["finish_reason"] == "stop"
    assert event["usage"]["total_tokens"] > 0


def usage_is(kind: Callable[[Any], bool]) -> Callable[[Sandbox, str], None]:
    def check(box: Sandbox, fault: str) -> None:
        told = [ask(box, fault).usages[0], json.loads(ask(box, fault, stream=False).body)["usage"]]
        for usage in told:
            for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
                assert kind(usage[name])
        assert box.journal[-1].completion_tokens > 0

    return check


def line_ends(end: bytes) -> Callable[[Sandbox, str], None]:
    def check(box: Sandbox, fault: str) -> None:
        wire = ask(box, fault)
        is_good_stream(wire)
        assert wire.body.endswith(b"data: [DONE]" + end + end)
        assert b"\n" not in wire.body.replace(end, b"")

    return check


def check_split_lines(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault, max_tokens=2)
    assert (wire.whole, wire.lines[-1], wire.finishes) == (True, "[DONE]", ["length"])
    assert wire.raw.count(b"\r\n1\r\n") == len(wire.body)
    assert box.journal[-1].events_sent == len(wire.lines)


def chunks_of(raw: bytes) -> list[bytes]:
    """The chunks of a chunked body, as they were framed."""
    _, _, rest = raw.partition(b"\r\n\r\n")
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return chunks


def check_split_utf8(box: Sandbox, fault: str) -> None:
    said = [{"role": "user", "content": "请介绍提示缓存"}]
    asked: tuple[dict[str, Any], ...] = ({}, {"messages": said})
    for fields in asked:
        wire = ask(box, fault, **fields)
        is_good_stream(wire)
        # Each chunk is a write of the sandbox's own; how many of them one read brings is luck.
        assert any(chunk and chunk[-1] > 0x7F for chunk in chunks_of(wire.raw))
        assert not wire.text.isascii()
    # A whole body has no frames to tell: a read that ends amid a character was a write, and when
    # the machine is busy one read may bring both halves.
    wholes = (ask(box, fault, stream=False) for _ in range(20))
    assert any(read[-1] > 0x7F for whole in wholes for read in whole.reads)


def check_multi_line_data(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    event = wire.text.split("\n\n")[0].split("\n")
    assert [line[:6] for line in event] == ["data: ", "data: "]
    assert json.loads("\n".join(line[6:] for line in event))["choices"]


def check_no_space(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    is_good_stream(wire)
    assert wire.text.startswith('data:{"')
    assert wire.text.endswith("data:[DONE]\n\n")


def check_extra_fields(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    is_good_stream(wire)
    assert wire.text.startswith("event: message\nid: 0\nretry: 3000\ndata: ")


def check_byte_order_mark(box: Sandbox, fault: str) -> None:
    for stream in (True, False):
        assert ask(box, fault, stream=stream).body.startswith(b"\xef\xbb\xbf")


def check_gzip(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    assert wire.headers["content-encoding"] == "gzip"
    wire.body = gzip.decompress(wire.body)
    is_good_stream(wire)
    assert json.loads(gzip.decompress(ask(box, fault, stream=False).body))["choices"]


CHECKS: dict[str, Callable[[Sandbox, str], None]] = {
    **{str(s): plain(s) for s in (400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 504, 529)},
    "402": check_402,
    "429-seconds": plain(429, retry_after="1"),
    "429-ms": plain(429, retry_after_ms="250"),
    "429-negative": plain(429, retry_after="-5"),
    "429-garbage": plain(429, retry_after="soon"),
    "429-huge": plain(429, retry_after="1000000000"),
    "429-date": date_check(2),
    "429-past": date_check(-3600),
    "503-seconds": plain(503, retry_after="1"),
    "529-seconds": plain(529, retry_after="1"),
    "502-html": check_502_html,
    "refuse": nothing("rst"),
    "hang-up": nothing("fin"),
    "cut-head": check_cut_head,
    "slow-headers": check_slow_headers,
    "slow-tokens": check_slow_tokens,
    "cut-event": cut_event("fin"),
    "cut-event-rst": cut_event("rst"),
    "cut-byte": cut_byte("fin"),
    "cut-byte-rst": cut_byte("rst"),
    "stall": cut_event("open", quiet=True),
    "stall-keepalive": check_stall_keepalive,
    "keepalive-first": check_keepalive_first,
    "short-length": check_short_length,
    "close-delimited": check_close_delimited,
    "close-delimited-cut": check_close_delimited_cut,
    "end-without-finish": ends(finish=False, done=False),
    "end-without-done": ends(finish=True, done=False),
    "done-without-finish": ends(finish=False, done=True),
    "finish-twice": check_finish_twice,
    "finish-unknown": check_finish_unknown,
    "malformed": check_malformed,
    "malformed-body": check_malformed_body,
    "error-event": check_error_event,
    "huge-event": check_huge_event,
    "tool-index-reuse": check_tool_index_reuse,
    "no-role": check_no_role,
    "empty-choices-first": check_empty_choices_first,
    "data-after-done": check_data_after_done,
    "usage-missing": check_usage_missing,
    "usage-null": check_usage_null,
    "usage-twice": check_usage_twice,
    "usage-on-choices": check_usage_on_choices,
    "usage-on-finish": check_usage_on_finish,
    "usage-negative": usage_is(lambda n: n < 0),
    "usage-huge": usage_is(lambda n: n == 10**18),
    "usage-float": usage_is(lambda n: isinstance(n, float)),
    "usage-string": usage_is(lambda n: isinstance(n, str)),
    "crlf": line_ends(b"\r\n"),
    "cr": line_ends(b"\r"),
    "split-lines": check_split_lines,
    "split-utf8": check_split_utf8,
    "multi-line-data": check_multi_line_data,
    "no-space": check_no_space,
    "extra-fields": check_extra_fields,
    "byte-order-mark": check_byte_order_mark,
    "gzip": check_gzip,
    "html-200": check_html_200,
    "error-200": check_error_200,
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_does_on_the_wire_what_it_says(box: Sandbox, fault: str) -> None:
    CHECKS[fault](box, fault)
    assert all(seen.fault for seen in box.journal if seen.model == f"fault-{fault}")
    box.forget()


def test_every_fault_has_a_sentence_and_no_check_is_left_over() -> None:
    assert set(CHECKS) == set(FAULTS)
    assert all(says.endswith(".") and says[0].isupper() for says in FAULTS.values())


def test_every_fault_takes_any_request(box: Sandbox) -> None:
    """ours: streams without a usage chunk, tool calls, answers of one token."""
    said = [{"role": "user", "content": "Call add with 2 and 3"}]
    for fault in sorted(set(FAULTS) - {"slow-tokens", "split-lines"}):
        for stream in (True, False):
            few = ask(box, fault, stream=stream, usage=False, max_tokens=1, quiet=True)
            calls = ask(box, fault, stream=stream, messages=said, tools=[tool("add")], quiet=True)
            for wire in (few, calls):
                assert wire.raw or fault in {"refuse", "hang-up", "slow-headers"}


def test_a_fault_for_the_first_requests_of_a_body_passes(box: Sandbox) -> None:
    statuses = [ask(box, "500@2", stream=False).status for _ in range(4)]
    other = ask(box, "500@2", stream=False, max_tokens=9).status
    assert statuses == [500, 500, 200, 200]
    assert other == 500
    assert [seen.attempt for seen in box.journal[-5:]] == [1, 2, 3, 4, 1]


@pytest.mark.parametrize("fault", ["cut-evnt", "429-seconds:x", "cr:3", "stall:-1", "stall@x"])
def test_a_fault_that_is_none_is_refused_loudly(box: Sandbox, fault: str) -> None:
    wire = ask(box, fault)
    assert wire.status == 400
    assert "fault" in json.loads(wire.body)["error"]["message"]


def test_a_header_asks_for_a_fault_of_any_model() -> None:
    with running_sandbox(profile=Profile(instant=True)) as box:
        body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
        head = "POST /chat/completions HTTP/1.1\r\nhost: b\r\nx-sandbox-fault: 503-seconds:7\r\n"
        with socket.create_connection(("127.0.0.1", box.port), WAIT_S) as client:
            client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            wire = Wire(raw=client.recv(1 << 16))
        read_wire(wire)
        assert (wire.status, wire.headers["retry-after"]) == (503, "7")


def test_rules_count_matches_and_times() -> None:
    rules = (
        Rule(model="a*", fault="500", times=2),
        Rule(model="b", fault="400", nth=2),
        Rule(contains="prompt cache", answer="As told."),
    )
    with running_sandbox(profile=Profile(instant=True), script=Script(rules=rules)) as box:

        def status(model: str) -> int:
            return ask(box, "", stream=False, model=model).status

        assert [status("alpha") for _ in range(3)] == [500, 500, 200]
        assert [status("b") for _ in range(3)] == [200, 400, 200]
        answer = json.loads(ask(box, "", stream=False, model="c").body)
        assert answer["choices"][0]["message"]["content"] == "As told."


def test_a_probability_is_seeded() -> None:
    script = Script(rules=(Rule(fault="500", probability=0.5),))
    runs = []
    for seed in (1, 1, 2):
        with running_sandbox(profile=Profile(instant=True), script=script, seed=seed) as box:
            runs.append([ask(box, "", stream=False, model="m").status for _ in range(20)])
    assert runs[0] == runs[1] != runs[2]
    assert set(runs[0]) == {200, 500}


def test_a_refused_port_refuses() -> None:
    with refused_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), WAIT_S)
