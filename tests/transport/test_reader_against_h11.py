"""The reader must say what h11, an independent reading of RFC 9112, says: byte for byte or error."""

import gzip
import itertools
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from droveway.errors import ProtocolError, UpstreamError
from droveway.transport.folding import unfolded
from droveway.transport.inflating import Inflater
from droveway.transport.message import ResponseHead
from droveway.transport.reader import ResponseReader

Head = tuple[int, list[tuple[str, str]]]


@dataclass
class Collector:
    head: ResponseHead | None = None
    body: bytes = b""
    ends: list[str] = field(default_factory=list)

    def on_head(self, head: ResponseHead) -> None:
        assert self.head is None
        self.head = head

    def on_chunk(self, data: bytes) -> None:
        assert data
        assert self.head
        self.body += data

    def on_done(self) -> None:
        self.ends.append("done")

    def on_error(self, error: UpstreamError) -> None:
        self.ends.append("error")


@dataclass(frozen=True)
class Wire:
    """A response as sent, and what is in it."""

    raw: bytes
    plain: bytes
    unpack: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Reading:
    """What a reader made of it; None for a head or body that it refused."""

    head: Head | None
    body: bytes | None


def ours(pieces: Iterable[bytes], *, head_bytes_max: int = 65_536) -> Reading:
    """Our reading of a response that ends with the connection."""
    sink = Collector()
    reader = ResponseReader(whence="peer:1", head_bytes_max=head_bytes_max)
    reader.begin(sink)
    try:
        for piece in pieces:
            if not reader.complete:
                reader.feed(piece)
    except ProtocolError:
        return Reading(_head(sink), None)
    return Reading(_head(sink), sink.body if reader.ended() else None)


def _head(sink: Collector) -> Head | None:
    """The head; h11 gives the value of this one header in lower case."""
    if sink.head is None:
        return None
    lower = {"transfer-encoding"}
    return sink.head.status, [(k, v.lower() if k in lower else v) for k, v in sink.head.headers]


def theirs(raw: bytes) -> Reading:
    """h11's reading of the same."""
    client = h11.Connection(h11.CLIENT)
    client.send(
        h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")])
    )
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    if client.trailing_data[1] is False:
        client.receive_data(b"")
    head: Head | None = None
    body = b""
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                head = (
                    event.status_code,
                    [
                        (name.decode("latin-1"), value.decode("latin-1"))
                        for name, value in event.headers
                    ],
                )
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Reading(head, body)
            elif not isinstance(event, h11.InformationalResponse):
                return Reading(head, None)
    except h11.RemoteProtocolError:
        return Reading(head, None)


def cut(raw: bytes, at: Iterable[int]) -> list[bytes]:
    marks = sorted({mark % (len(raw) + 1) for mark in at} | {0, len(raw)})
    return [raw[a:b] for a, b in itertools.pairwise(marks)]


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: Final[dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]] = {
    "": (bytes, bytes),
    "identity": (bytes, bytes),
    "gzip": (gzip.compress, gzip.decompress),
    "GZip": (gzip.compress, gzip.decompress),
    "x-gzip": (lambda d: gzip.compress(d[:3]) + gzip.compress(d[3:]), gzip.decompress),
    "deflate": (zlib.compress, zlib.decompress),
    "Deflate": (raw_deflate, lambda d: zlib.decompress(d, wbits=-15)),
}
TOKENS = st.text("abcXYZ019-_!", min_size=1, max_size=8).map(lambda name: f"x-{name}")
WORDS = st.text('ab1,;="/é\xff', min_size=1, max_size=6)
PADS = st.sampled_from(["", " ", "\t", "  \t"])
FOLDS = st.sampled_from([" ", "\t", "  ", "\r\n ", " \r\n\t", "\r\n  \t "])


