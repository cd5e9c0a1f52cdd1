"""Every fault of the sandbox's script, as a stream and as a whole: exactly one typed outcome."""

from typing import Any

import pytest

from droveway.chat import TextDelta
from droveway.engine.exchange import Exchange
from droveway.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    DrovewayError,
    InsufficientBalanceError,
    InternalServerError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    RequestTooLargeError,
    StreamTruncatedError,
    UnprocessableEntityError,
)
from droveway.sandbox import FAULTS
from lab import PATIENT, ask, converse, lab, run, terms

OK = None
Ends = type[DrovewayError] | None

# fault -> how a stream ends, how a whole answer ends; None is a complete answer.
EXPECTED: dict[str, tuple[Ends, Ends]] = {
    "400": (BadRequestError, BadRequestError),
    "401": (AuthenticationError, AuthenticationError),
    "402": (InsufficientBalanceError, InsufficientBalanceError),
    "403": (PermissionDeniedError, PermissionDeniedError),
    "404": (NotFoundError, NotFoundError),
    "408": (APIStatusError, APIStatusError),
    "413": (RequestTooLargeError, RequestTooLargeError),
    "422": (UnprocessableEntityError, UnprocessableEntityError),
    "429": (RateLimitError, RateLimitError),
    "429-seconds": (RateLimitError, RateLimitError),
    "429-date": (RateLimitError, RateLimitError),
    "429-ms": (RateLimitError, RateLimitError),
    "429-past": (RateLimitError, RateLimitError),
    "429-negative": (RateLimitError, RateLimitError),
    "429-garbage": (RateLimitError, RateLimitError),
    "429-huge": (RateLimitError, RateLimitError),
    "500": (InternalServerError, InternalServerError),
    "502": (InternalServerError, InternalServerError),
    "502-html": (InternalServerError, InternalServerError),
    "503": (OverloadedError, OverloadedError),
    "503-seconds": (OverloadedError, OverloadedError),
    "504": (InternalServerError, InternalServerError),
    "529": (OverloadedError, OverloadedError),
    "529-seconds": (OverloadedError, OverloadedError),
    "refuse": (APIConnectionError, APIConnectionError),
    "hang-up": (APIConnectionError, APIConnectionError),
    "cut-head": (APIConnectionError, APIConnectionError),
    "slow-headers": (APITimeoutError, APITimeoutError),
    "slow-tokens:0.01": (OK, OK),
    "cut-event:3": (StreamTruncatedError, APIConnectionError),
    "cut-event-rst:3": (StreamTruncatedError, APIConnectionError),
    "cut-byte:300": (StreamTruncatedError, APIConnectionError),
    "cut-byte-rst:300": (StreamTruncatedError, APIConnectionError),
    "stall:3": (APITimeoutError, APITimeoutError),
    "stall-keepalive:3": (APITimeoutError, APITimeoutError),
    "keepalive-first:2": (OK, OK),
    "short-length": (OK, APIConnectionError),  # the stream is whole before the lie shows
    "close-delimited": (OK, OK),
    "close-delimited-cut:3": (StreamTruncatedError, ProtocolError),
    "end-without-finish": (StreamTruncatedError, ProtocolError),
    "end-without-done": (OK, OK),
    "done-without-finish": (StreamTruncatedError, ProtocolError),
    "finish-twice": (OK, OK),
    "finish-unknown": (OK, OK),
    "malformed:2": (OK, ProtocolError),
    "malformed:9": (ProtocolError, ProtocolError),
    "malformed-body": (StreamTruncatedError, ProtocolError),
    "error-event:3": (InternalServerError, InternalServerError),
    "huge-event": (OK, OK),
    "tool-index-reuse": (OK, OK),
    "no-role": (OK, OK),
    "empty-choices-first": (OK, OK),
    "data-after-done": (OK, OK),
    "usage-missing": (OK, OK),
    "usage-null": (OK, OK),
    "usage-twice": (OK, OK),
    "usage-on-choices": (OK, OK),
    "usage-on-finish": (OK, OK),
    "usage-negative": (OK, OK),
    "usage-huge": (OK, OK),
    "usage-float": (OK, OK),
    "usage-string": (OK, OK),
    "crlf": (OK, OK),
    "cr": (OK, OK),
    "split-lines": (OK, OK),
    "split-utf8": (OK, OK),
    "multi-line-data": (OK, OK),
    "no-space": (OK, OK),
    "extra-fields": (OK, OK),
    "byte-order-mark": (OK, ProtocolError),
    "gzip": (OK, OK),
    "html-200": (ProtocolError, ProtocolError),
    "error-200": (InternalServerError, InternalServerError),
}


def outcome(fault: str, *, stream: bool, **given: Any) -> tuple[Exchange, int, str]:
    """Ask once; return the settled exchange, the upstream attempts, and the text delivered."""

    async def once() -> tuple[Exchange, int, str]:
        async with lab() as (box, engine):
            request = ask(model=f"fault-{fault}", stream=stream, **given.pop("fields", {}))
            exchange, events = await converse(engine, request, terms(**given))
            text = "".join(event.text for event in events if isinstance(event, TextDelta))
            return exchange, len(box.journal), text

    return run(once())


