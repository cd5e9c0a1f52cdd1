"""Whatever bytes come: answers in turn that are HTTP/1.1, whatever the cuts, and no exception."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import h11
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from droveway.dialects.accents import PLAIN
from droveway.dialects.splice import Spans
from droveway.engine.inquiry import Passed
from droveway.errors import BadRequestError, DrovewayError, InvalidKeyError
from droveway.gateway.connection import PIPELINED_MAX, SLICE_BYTES, Connection
from droveway.gateway.refusal import refuse
from droveway.gateway.visit import Visit

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.data_too_large]
)


class FakeTransport:
    """A socket whose caller reads everything at once."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_over = False
        self.is_reading = True

    def write(self, data: bytes) -> None:
        assert not self.is_over, "nothing is written behind the end"
        self.written += data

    def close(self) -> None:
        self.is_over = True

    write_eof = abort = close

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None: ...


@dataclass
class Seen:
    """What the house saw of a request: the method, the path, the body."""

    method: str
    path: str
    body: bytes


@dataclass
class EchoHouse:
    """Tells each caller what it understood; later, where the path says so."""

    body_bytes_max: int = 200_000
    leaving: bool = False
    seen: list[Seen] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    waiting: list[Visit] = field(default_factory=list)

    def greet(self, visit: Visit) -> None:
        if visit.path.startswith("/no"):
            raise InvalidKeyError("no")

    def serve(self, visit: Visit) -> None:
        self.seen.append(Seen(visit.method, visit.path, visit.body))
        self.methods.append(visit.method)
        if visit.path.startswith("/later"):
            self.waiting.append(visit)
        else:
            self.answer(visit)

    def answer(self, visit: Visit) -> None:
        said = json.dumps([visit.method, visit.path, visit.body.hex()]).encode()
        if visit.path.startswith("/stream") and visit.method != "HEAD":
            visit.start()
            visit.write(said)
            visit.end(b"end")
        else:
            visit.respond(200, said)

    def refuse(self, visit: Visit, error: DrovewayError) -> None:
        self.methods.append(visit.method)
        refuse(visit, error)

    def now(self) -> float:
        return 0.0

    def came(self, connection: Connection) -> None: ...

    def went(self, connection: Connection) -> None: ...


@dataclass(frozen=True)
class Said:
    """What came back: status, headers and body of each answer, and whether the end was said."""

    answers: list[tuple[int, tuple[tuple[bytes, bytes], ...], bytes]]
    is_over: bool


def converse(pieces: Iterable[bytes], *, at_once: bool = False) -> tuple[Said, EchoHouse]:
    """Send bytes in pieces, answer what waits at once or at the end, and read what comes back."""
    house, transport = EchoHouse(), FakeTransport()
    connection = Connection(house, house)
    connection.connection_made(transport)  # type: ignore[arg-type]
    unsent = [piece for piece in pieces if piece]
    while True:
        while unsent and transport.is_reading:
            connection.data_received(unsent.pop(0))
            if at_once:
                answer_all(house)
        if not house.waiting and not unsent:
            break
        answer_all(house)
    assert not connection.busy
    said = Said(list(read_answers(bytes(transport.written), house.methods)), transport.is_over)
    connection.connection_lost(None)
    return said, house


def answer_all(house: EchoHouse) -> None:
    while house.waiting:
        house.answer(house.waiting.pop(0))


def read_answers(
    data: bytes, methods: Iterable[str]
) -> Iterator[tuple[int, tuple[tuple[bytes, bytes], ...], bytes]]:
    """Read the answers to requests as a strict client does; nothing may be left over."""
    for method in methods:
        client = h11.Connection(h11.CLIENT)
        asked = h11.Request(method=method or "GET", target="/", headers=[("host", "x")])
        client.send(asked)
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        while isinstance(event := client.next_event(), h11.InformationalResponse):
            assert event.status_code == 100
        assert isinstance(event, h11.Response), event
        body = b""
        while isinstance(piece := client.next_event(), h11.Data):
            body += bytes(piece.data)
        if piece is h11.NEED_DATA:
            client.receive_data(b"")
            piece = client.next_event()
        assert isinstance(piece, h11.EndOfMessage), piece
        yield event.status_code, tuple(event.headers), body
        data = client.trailing_data[0]
    data = data.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert data == b""


# Requests as they are sent, some of them in good order.

PATHS = ("/", "/later", "/stream", "/no", "/later/stream", "/stream?a=b")
METHODS = ("GET", "POST", "HEAD", "DELETE", "OPTIONS")
FURTHER = (
    b"Connection: keep-alive\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    b"Expect: 100-continue\r\n",
    b"Authorization: Bearer key\r\n",
    b"Accept: */*\r\nUser-Agent: somebody/1.0 (some; where)\r\n",
)