@st.composite
def header_lines(draw: st.DrawFn) -> str:
    value = draw(WORDS)
    for word in draw(st.lists(WORDS, max_size=2)):
        value += draw(FOLDS) + word
    return f"{draw(TOKENS)}:{draw(PADS)}{value}{draw(PADS)}\r\n"


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    extensions = st.sampled_from(["", ";a=b", ';a="b;c"', ";x", "  "])
    sizes = st.sampled_from(["{:x}", "{:X}", "00{:x}"])
    out = b""
    while body:
        length = draw(st.integers(1, len(body)))
        size = draw(sizes).format(length) + draw(extensions)
        out += size.encode() + b"\r\n" + body[:length] + b"\r\n"
        body = body[length:]
    trailers = draw(st.lists(TOKENS, max_size=2))
    return out + b"0\r\n" + "".join(f"{name}: t\r\n" for name in trailers).encode() + b"\r\n"


@st.composite
def responses(draw: st.DrawFn) -> Wire:
    coding = draw(st.sampled_from(sorted(CODINGS)))
    pack, unpack = CODINGS[coding]
    plain = draw(st.binary(max_size=40)) * draw(st.sampled_from([1, 1, 60]))
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 404, 429, 500, 503, 529, 999]))
    bodiless = status in (204, 304)
    packed = b"" if bodiless else pack(plain)
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    version = draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    lines = draw(st.lists(header_lines(), max_size=4))
    cased = draw(st.sampled_from([str.lower, str.upper, str.title]))
    if coding:
        lines.append(f"{cased('content-encoding')}: {coding}\r\n")
    if framing == "length":
        lines.append(f"{cased('content-length')}:{draw(PADS)}{len(packed)}\r\n")
    elif framing == "chunked" and not bodiless:
        lines.append(f"{cased('transfer-encoding')}: {cased('chunked')}\r\n")
        packed = draw(chunked(packed))
    lines = draw(st.permutations(lines))
    early = draw(st.lists(st.sampled_from(["100 Continue", "103 Early", "102"]), max_size=2))
    raw = "".join(f"HTTP/1.1 {line}\r\nLink: a\r\n\r\n" for line in early)
    raw += f"HTTP/{version} {status}{draw(st.sampled_from([' OK', ' ', '', ' No way é']))}\r\n"
    head = (raw + "".join(lines) + "\r\n").encode("latin-1")
    return Wire(head + packed, b"" if bodiless else plain, bytes if bodiless else unpack)


@given(responses(), st.lists(st.integers(0, 1000), max_size=8))
@settings(max_examples=400, deadline=None)
def test_a_response_reads_as_h11_reads_it_however_it_is_cut(wire: Wire, at: list[int]) -> None:
    """spec: RFC 9112; h11 unpacks nothing, so its body is unpacked by gzip and zlib."""
    expected = theirs(wire.raw)
    assert expected.body is not None
    got = ours(cut(wire.raw, at))
    assert got.head == expected.head
    assert got.body == wire.plain == wire.unpack(expected.body)


@given(responses())
@settings(max_examples=60, deadline=None)
def test_a_response_may_come_byte_by_byte(wire: Wire) -> None:
    raw = wire.raw[:3000]
    assert ours(raw[i : i + 1] for i in range(len(raw))) == ours([raw])


def without_empty_lines(raw: bytes) -> bytes:
    early = b""
    while raw.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")):
        head, end, raw = raw.partition(b"\r\n\r\n")
        early += head + end
        raw = raw.lstrip(b"\r\n")
    return early + raw


INTERESTING = [
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"0",
    b"9",
    b"f",
    b";",
    b"-",
    b"+",
    b",",
    b"\x7f",
]
INTERESTING += [
    b"\r\n",
    b"\r\n ",
    b"\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"\xff",
]


