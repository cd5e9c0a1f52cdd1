"""What one request tells: its times by hand, its failures from the sandbox over a socket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.bench.load import Load, Pace, Target
from droveway.bench.measure import Reading, nearest_rank
from droveway.bench.questions import questions
from droveway.bench.tally import Tally
from droveway.catalog.pricelists import built_in_book
from droveway.catalog.pricerow import price
from droveway.clock import StillClock, SystemClock
from droveway.engine.assembly import provider_at
from droveway.errors import APIConnectionError, ProtocolError
from droveway.sandbox import FAULTS, Sandbox, refused_port
from droveway.transport import Pool, ResponseHead
from lab import INSTANT, run

EVENTS = [("content-type", "text/event-stream; charset=utf-8")]
DROVEWAY = [*EVENTS, ("x-droveway-request-id", "req_1"), ("x-droveway-model", "deepseek-flash")]
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
THOUGHT = b'data: {"choices":[{"delta":{"reasoning_content":"hm","content":null}}]}\n\n'
WORD = b'data: {"choices":[{"delta":{"content":" word"}}]}\n\n'
CALL = b'data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


async def reading_of(*pieces: tuple[float, bytes], head: object = EVENTS) -> Reading:
    """Read pieces that come at given moments; the request was due at 0 and sent at 0.5."""
    clock = StillClock()
    await clock.advance(0.5)
    reading = Reading(clock, scheduled_at=0.0, streaming=True)
    reading.on_head(ResponseHead(200, head))  # type: ignore[arg-type]
    for at, piece in pieces:
        await clock.advance(at - clock.monotonic())
        reading.on_chunk(piece)
    return reading


def test_the_first_content_is_no_role_and_no_reasoning() -> None:
    async def check() -> None:
        read = await reading_of((1, ROLE), (2, THOUGHT), (3, WORD), (4, WORD), (6, WORD + WORD))
        assert read.first_at == 3
        assert read.gaps_s == [1, 2, 0]

    run(check())


def test_a_tool_call_is_content() -> None:
    async def check() -> None:
        read = await reading_of((1, ROLE), (3, CALL), (4, CALL))
        assert (read.first_at, read.gaps_s) == (3, [1])

    run(check())


def test_an_answer_ends_at_done_though_the_body_ends_later() -> None:
    async def check() -> None:
        read = await reading_of((1, WORD), (2, FINISH + DONE), (5, b": bye\n\n"))
        read.on_done()
        assert (read.error, read.ended_at) == (None, 2)

    run(check())


def test_without_done_an_answer_ends_with_its_body() -> None:
    async def check() -> None:
        read = await reading_of((1, WORD), (2, FINISH), (5, b": bye\n\n"))
        read.on_done()
        assert (read.error, read.ended_at) == (None, 5)

    run(check())


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([(2, FINISH + DONE)], None),
        ([(2, FINISH)], "timeout"),
        ([(2, WORD)], "timeout"),
    ],
)
def test_time_that_runs_out_after_done_takes_nothing_back(
    pieces: list[tuple[float, bytes]], error: str | None
) -> None:
    async def check() -> None:
        read = await reading_of(*pieces)
        read.expire()
        read.on_done()  # too late to change anything
        assert read.error == error
        assert read.over.done()

    run(check())


def test_a_connection_lost_after_the_finish_marker_has_lost_no_answer() -> None:
    async def check() -> None:
        whole = await reading_of((1, WORD), (2, FINISH))
        whole.on_error(APIConnectionError("lost"))
        cut = await reading_of((1, WORD))
        cut.on_error(APIConnectionError("lost"))
        odd = await reading_of((1, WORD))
        odd.on_error(ProtocolError("odd framing"))
        assert [whole.error, cut.error, odd.error] == [None, "truncated", "malformed"]

    run(check())


def test_an_error_event_after_the_finish_marker_is_an_error() -> None:
    async def check() -> None:
        read = await reading_of((1, FINISH), (2, b'data: {"error":{"message":"x"}}\n\n'))
        read.on_done()
        assert read.error == "error_event"

    run(check())


def test_an_event_too_large_to_hold_is_malformed() -> None:
    async def check() -> None:
        read = await reading_of((1, b"data: " + b"x" * 3_000_000), (2, FINISH + DONE))
        read.on_done()
        assert read.error == "malformed"

    run(check())


def test_a_whole_answer_where_a_stream_was_asked_for_is_malformed() -> None:
    async def check() -> None:
        whole = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'
        read = await reading_of((1, whole), head=[("content-type", "application/json")])
        read.on_done()
        assert read.error == "malformed"

    run(check())


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_gateways_cost_is_read_from_its_last_comment_however_it_is_cut(size: int) -> None:
    said = WORD + FINISH + b': droveway {"cost":"0.0012","usage":null}\n\n' + DONE

    async def check() -> None:
        read = await reading_of(
            *((1.0, said[at : at + size]) for at in range(0, len(said), size)), head=DROVEWAY
        )
        read.on_done()
        assert read.cost_told() == "0.0012"

    run(check())


@pytest.mark.parametrize("cost", [b"null", b"3", b"{", b'"much"'])
def test_a_cost_that_is_none_is_not_summed(cost: bytes) -> None:
    async def check() -> None:
        said = WORD + FINISH + USAGE + b': droveway {"cost":' + cost + b"}\n\n" + DONE
        read = await reading_of((1, said), head=DROVEWAY)
        read.on_done()
        tally = tally_of("x")
        tally.add(read)
        assert (tally.ok, tally.gateway_cost) == (1, None)

    run(check())


def test_a_tally_prices_by_the_model_that_answered_and_sums_what_the_gateway_says() -> None:
    async def check() -> None:
        tally = tally_of("fast")  # an alias, which no price list has
        for _ in range(2):
            said = WORD + FINISH + USAGE + b': droveway {"cost":"0.0012"}\n\n' + DONE
            read = await reading_of((1, said), head=DROVEWAY)
            read.on_done()
            tally.add(read)
        row = built_in_book().find(None, "deepseek-flash", at=StillClock().now())
        usage = read.usage()
        assert usage is not None
        each = price(usage, row)
        assert tally.cost == each + each
        assert tally.gateway_cost is not None
        assert tally.gateway_cost.decimal() == "0.0024"
        assert (tally.usage.input, tally.usage.output) == (18, 4)
        assert (tally.unpriced, tally.uncounted) == (0, 0)

    run(check())


def tally_of(model: str, url: str = "http://127.0.0.1:1/v1") -> Tally:
    return Tally(provider_at(url, None), model=model, book=built_in_book(), clock=StillClock())


async def asked_once(url: str, model: str, *, stream: bool, timeout_s: float = 20.0) -> Tally:
    clock = SystemClock()
    pool = Pool(clock=clock)
    tally = tally_of(model, url)
    load = Load(
        [Target(provider_at(url, None), tally)],
        questions(1, model=model, stream=stream),
        streaming=stream,
        pace=Pace(rate=1, warmup_s=0.0, duration_s=0.5, timeout_s=timeout_s),
        wire=pool,
        clock=clock,
    )
    await load.run()
    await pool.aclose()
    assert tally.sent == 1
    return tally


def failures(model: str, *, stream: bool, timeout_s: float = 20.0) -> list[str]:
    async def check() -> list[str]:
        async with Sandbox(profile=INSTANT) as box:
            tally = await asked_once(box.base_url, model, stream=stream, timeout_s=timeout_s)
            return list(tally.failed)

    return run(check())


CUTS = {"cut-event", "cut-event-rst", "close-delimited-cut"}
# Which way each fault of the sandbox fails; every other one still brings a whole answer.
STREAMED = {
    **{name: f"http_{name[:3]}" for name in FAULTS if name[:3].isdigit()},
    **dict.fromkeys(("refuse", "hang-up", "cut-head"), "disconnected"),
    **dict.fromkeys((*CUTS, "end-without-finish", "done-without-finish"), "truncated"),
    **dict.fromkeys(("malformed", "malformed-body", "html-200"), "malformed"),
    **dict.fromkeys(("error-event", "error-200"), "error_event"),
}
# These need time, or an argument that fits the length of the answer; they have tests of their own.
ELSEWHERE = {"slow-headers", "slow-tokens", "stall", "stall-keepalive", "cut-byte", "cut-byte-rst"}


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - ELSEWHERE))
def test_each_fault_of_a_stream_has_its_class(fault: str) -> None:
    told = failures(f"fault-{fault}", stream=True)
    assert told == ([STREAMED[fault]] if fault in STREAMED else [])


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", "http_429"),
        ("502-html", "http_502"),
        ("refuse", "disconnected"),
        ("cut-event", "truncated"),
        ("cut-byte:80", "truncated"),
        ("short-length", "truncated"),
        ("end-without-finish", "truncated"),
        ("malformed", "malformed"),
        ("malformed-body", "malformed"),
        ("error-event", "error_event"),
        ("error-200", "error_event"),
    ],
)
def test_each_fault_of_a_whole_answer_has_its_class(fault: str, error: str) -> None:
    assert failures(f"fault-{fault}", stream=False) == [error]


@pytest.mark.parametrize("fault", ["slow-headers", "stall:3", "stall-keepalive:3"])
@pytest.mark.parametrize("stream", [True, False])
def test_silence_is_a_timeout(fault: str, *, stream: bool) -> None:
    assert failures(f"fault-{fault}", stream=stream, timeout_s=0.3) == ["timeout"]


def test_a_server_that_is_not_there_is_no_connection() -> None:
    with refused_port() as port:
        tally = run(asked_once(f"http://127.0.0.1:{port}/v1", "m", stream=True))
    assert list(tally.failed) == ["connect"]


@pytest.mark.parametrize("stream", [True, False])
def test_tokens_and_cost_are_those_of_the_servers_journal(*, stream: bool) -> None:
    async def check() -> None:
        async with Sandbox(profile=INSTANT) as box:
            tally = await asked_once(box.base_url, "deepseek-flash", stream=stream)
            (seen,) = box.journal
        usage = tally.usage
        assert usage.input_total == seen.prompt_tokens
        assert usage.output == seen.completion_tokens
        row = built_in_book().find(None, "deepseek-flash", at=StillClock().now())
        assert tally.cost == price(usage, row)
        assert (len(tally.first_s), tally.unpriced) == (int(stream), 0)
        assert bool(tally.gaps_s) == stream

    run(check())


def test_a_model_without_a_price_costs_an_unknown_amount_and_not_nothing() -> None:
    async def check() -> None:
        async with Sandbox(profile=INSTANT) as box:
            tally = await asked_once(box.base_url, "mine", stream=True)
        assert (tally.ok, tally.cost, tally.unpriced) == (1, None, 1)
        assert tally.usage.output > 0

    run(check())


def test_an_answer_that_tells_no_usage_is_counted_as_such() -> None:
    async def check() -> None:
        async with Sandbox(profile=INSTANT) as box:
            tally = await asked_once(box.base_url, "fault-usage-missing", stream=True)
        assert (tally.ok, tally.uncounted, tally.cost) == (1, 1, None)

    run(check())


def test_percentiles_are_values_by_nearest_rank() -> None:
    thousand = [float(i) for i in range(1, 1001)]
    assert [nearest_rank(thousand, each) for each in (500, 900, 950, 990, 999)] == [
        500, 900, 950, 990, 999
    ]  # fmt: skip
    assert nearest_rank([7.0], 1) == nearest_rank([7.0], 999) == 7.0
    assert nearest_rank([1.0, 2.0], 500) == 1.0
    assert nearest_rank([1.0, 2.0], 501) == 2.0


@given(
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=60).map(sorted),
    st.integers(1, 1000),
)
def test_a_percentile_is_the_least_value_that_enough_do_not_exceed(
    ordered: list[float], per_mille: int
) -> None:
    found = nearest_rank(ordered, per_mille)
    needed = per_mille * len(ordered)
    assert 1000 * sum(each <= found for each in ordered) >= needed
    assert 1000 * sum(each < found for each in ordered) < needed
