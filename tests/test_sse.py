"""Event streams: the standard's cases, any split of the bytes, and what the end fell into."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from droveway.errors import ProtocolError
from droveway.sse import EVENT_BYTES_MAX, EventParser, ServerSentEvent

RECORDED = (
    b": keep-alive\n\n"
    b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
    b"event: message\r\nid: 7\r\ndata: {\r\ndata: }\r\n\r\n"
    b"retry: 3000\rdata:last\r\r"
    b"data: [DONE]\n\n"
)


def reference(stream: bytes) -> list[ServerSentEvent]:
    """The standard, word by word, on the whole stream: slow, and written apart from the parser."""
    stream = stream[3:] if stream.startswith(b"\xef\xbb\xbf") else stream
    lines = re.split(rb"\r\n|\r|\n", stream)[:-1]  # an unfinished last line is discarded
    events: list[ServerSentEvent] = []
    data, kind, last_id = b"", b"", b""
    for line in lines:
        if line == b"":
            if data:
                events.append(ServerSentEvent(data[:-1], kind, last_id))
            data, kind = b"", b""
            continue
        if line.startswith(b":"):
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data += value + b"\n"
        if field == b"event":
            kind = value
        if field == b"id" and b"\0" not in value:
            last_id = value
    return events


def parse(*pieces: bytes) -> list[ServerSentEvent]:
    parser = EventParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    assert parser.events == len(events)
    return events


def datas(*pieces: bytes) -> list[bytes]:
    return [event.data for event in parse(*pieces)]


# Lines and fields.


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_any_line_ending_ends_a_line(end: bytes) -> None:
    """Spec: WHATWG HTML 9.2.6."""
    assert datas(end.join([b"data: a", b"", b"data: b", b"data: c", b"", b""])) == [b"a", b"b\nc"]


def test_line_endings_may_be_mixed() -> None:
    assert datas(b"data: a\rdata: b\r\ndata: c\n\r\ndata: d\n\r") == [b"a\nb\nc", b"d"]


CRLF_STREAM = b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n"


@pytest.mark.parametrize("cut", range(len(CRLF_STREAM) + 1))
def test_a_line_ending_cut_in_two_is_one(cut: int) -> None:
    assert datas(CRLF_STREAM[:cut], CRLF_STREAM[cut:]) == [b"a\nb", b"c"]


def test_an_empty_piece_between_cr_and_lf_changes_nothing() -> None:
    assert datas(b"data: a\r", b"", b"\n\r", b"", b"\ndata: b\r", b"\r") == [b"a", b"b"]


@pytest.mark.parametrize("cut", range(4))
def test_a_byte_order_mark_at_the_start_is_skipped(cut: int) -> None:
    mark = b"\xef\xbb\xbf"
    assert datas(mark[:cut], mark[cut:] + b"data: a\n\n") == [b"a"]


def test_only_one_byte_order_mark_and_only_at_the_start_is_skipped() -> None:
    assert datas(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n\xef\xbb\xbfdata: c\n\n") == [b"b"]


def test_what_only_begins_like_a_byte_order_mark_is_a_line() -> None:
    assert datas(b"\xef", b"\xbb", b"data: a\n", b"data: b\n\n") == [b"b"]


@pytest.mark.parametrize(
    ("line", "data"),
    [
        (b"data: a", b"a"),
        (b"data:a", b"a"),
        (b"data:  a ", b" a "),
        (b"data:\ta", b"\ta"),
        (b"data: a:b: c", b"a:b: c"),
        (b"data:", b""),
        (b"data", b""),
        (b"data: \xe4\xbd\xa0\xf0\x9f\x90\x91", b"\xe4\xbd\xa0\xf0\x9f\x90\x91"),
        (b"data: \xff\x00", b"\xff\x00"),
    ],
)
def test_one_space_after_the_colon_is_dropped(line: bytes, data: bytes) -> None:
    assert datas(line + b"\n\n") == [data]


@pytest.mark.parametrize("line", [b" data: a", b"Data: a", b"datas: a", b"foo: a", b"foo", b"\0"])
def test_unknown_fields_are_passed_over(line: bytes) -> None:
    assert datas(line + b"\n\n" + b"data: b\n" + line + b"\n\n") == [b"b"]


def test_comments_are_counted_and_are_no_events() -> None:
    parser = EventParser()
    assert parser.feed(b": keep-alive\n\n:\n\n:data: no\n\ndata: a\n: amid\ndata: b\n\n") == [
        ServerSentEvent(b"a\nb")
    ]
    assert parser.comments == 4


def test_an_event_without_data_is_none_and_its_type_is_forgotten() -> None:
    assert parse(b"event: ping\n\ndata: a\n\n") == [ServerSentEvent(b"a")]


def test_a_type_holds_for_one_event_and_an_id_until_the_next() -> None:
    events = parse(b"event: x\nid: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n")
    assert events == [
        ServerSentEvent(b"a", b"x", b"1"),
        ServerSentEvent(b"b", b"", b"1"),
        ServerSentEvent(b"c", b"", b""),
    ]


def test_an_id_counts_even_without_data() -> None:
    assert parse(b"id: 9\n\ndata: a\n\n") == [ServerSentEvent(b"a", b"", b"9")]


def test_an_id_with_a_nul_is_ignored() -> None:
    assert parse(b"id: 1\nid: 2\0\ndata: a\n\n") == [ServerSentEvent(b"a", b"", b"1")]


@pytest.mark.parametrize(
    ("value", "retry_ms"),
    [(b"1500", 1500), (b"0", 0), (b"", None), (b"-1", None), (b"1.5", None), (b"1s", None),
     ("１".encode(), None)],
)  # fmt: skip
def test_a_reconnection_time_is_digits_only(value: bytes, retry_ms: int | None) -> None:
    parser = EventParser()
    parser.feed(b"retry: " + value + b"\n\n")
    assert parser.retry_ms == retry_ms


def test_a_reconnection_time_of_ten_thousand_digits_is_taken_calmly() -> None:
    """Ours: Python refuses to read such a number (2026-11)."""
    parser = EventParser()
    parser.feed(b"retry: " + b"9" * 10_000 + b"\n\n")
    assert parser.retry_ms is not None


# Any split of any bytes.

crumbs = st.sampled_from(
    [b"data: a", b"data", b"data:", b"event: e", b"id: 1", b"id: \0", b"retry: 5", b": c", b"x",
     b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\xef\xbb\xbf", b"\xef", b" ", b":"]
)  # fmt: skip
streams = st.one_of(st.lists(crumbs, max_size=40).map(b"".join), st.binary(max_size=60))


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[one:other] for one, other in itertools.pairwise(places)]


@given(streams)
@example(RECORDED)
def test_the_parser_agrees_with_a_reading_of_the_standard(stream: bytes) -> None:
    assert parse(stream) == reference(stream)


@given(streams, st.lists(st.integers(0, 1000), max_size=12))
def test_any_split_gives_the_same_events_and_the_same_end(stream: bytes, cuts: list[int]) -> None:
    whole, pieces = EventParser(), EventParser()
    expected = whole.feed(stream)
    assert [event for piece in split(stream, cuts) for event in pieces.feed(piece)] == expected
    state = (whole.finish(), whole.comments, whole.events, whole.retry_ms)
    assert (pieces.finish(), pieces.comments, pieces.events, pieces.retry_ms) == state


@given(streams)
@example(RECORDED)
@example(CRLF_STREAM)
def test_byte_by_byte_is_a_split_too(stream: bytes) -> None:
    assert parse(*[bytes([byte]) for byte in stream]) == reference(stream)


# How the stream stood at its end.


def test_the_end_is_between_events_only_where_nothing_is_open() -> None:
    """Ours: cut at every byte of a recorded stream."""
    for cut in range(len(RECORDED) + 1):
        parser = EventParser()
        parser.feed(RECORDED[:cut])
        lines = re.split(rb"\r\n|\r|\n", RECORDED[:cut])
        opened = b""
        for line in lines[:-1]:
            opened = b"" if not line else opened + line * line.startswith((b"data", b"event"))
        inside = bool(lines[-1] or opened)
        assert parser.finish() == ("inside_event" if inside else "between_events"), cut


@pytest.mark.parametrize(
    "stream", [b"data: a\n", b"data\n", b"event: error\n", b": half a comm", b"d", b"\xef\xbb"]
)
def test_a_stream_that_stops_amid_something_says_so(stream: bytes) -> None:
    parser = EventParser()
    assert parser.feed(stream) == []
    assert parser.finish() == "inside_event"


@pytest.mark.parametrize("stream", [b"", b"\n", b"data: a\n\n", b": c\n", b"id: 1\n", b"\r"])
def test_a_stream_that_stops_between_events_says_so(stream: bytes) -> None:
    parser = EventParser()
    parser.feed(stream)
    assert parser.finish() == "between_events"


# The bound of one event.


def overflows(stream: bytes, pieces: list[bytes], *, bound: int) -> tuple[bool, bool]:
    def overflow(parts: list[bytes]) -> bool:
        parser = EventParser(event_bytes_max=bound)
        try:
            for part in parts:
                parser.feed(part)
        except ProtocolError:
            return True
        return False

    return overflow([stream]), overflow(pieces)


@pytest.mark.parametrize("name", [b"data: ", b"event: ", b": ", b"x"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
def test_a_line_above_the_bound_is_refused_finished_or_not(name: bytes, end: bytes) -> None:
    line = name + b"a" * (100 - len(name))
    EventParser(event_bytes_max=100).feed(line + end)
    with pytest.raises(ProtocolError, match="100 bytes"):
        EventParser(event_bytes_max=100).feed(line + b"a" + end)


@pytest.mark.parametrize("line", [b"data: aaaa\n", b"data\n"])
def test_many_small_data_lines_are_one_large_event(line: bytes) -> None:
    parser = EventParser(event_bytes_max=1000)
    with pytest.raises(ProtocolError, match="1000 bytes"):
        for _ in range(1000):
            parser.feed(line)


def test_any_number_of_small_events_and_comments_is_not_one_large_event() -> None:
    parser = EventParser(event_bytes_max=64)
    for _ in range(1000):
        assert len(parser.feed(b": keep-alive\nevent: e\ndata: aaaa\nid: 1\ndata: b\n\n")) == 1


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_lines_that_carry_no_data_do_not_add_up(size: int) -> None:
    parser = EventParser(event_bytes_max=64)
    lines = b": keep-alive\nevent: e\nid: 1\nx\n" * 100
    for place in range(0, len(lines), size):
        parser.feed(lines[place : place + size])
    assert parser.feed(b"data: a\n\n") == [ServerSentEvent(b"a", b"e", b"1")]


@given(streams, st.lists(st.integers(0, 1000), max_size=12), st.integers(5, 60))
def test_the_bound_does_not_depend_on_how_the_bytes_were_cut(
    stream: bytes, cuts: list[int], bound: int
) -> None:
    whole, pieces = overflows(stream, split(stream, cuts), bound=bound)
    assert whole == pieces


def test_the_usual_bound_takes_a_large_event() -> None:
    data = b"a" * (EVENT_BYTES_MAX - len(b"data: "))
    assert datas(b"data: " + data + b"\n\n") == [data]


def test_a_long_line_fed_byte_by_byte_grows_in_one_buffer() -> None:
    """Ours: a copy for each piece would walk n bytes n²/2 times, a list of pieces is 20 times n."""
    size = 50_000
    parser = EventParser()
    parser.feed(b"data: ")
    buffer = parser._rest
    events = [event for _ in range(size) for event in parser.feed(b"a")]
    assert parser._rest is buffer
    assert isinstance(buffer, bytearray)
    events += parser.feed(b"\n\n")
    assert events == [ServerSentEvent(b"a" * size)]