@given(
    wire=responses(),
    where=st.integers(0, 400),
    drop=st.integers(0, 3),
    put=st.sampled_from([b"", *INTERESTING]),
    at=st.lists(st.integers(0, 400), max_size=3),
)
@settings(max_examples=800, deadline=None)
def test_a_broken_response_is_refused_or_reads_as_h11_reads_it(
    *, wire: Wire, where: int, drop: int, put: bytes, at: list[int]
) -> None:
    """ours: nothing that h11 refuses becomes an answer, and no answer differs from h11's.

    One leniency of llhttp is let pass: empty lines between an informational head and the next.
    """
    where %= len(wire.raw)
    raw = wire.raw[:where] + put + wire.raw[where + drop :]
    got = ours(cut(raw, at))
    if got.body is None or got.head is None:
        return
    expected = theirs(without_empty_lines(raw))
    assert expected.body is not None
    assert got.head == expected.head
    if not any(name == "content-encoding" for name, _ in got.head[1]):
        assert got.body == expected.body


def test_a_bomb_stops_at_the_limit_of_the_body() -> None:
    """ours: the limit counts unpacked bytes, whatever the ratio."""
    packed = gzip.compress(bytes(50_000_000))
    assert len(packed) < 60_000
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    sink = Collector()
    reader = ResponseReader(whence="peer:1")
    reader.begin(sink, body_bytes_max=1_000_000)
    with pytest.raises(ProtocolError, match=r"body of peer:1's response is beyond 1,000,000 bytes"):
        reader.feed(head + packed)
    assert len(sink.body) <= 1_000_000


def test_a_large_packed_body_is_whole() -> None:
    plain = bytes(range(256)) * 20_000
    for pack, name in (
        (gzip.compress, "gzip"),
        (zlib.compress, "deflate"),
        (raw_deflate, "deflate"),
    ):
        packed = pack(plain)
        raw = f"HTTP/1.1 200 OK\r\nContent-Encoding: {name}\r\n\r\n".encode() + packed
        assert ours(cut(raw, range(0, len(raw), 997))).body == plain


def test_all_that_can_be_unpacked_so_far_is_unpacked() -> None:
    """ours: what a stream has sent is not held back until it sends more."""
    for packed, coding, window in (
        (gzip.compress(bytes(200_000)), "gzip", 31),
        (zlib.compress(bytes(200_000)), "deflate", 15),
    ):
        for length in range(2, len(packed)):
            got = b"".join(Inflater(coding, whence="peer:1").pieces(packed[:length]))
            assert got == zlib.decompressobj(window).decompress(packed[:length])


def test_bytes_behind_a_packed_body_are_refused() -> None:
    for name, packed in (("deflate", zlib.compress(b"words")), ("gzip", gzip.compress(b"words"))):
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {name}\r\n\r\n".encode()
        assert ours([head + packed]).body == b"words"
        assert ours([head + packed + b"more"]).body is None
        assert ours([head + packed, b"more"]).body is None


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, raw_deflate])
def test_a_packed_body_that_stops_amid_itself_is_refused(pack: Callable[[bytes], bytes]) -> None:
    name = "gzip" if pack is gzip.compress else "deflate"
    packed = pack(b"some words and more words")
    for length in range(1, len(packed)):
        part = packed[:length]
        for framing in (b"Content-Length: %d\r\n" % length, b""):
            head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\n" % name.encode()
            assert ours([head + framing + b"\r\n" + part]).body is None


BAD_HEADS = {
    "an unknown content coding": b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n",
    "two content codings": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\n\r\n",
    "an unknown transfer coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a protocol switch": b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\n\r\n",
    "a control character behind the status": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a fold before any header": b"HTTP/1.1 200 OK\r\n X: y\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\xa5",
    "an SSH server": b"SSH-2.0-OpenSSH_9.2\r\n",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"\r\n",
    "a huge header": b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\n\r\n",
    "many large headers": b"HTTP/1.1 200 OK\r\n" + (b"a: " + b"b" * 1000 + b"\r\n") * 70 + b"\r\n",
}


@pytest.mark.parametrize("raw", BAD_HEADS.values(), ids=BAD_HEADS)
@pytest.mark.parametrize("step", [1, 100, 1_000_000])
def test_a_bad_head_is_refused_before_the_sink_hears_of_it(raw: bytes, step: int) -> None:
    assert ours(raw[i : i + step] for i in range(0, len(raw), step)) == Reading(None, None)


