"""What a failed attempt means, how long to wait before the next, and how many there may be."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway import errors
from droveway.chat import Answer
from droveway.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    DrovewayError,
    UpstreamError,
)
from droveway.resilience.retry import (
    BUDGET_MAX,
    BUDGET_PER_REQUEST,
    BUDGET_START,
    RetryBudget,
    RetryPolicy,
    Verdict,
    judge,
)


def status(code: int, *, retry_after_s: float | None = None) -> APIStatusError:
    kinds = {401: "AuthenticationError", 402: "InsufficientBalanceError",
             403: "PermissionDeniedError", 429: "RateLimitError", 503: "OverloadedError",
             529: "OverloadedError"}  # fmt: skip
    name = kinds.get(code, "InternalServerError" if code >= 500 else "APIStatusError")
    error: APIStatusError = getattr(errors, name)("m", status_code=code)
    error.retry_after_s = retry_after_s
    return error


def timeout(phase: Any) -> APITimeoutError:
    return APITimeoutError("m", phase=phase, sent=phase != "connect")


# What an attempt ended with, and what that means before any data was delivered: at the first
# timeout before a token or none, and at a further one.
VERDICTS: dict[str, tuple[DrovewayError, Verdict, Verdict]] = {
    "429": (status(429), "refusal", "refusal"),
    "429 later": (status(429, retry_after_s=9.0), "refusal", "refusal"),
    "503 later": (status(503, retry_after_s=0.0), "refusal", "refusal"),
    "529 later": (status(529, retry_after_s=5.0), "refusal", "refusal"),
    "503": (status(503), "failure", "failure"),
    "529": (status(529), "failure", "failure"),
    "500": (status(500), "failure", "failure"),
    "500 later": (status(500, retry_after_s=3.0), "failure", "failure"),
    "502": (status(502), "failure", "failure"),
    "504": (status(504), "failure", "failure"),
    "501": (status(501), "elsewhere", "elsewhere"),
    "505": (status(505), "elsewhere", "elsewhere"),
    "401": (status(401), "elsewhere", "elsewhere"),
    "402": (status(402), "elsewhere", "elsewhere"),
    "403": (status(403), "elsewhere", "elsewhere"),
    "408": (status(408), "elsewhere", "elsewhere"),
    "418": (status(418), "elsewhere", "elsewhere"),
    "not sent": (APIConnectionError("m", sent=False), "failure", "failure"),
    "sent": (APIConnectionError("m", sent=True), "elsewhere", "elsewhere"),
    "connect": (timeout("connect"), "failure", "failure"),
    "first token": (timeout("first_token"), "failure", "elsewhere"),
    "idle": (timeout("idle"), "final", "final"),
    "total": (timeout("total"), "final", "final"),
    "down": (errors.ProviderDownError("m"), "elsewhere", "elsewhere"),
    "protocol": (errors.ProtocolError("m"), "elsewhere", "elsewhere"),
    "output": (errors.OutputValidationError("m"), "elsewhere", "elsewhere"),
    "truncated": (errors.StreamTruncatedError("m", partial=Answer()), "elsewhere", "elsewhere"),
    "upstream": (UpstreamError("m"), "elsewhere", "elsewhere"),
    "bad request": (errors.BadRequestError("m", status_code=400), "final", "final"),
    "too large": (errors.RequestTooLargeError("m", status_code=413), "final", "final"),
    "not found": (errors.NotFoundError("m", status_code=404), "final", "final"),
    "unpriced": (errors.UnpricedModelError("m"), "final", "final"),
    "limit": (errors.LimitExceededError("m"), "final", "final"),
    "deadline": (errors.DeadlineExceededError("m"), "final", "final"),
    "cancelled": (errors.CancelledCallError("m"), "final", "final"),
    "settings": (errors.SettingsError("m"), "final", "final"),
    "other": (DrovewayError("m"), "final", "final"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_a_failed_attempt_means_one_of_four_things(name: str) -> None:
    """Spec: section 6 of the design; the table is the whole of it."""
    error, early, late = VERDICTS[name]
    for timeouts in (0, 1):
        assert judge(error, delivered=False, first_token_timeouts=timeouts) == early
    for timeouts in (2, 3):
        assert judge(error, delivered=False, first_token_timeouts=timeouts) == late


@pytest.mark.parametrize("name", VERDICTS)
def test_nothing_is_repeated_after_data_was_delivered(name: str) -> None:
    for timeouts in range(3):
        error = VERDICTS[name][0]
        assert judge(error, delivered=True, first_token_timeouts=timeouts) == "final"


def test_the_table_has_every_kind_of_error() -> None:
    judged = {kind for error, *_ in VERDICTS.values() for kind in type(error).__mro__}
    known = {each for each in vars(errors).values() if isinstance(each, type)}
    leaves = {
        kind for kind in known if issubclass(kind, UpstreamError) and not kind.__subclasses__()
    }
    assert leaves <= judged


# How long.


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_below_its_ceiling_which_doubles_up_to_the_cap(
    failures: int, jitter: float
) -> None:
    policy = RetryPolicy(base_s=0.5, cap_s=30.0)
    ceiling = min(30.0, 0.5 * 2 ** min(failures - 1, 100))
    assert 0 <= policy.backoff_s(failures, jitter) < ceiling or jitter == 0


def test_jitter_is_full() -> None:
    policy = RetryPolicy(base_s=1.0, cap_s=8.0)
    assert [policy.backoff_s(failures, 0.5) for failures in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 4, 4]
    assert policy.backoff_s(3, 0.0) == 0


@pytest.mark.parametrize("attempts", [0, -1])
def test_at_least_one_request_is_sent(attempts: int) -> None:
    with pytest.raises(ValueError, match="max_attempts must be at least 1"):
        RetryPolicy(max_attempts=attempts)


# How many.


@given(st.lists(st.integers(0, 10), max_size=300))
def test_in_a_total_outage_retries_are_a_tenth_of_the_requests_and_a_constant(
    wanted: list[int],
) -> None:
    """Each request fails as often as its policy lets it: the budget bounds what is sent again."""
    budget = RetryBudget()
    retries = 0
    for requests, wants in enumerate(wanted, start=1):
        budget.deposit()
        for _ in range(wants):
            retries += budget.withdraw()
        assert retries <= BUDGET_START + BUDGET_PER_REQUEST * requests + 1e-6
        assert -1e-9 <= budget.tokens <= BUDGET_MAX


def test_a_total_outage_of_ten_thousand_requests_costs_a_tenth_more() -> None:
    budget = RetryBudget()
    retries = 0
    for _ in range(10_000):
        budget.deposit()
        retries += sum(budget.withdraw() for _ in range(4))
    assert 1_000 <= retries <= 1_010


def test_good_times_do_not_save_up_without_end() -> None:
    budget = RetryBudget()
    for _ in range(100_000):
        budget.deposit()
    assert budget.tokens == BUDGET_MAX
    assert sum(budget.withdraw() for _ in range(1000)) == BUDGET_MAX


def test_the_first_retries_are_there_from_the_start() -> None:
    budget = RetryBudget()
    assert [budget.withdraw() for _ in range(11)] == [True] * 10 + [False]
