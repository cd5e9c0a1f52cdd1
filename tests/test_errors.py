"""The error tree: as drawn, as documented, and as users of the OpenAI SDK know it."""

import inspect
import re

import openai
import pytest

from droveway import errors
from droveway.chat import Answer
from droveway.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    CallerError,
    DrovewayError,
    NoAnswerError,
    StreamTruncatedError,
    UpstreamError,
)

CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, DrovewayError)
}
# What outsiders rely on: code to status, as the design lists them.
CODES = {
    "budget_exhausted": 402,
    "model_not_found": 404,
    "model_unpriced": 404,
    "request_too_large": 413,
    "rate_limited": 429,
    "deadline_exceeded": 429,
    "upstream_failed": 502,
    "upstream_timeout": 504,
    "cancelled": 499,
    "tool_failed": 400,
}
DRAWN = re.compile(r"^((?:│   |    )*)(?:├── |└── )?(\w+Error)\b *(.*)$")


def drawn() -> list[tuple[int, str, str]]:
    """The tree of the module docstring: depth, name and what stands beside it."""
    rows = [DRAWN.match(line) for line in (errors.__doc__ or "").splitlines()]
    return [
        (len(row[1]) // 4 + (row[2] != "DrovewayError"), row[2], row[3])
        for row in rows
        if row is not None
    ]


def make(kind: type[DrovewayError]) -> DrovewayError:
    if issubclass(kind, APITimeoutError):
        return kind("m", phase="idle")
    if issubclass(kind, StreamTruncatedError):
        return kind("m", partial=Answer())
    if issubclass(kind, errors.CallerRateLimitError):
        return kind("m", retry_after_s=1.0)
    if issubclass(kind, NoAnswerError):
        return kind("m", errors=[CallerError("one"), CallerError("other")])
    return kind("m")


def test_the_tree_is_drawn_as_it_is() -> None:
    parents: list[str] = []
    found = {}
    for depth, name, _ in drawn():
        del parents[depth:]
        found[name] = parents[-1] if parents else "Exception"
        parents.append(name)
    real = {name: kind.__mro__[1].__name__ for name, kind in CLASSES.items()}
    assert found == real


def test_statuses_and_codes_beside_the_tree_are_true() -> None:
    rows = [
        (name, re.match(r"(\d{3})(?: ([a-z]+_?[a-z_]*))?(?:,|$)", text))
        for _, name, text in drawn()
    ]
    told = {name: match for name, match in rows if match is not None}
    assert {"BadRequestError", "LimitExceededError", "APITimeoutError"} <= told.keys()
    for name, match in told.items():
        assert CLASSES[name].status == int(match[1]), name
        if match[2]:
            assert CLASSES[name].code == match[2], name


def test_each_code_has_the_status_that_is_documented() -> None:
    for kind in CLASSES.values():
        if kind.code in CODES:
            assert kind.status == CODES[kind.code], kind
    assert CODES.keys() <= {kind.code for kind in CLASSES.values()}


def test_an_invalid_request_is_a_status_of_the_400s() -> None:
    kinds = [kind for kind in CLASSES.values() if kind.code == "invalid_request"]
    assert {kind.status for kind in kinds} == {400, 422}
    assert all(issubclass(kind, CallerError) for kind in kinds)


def test_blame_decides_the_status() -> None:
    for kind in CLASSES.values():
        if issubclass(kind, CallerError):
            assert 400 <= kind.status <= 499, kind
        elif issubclass(kind, UpstreamError):
            assert kind.status in {429, 502, 503, 504}, kind


def test_a_request_that_must_change_is_not_worth_repeating() -> None:
    repeatable = {name for name, kind in CLASSES.items() if kind.retryable}
    callers = {name for name, kind in CLASSES.items() if issubclass(kind, CallerError)}
    waiting = {"DeadlineExceededError", "QueueFullError", "CallerRateLimitError"}
    waiting |= {"LaterError", "RequestInFlightError"}
    assert repeatable & callers == waiting
    accounts = {"AuthenticationError", "InsufficientBalanceError", "PermissionDeniedError"}
    assert not repeatable & accounts
    assert {"RateLimitError", "OverloadedError", "APITimeoutError", "NoAnswerError"} <= repeatable


def test_the_vendors_account_is_never_the_callers_402() -> None:
    """Spec: an upstream 401 or 402 reaches a gateway's caller as 502."""
    assert errors.InsufficientBalanceError.status == 502
    assert errors.AuthenticationError.status == 502


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES.keys())
def test_every_error_says_its_message_and_how_often_was_tried(kind: type[DrovewayError]) -> None:
    error = make(kind)
    assert str(error) == error.message == "m"
    assert error.attempts == 0
    assert kind.__doc__


def test_what_an_error_carries() -> None:
    failed = UpstreamError(
        "m", attempts=2, status_code=503, provider="p", request_id="r", sent=False
    )
    assert (failed.attempts, failed.status_code, failed.provider) == (2, 503, "p")
    assert (failed.request_id, failed.sent) == ("r", False)
    late = APITimeoutError("m", phase="connect", provider="p", sent=False, attempts=1)
    assert (late.phase, late.provider, late.sent, late.attempts) == ("connect", "p", False, 1)
    cut = StreamTruncatedError("m", partial=Answer(text="half"), provider="p", attempts=3)
    assert (cut.partial.text, cut.provider, cut.attempts) == ("half", "p", 3)
    both = NoAnswerError("m", errors=[failed, late], attempts=3)
    assert (both.errors, both.attempts) == ((failed, late), 3)
    refused = BadRequestError("m", status_code=400, attempts=1)
    assert (refused.status_code, refused.attempts) == (400, 1)
    assert BadRequestError("m").status_code is None
    assert APIStatusError("m").retry_after_s is None


# Names that the OpenAI SDK has too.

SHARED = sorted(name for name in CLASSES if hasattr(openai, name))


def test_the_names_shared_with_the_openai_sdk_are_these() -> None:
    assert SHARED == [
        "APIConnectionError",
        "APIStatusError",
        "APITimeoutError",
        "AuthenticationError",
        "BadRequestError",
        "InternalServerError",
        "NotFoundError",
        "PermissionDeniedError",
        "RateLimitError",
        "UnprocessableEntityError",
    ]


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_name_stands_for_the_same_status(name: str) -> None:
    """Oracle: the OpenAI SDK gives each of its status errors one status."""
    status = inspect.get_annotations(getattr(openai, name)).get("status_code")
    said = re.findall(r"\d{3}", str(status))
    if not said:
        return
    kind = CLASSES[name]
    drawn_status = re.search(r"\d{3}", next(text for _, each, text in drawn() if each == name))
    assert drawn_status is not None
    assert {drawn_status[0], str(kind.status)} & set(said), name


def test_a_timeout_is_a_connection_error_in_both() -> None:
    assert issubclass(openai.APITimeoutError, openai.APIConnectionError)
    assert issubclass(APITimeoutError, APIConnectionError)


@pytest.mark.parametrize(
    "name",
    ["AuthenticationError", "PermissionDeniedError", "RateLimitError", "InternalServerError"],
)
def test_a_vendors_refusal_is_a_status_error_in_both(name: str) -> None:
    assert issubclass(getattr(openai, name), openai.APIStatusError)
    assert issubclass(CLASSES[name], APIStatusError)