def test_every_fault_of_the_script_has_an_expectation() -> None:
    assert {name.partition(":")[0] for name in EXPECTED} == set(FAULTS)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", EXPECTED)
def test_a_fault_ends_as_its_typed_outcome_after_one_attempt(fault: str, *, stream: bool) -> None:
    exchange, attempts, text = outcome(fault, stream=stream)
    expected = EXPECTED[fault][0 if stream else 1]
    assert attempts == 1
    assert exchange.row is not None
    assert len(exchange.row.attempts) == 1
    if expected is None:
        assert exchange.error is None
        assert exchange.answer is not None
        assert exchange.row.outcome == "completed"
        assert exchange.answer.finish_reason is not None
        assert exchange.answer.text
        assert not stream or text == exchange.answer.text
    else:
        assert type(exchange.error) is expected
        assert exchange.answer is None
        assert exchange.row.outcome == "failed"
        assert exchange.row.code == exchange.error.code
        assert exchange.error.attempts == 1
        assert "\n" not in str(exchange.error)


@pytest.mark.parametrize("fault", ["cut-event:4", "close-delimited-cut:4", "done-without-finish"])
def test_a_truncated_stream_carries_the_partial_answer_and_a_counted_bill(fault: str) -> None:
    exchange, _, text = outcome(fault, stream=True)
    assert isinstance(exchange.error, StreamTruncatedError)
    partial = exchange.error.partial
    assert partial.text == text
    assert partial.finish_reason is None
    assert exchange.row is not None
    assert exchange.row.usage is not None
    assert exchange.row.usage.source == "counted" or fault == "done-without-finish"


RECOVERED = ["429-ms:50", "429-past:5", "500", "502", "503", "503-seconds:0.05", "504", "529"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("fault", [*RECOVERED, "429-seconds:1", "429-date:1"])
def test_a_passing_refusal_or_failure_is_survived_with_exactly_one_more_request(
    fault: str, *, stream: bool
) -> None:
    exchange, attempts, _ = outcome(f"{fault}@1", stream=stream, retry=PATIENT)
    assert exchange.error is None
    assert attempts == 2


@pytest.mark.parametrize(
    "fault",
    ["400", "401", "402", "403", "404", "408", "413", "422", "hang-up", "cut-head", "html-200"],
)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_what_repeating_cannot_mend_is_not_repeated(fault: str, *, stream: bool) -> None:
    _, attempts, _ = outcome(fault, stream=stream, retry=PATIENT)
    assert attempts == 1


@pytest.mark.parametrize("fault", ["cut-event:3@1", "stall:3@1", "error-event:3@1"])
def test_nothing_is_repeated_after_data_was_delivered(fault: str) -> None:
    exchange, attempts, _ = outcome(fault, stream=True, retry=PATIENT)
    assert exchange.error is not None
    assert attempts == 1


def test_a_first_token_timeout_is_tried_once_more_and_no_more() -> None:
    exchange, attempts, _ = outcome("stall:0", stream=True, retry=PATIENT)
    assert isinstance(exchange.error, APITimeoutError)
    assert exchange.error.phase == "first_token"
    assert attempts == 2
    survived, attempts, _ = outcome("stall:0@1", stream=True, retry=PATIENT)
    assert survived.error is None
    assert attempts == 2


@pytest.mark.parametrize("fault", ["usage-missing", "usage-negative", "usage-huge", "usage-float"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_usage_that_is_none_is_counted_and_says_so(fault: str, *, stream: bool) -> None:
    exchange, _, _ = outcome(fault, stream=stream)
    assert exchange.row is not None
    assert exchange.row.usage is not None
    assert exchange.row.usage.source == "counted"
    assert exchange.row.usage.output > 0


def test_repeated_429_ends_at_the_attempt_cap() -> None:
    """Ours: such code once called itself again for every refusal, without end."""
    exchange, attempts, _ = outcome("429-ms:5", stream=False, retry=PATIENT)
    assert isinstance(exchange.error, RateLimitError)
    assert attempts == PATIENT.max_attempts == exchange.error.attempts


def test_a_refusal_for_longer_than_the_deadline_is_told_at_once() -> None:
    exchange, attempts, _ = outcome("429-huge", stream=False, retry=PATIENT)
    assert isinstance(exchange.error, RateLimitError)
    assert exchange.error.retry_after_s == PATIENT.retry_after_max_s
    assert attempts == 1


@pytest.mark.parametrize(
    ("fault", "phase", "stream"),
    [
        ("slow-headers", "first_token", True),
        ("slow-headers", "total", False),
        ("stall:0", "first_token", True),
        ("stall-keepalive:0", "first_token", True),
        ("stall:5", "idle", True),
        ("stall-keepalive:5", "idle", True),
    ],
)
def test_a_silent_vendor_is_left_in_the_phase_it_fell_silent(
    fault: str, phase: str, *, stream: bool
) -> None:
    exchange, _, _ = outcome(fault, stream=stream)
    assert isinstance(exchange.error, APITimeoutError)
    assert exchange.error.phase == phase
    assert phase in str(exchange.error)