@pytest.mark.parametrize("endless", [b"5;" + b"x" * 100, b"0\r\nTrailer: " + b"x" * 100])
def test_endless_framing_is_cut_off(endless: bytes) -> None:
    """ours: chunk extensions and trailers cost memory and time as heads do."""
    reader = ResponseReader(whence="peer:1", head_bytes_max=1000)
    reader.begin(Collector())
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    reader.feed(endless)
    for _ in range(9 - len(endless) // 100):
        reader.feed(b"x" * 100)
    with pytest.raises(ProtocolError, match="beyond 1,000 bytes"):
        reader.feed(b"x" * 200)


def test_informational_heads_without_end_are_cut_off() -> None:
    assert ours([b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"] * 20_000) == Reading(None, None)


def test_what_a_sink_raises_comes_out_as_it_is() -> None:
    class Broken(Collector):
        def on_chunk(self, data: bytes) -> None:
            raise KeyError("a defect")

    reader = ResponseReader(whence="peer:1")
    reader.begin(Broken())
    with pytest.raises(KeyError, match="a defect"):
        reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")


def test_reading_goes_on_after_a_response_on_the_same_connection() -> None:
    reader = ResponseReader(whence="peer:1")
    for number in range(3):
        sink = Collector()
        reader.begin(sink)
        reader.feed(b"HTTP/1.1 200 OK\r\nN: %d\r\nContent-Length: 1\r\n" % number)
        assert not reader.complete
        reader.feed(b"\r\n%d" % number)
        assert reader.complete
        assert reader.reusable
        assert sink.body == b"%d" % number
        assert sink.head
        assert sink.head.headers == [("n", str(number)), ("content-length", "1")]
        assert sink.head.get("n") == str(number)
        assert sink.head.get("other") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
    ],
)
def test_a_connection_is_not_reused_when_more_came_or_the_peer_will_close(raw: bytes) -> None:
    """spec: RFC 9112, 9.3 and 9.6; what follows a response unasked belongs to nobody."""
    sink = Collector()
    reader = ResponseReader(whence="peer:1")
    reader.begin(sink)
    reader.feed(raw)
    assert reader.complete
    assert not reader.reusable
    assert sink.body == b"a"


def test_a_head_request_has_no_body_whatever_its_length_says() -> None:
    sink = Collector()
    reader = ResponseReader(whence="peer:1")
    reader.begin(sink, head_only=True)
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    assert reader.complete
    assert not reader.reusable
    assert sink.body == b""


@pytest.mark.parametrize(
    ("value", "kept_s"),
    [("timeout=5, max=100", 5), ("max=7; timeout = 30", 30), ("x", None), ('TIMEOUT="9"', 9)],
)
def test_the_servers_keep_alive_time_is_read(value: str, kept_s: int | None) -> None:
    reader = ResponseReader(whence="peer:1")
    reader.begin(Collector())
    reader.feed(f"HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\nContent-Length: 0\r\n\r\n".encode())
    assert reader.keep_alive_s == kept_s


def test_folds_are_joined_in_heads_and_left_alone_in_bodies() -> None:
    """spec: RFC 9112, 5.2."""
    raw = b"HTTP/1.1 103 E\r\nA: b\r\n c\r\n\r\nHTTP/1.1 200 OK\r\nA:\r\n\t1\r\n 2\r\n\r\nx\r\n y"
    joined = b"HTTP/1.1 103 E\r\nA: b c\r\n\r\nHTTP/1.1 200 OK\r\nA: 1 2\r\n\r\nx\r\n y"
    assert unfolded(raw) == joined
    assert unfolded(raw[:40]) is None
    assert ours([raw]) == Reading((200, [("a", "1 2")]), b"x\r\n y")


def test_a_folded_head_has_the_same_limit() -> None:
    endless = [b"HTTP/1.1 200 OK\r\nA: b\r\n c", *([b"\r\n " + b"x" * 500] * 1000)]
    assert ours(endless) == Reading(None, None)