@st.composite
def good_requests(draw: st.DrawFn) -> tuple[bytes, Seen]:
    """A request that is understood in one way only."""
    method, path = draw(st.sampled_from(METHODS)), draw(st.sampled_from(PATHS))
    body = draw(st.one_of(st.just(b""), st.binary(max_size=40), st.just(b"GET / HTTP/1.1\r\n\r\n")))
    lines = b"".join(draw(st.lists(st.sampled_from(FURTHER), max_size=2, unique=True)))
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode() + lines
    if draw(st.booleans()):
        cut = draw(st.integers(0, len(body)))
        chunks = b"".join(b"%x;e=f\r\n%b\r\n" % (len(c), c) for c in (body[:cut], body[cut:]) if c)
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: x\r\n\r\n"
    elif body or draw(st.booleans()):
        sent = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    else:
        sent = head + b"\r\n"
    return sent, Seen(method, path.partition("?")[0], body)


BAD = (
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"POST /later HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    b"POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\nabc",
    b"GET /\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
MORSELS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b" ",
    b":",
    b"0",
    b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Connection: close\r\n",
    b"Host: x\r\n",
    b"\xff",
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A few requests behind each other, with a few wounds."""
    good = good_requests().map(lambda made: made[0])
    sent = b"".join(draw(st.lists(st.one_of(good, st.sampled_from(BAD)), max_size=4)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(sent)))
        upto = at + draw(st.integers(0, 3))
        sent = sent[:at] + draw(st.sampled_from((*MORSELS, b""))) + sent[upto:]
    return sent


def cuts_of(data: st.DataObject, sent: bytes) -> list[bytes]:
    places = data.draw(st.lists(st.integers(0, len(sent)), max_size=8, unique=True).map(sorted))
    return [sent[a:b] for a, b in zip([0, *places], [*places, len(sent)], strict=True)]


@settings(QUICK, max_examples=200)
@given(st.one_of(mutated(), st.binary(max_size=200)), st.data())
def test_any_bytes_get_the_same_valid_answers_whatever_the_cuts(
    sent: bytes, data: st.DataObject
) -> None:
    whole, _ = converse([sent])
    cut, _ = converse(cuts_of(data, sent))
    assert cut == whole
    promptly, _ = converse(cuts_of(data, sent), at_once=True)
    assert promptly == whole
    for status, headers, _ in whole.answers[:-1]:
        assert status in {200, 400, 401, 413}
        assert (b"connection", b"close") not in headers
    if whole.answers:
        assert ((b"connection", b"close") in whole.answers[-1][1]) == whole.is_over


@QUICK
@given(st.lists(good_requests(), max_size=5), st.data())
def test_the_house_sees_the_requests_that_were_sent_and_no_others(
    made: list[tuple[bytes, Seen]], data: st.DataObject
) -> None:
    said, house = converse(cuts_of(data, b"".join(sent for sent, _ in made)))
    expected = []
    for sent, seen in made:
        if not seen.path.startswith("/no"):
            expected.append(seen)
        elif b"\r\nTransfer-Encoding" in sent or (b"\r\nExpect" in sent and seen.body):
            break  # it is refused before its body, and what follows is not heard
    assert house.seen == expected
    answered = [body for status, _, body in said.answers if status == 200]
    for seen, body in zip(expected, answered, strict=True):
        told = json.dumps([seen.method, seen.path, seen.body.hex()]).encode()
        assert body.removesuffix(b"end") == (b"" if seen.method == "HEAD" else told)


@pytest.mark.parametrize("sent", BAD)
def test_one_byte_at_a_time_is_the_same_as_all_at_once(sent: bytes) -> None:
    whole, _ = converse([sent])
    assert converse([sent[at : at + 1] for at in range(len(sent))])[0] == whole
    assert whole.answers
    assert whole.is_over


@pytest.mark.parametrize("path", ["/", "/later", "/stream"])
def test_thousands_of_requests_in_one_piece_are_answered_in_turn(path: str) -> None:
    """Ours: answers within answers would be as deep as the requests are many."""
    count = 5_000
    lines = b"\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n"
    sent = b"".join(b"GET %b?%d HTTP/1.1" % (path.encode(), n) + lines for n in range(count))
    said, house = converse([sent[at : at + 2**18] for at in range(0, len(sent), 2**18)])
    assert [status for status, _, _ in said.answers] == [200] * count
    assert len(house.seen) == count


def test_whoever_is_far_ahead_is_read_no_further() -> None:
    house, transport = EchoHouse(), FakeTransport()
    connection = Connection(house, house)
    connection.connection_made(transport)  # type: ignore[arg-type]
    asked, count = b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n", 3_000
    connection.data_received(asked * count)
    assert not transport.is_reading
    assert len(connection._turns) <= PIPELINED_MAX + SLICE_BYTES // len(asked)
    for left in reversed(range(count)):
        house.answer(house.waiting.pop(0))
        assert transport.is_reading == (left <= PIPELINED_MAX)
    assert len(house.seen) == count


# What is written to a caller.


def visit_of(sent: bytes) -> tuple[Visit, FakeTransport, Connection]:
    house, transport = EchoHouse(), FakeTransport()
    connection = Connection(house, house)
    connection.connection_made(transport)  # type: ignore[arg-type]
    connection.data_received(sent)
    return house.waiting[0], transport, connection


def test_a_request_is_answered_once_and_nothing_follows() -> None:
    visit, transport, _ = visit_of(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    visit.respond(200, b"1")
    said = bytes(transport.written)
    again: Callable[[], None] = partial(visit.respond, 200, b"2")
    further: Callable[[], None] = partial(visit.write, b"2")
    for late in (again, further, visit.start, visit.end):
        with pytest.raises(AssertionError):
            late()
    visit.cut()
    assert bytes(transport.written) == said
    assert not transport.is_over, "the next answer goes out on it"


def test_what_is_written_to_a_caller_who_is_gone_is_dropped() -> None:
    for hangs_up in (True, False):
        visit, transport, connection = visit_of(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
        told: list[bool] = []
        visit.on_gone = partial(told.append, True)
        if hangs_up:
            connection.eof_received()
        connection.connection_lost(None)
        assert told == [True]
        assert visit.gone
        for late in (partial(visit.respond, 200, b""), visit.start, visit.end, visit.cut):
            late()
        visit.write(b"late")
        assert not transport.written
        assert not connection.busy


# Bodies.

FRAGMENTS = (
    b'"model":"a"',
    b'"messages":[]',
    b'"messages":[{"role":"user","content":"\\u00e4 \\"q\\" \xc3\xa4"}]',
    b'"stream":true',
    b'"stream_options":null',
    b'"stream_options":{ "include_usage" : false }',
    b'"max_tokens":12',
    b'"max_tokens":1',
    b'"max_tokens":1.5',
    b'"n":-0',
    b'"x":[{"model":"b"},"}",null,1e5]',
    b'"\\u006dodel":"c"',
    b'"\\\\\\"":"\\\\"',
    b'""  : {}',
)
BLANKS = st.sampled_from((b"", b"", b" ", b"\r\n\t"))


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    members = draw(st.lists(st.sampled_from(FRAGMENTS), max_size=7))
    inner = b",".join(draw(BLANKS) + member + draw(BLANKS) for member in members)
    return draw(BLANKS) + b"{" + inner + b"}" + draw(BLANKS)


@st.composite
def wounded_objects(draw: st.DrawFn) -> bytes:
    body = draw(objects())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        morsel = draw(st.one_of(st.sampled_from((b'"', b"\\", b",", b"{", b"}")), st.binary()))
        body = body[:at] + morsel + body[at + draw(st.integers(0, 2)) :]
    return body


@settings(QUICK, max_examples=300)
@given(st.one_of(objects(), wounded_objects(), st.binary(max_size=60)))
def test_any_body_is_a_request_or_a_bad_one(body: bytes) -> None:
    try:
        inquiry = Passed(body)
        inquiry.check()
    except BadRequestError:
        return
    pairs = json.loads(body.decode("utf-8", "replace"), object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), "of two values, a vendor may take the other one"
    told = dict(pairs)
    assert told["model"] == inquiry.model
    assert told.get("max_tokens") == inquiry.max_tokens
    assert bool(told.get("stream")) == inquiry.stream


@QUICK
@given(objects(), st.sampled_from((None, 7)), st.sampled_from(("a", "dear", 'x"\\\n')))
def test_a_splice_leaves_every_other_byte_as_it_was(
    body: bytes, cap: int | None, model: str
) -> None:
    try:
        inquiry = Passed(body)
    except BadRequestError:
        return
    sent = inquiry.body(model=model, accent=PLAIN, output_cap=cap)
    before, after = Spans(body).values, Spans(sent).values
    assert json.loads(after["model"]) == model
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed <= {"model", "stream_options", PLAIN.cap_field}
    if inquiry.stream:
        assert msgspec.json.decode(after["stream_options"])["include_usage"] is True
    # What stands between the values is where it was, but for what was added at the end.
    for key in before.keys() - {PLAIN.cap_field}:
        sent = sent.replace(after[key], before[key], 1) if key in changed else sent
    added = b"".join(b',"%b":%b' % (key.encode(), after[key]) for key in after if key not in before)
    assert sent.replace(added, b"", 1) == body
