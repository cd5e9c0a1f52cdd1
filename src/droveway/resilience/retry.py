"""This file knows what a failed attempt means: wait in line, try again, go elsewhere, or stop."""

from dataclasses import dataclass
from typing import Final, Literal

from droveway.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    DrovewayError,
    InternalServerError,
    OutputValidationError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    StreamTruncatedError,
    UpstreamError,
)

# refusal: the vendor works and says "later"; the request keeps its place in line.
# failure: the same request may succeed if sent again; costs retry budget.
# elsewhere: this candidate cannot answer; another one may.
# final: sending it again, here or elsewhere, is wrong.
Verdict = Literal["refusal", "failure", "elsewhere", "final"]

_RETRIED_STATUSES: Final = frozenset({500, 502, 503, 504, 529})
BUDGET_START: Final = 10.0
BUDGET_PER_REQUEST: Final = 0.1
BUDGET_MAX: Final = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently one call is tried again.

    Attributes:
        max_attempts: Requests sent for one call at most, refused ones among them.
        base_s: Longest wait before the first retry of a failure; doubles each time.
        cap_s: Longest wait before any retry of a failure.
        retry_after_max_s: What a vendor's longer `Retry-After` is cut to.
    """

    max_attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 30.0
    retry_after_max_s: float = 120.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be at least 1: one request is always sent")

    def backoff_s(self, failures: int, jitter: float) -> float:
        """Return the wait before the next try after so many failures, with full jitter."""
        ceiling: float = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 30))
        return ceiling * jitter


def judge(error: DrovewayError, *, delivered: bool, first_token_timeouts: int) -> Verdict:
    """Say what a failed attempt means.

    Args:
        error: What the attempt ended with.
        delivered: Whether any data event has reached the caller; nothing is repeated after that.
        first_token_timeouts: How many attempts of this call ended so, this one among them.
    """
    if delivered or not isinstance(error, UpstreamError):
        return "final"
    # Who answers knows best whether it was tried often enough: a gateway has tried for us.
    if error.should_retry is False:
        return "elsewhere"
    if _refused(error):
        return "refusal"
    if error.should_retry or _repeatable(error, first_token_timeouts):
        return "failure"
    over = isinstance(error, APITimeoutError) and error.phase in {"idle", "total"}
    return "final" if over else "elsewhere"


def tells_of_trouble(error: DrovewayError | None) -> bool:
    """Whether an attempt that ended so says that its provider is not well.

    What the caller wants (a bad request, a total time that is too short) says nothing about it, nor
    does a refusal; that our key is not taken says enough at once, and has its own rule.
    """
    if isinstance(error, APITimeoutError):
        return error.phase != "total"
    ill = (APIConnectionError, InternalServerError, ProtocolError, StreamTruncatedError)
    return isinstance(error, ill) and not isinstance(error, OutputValidationError)


def _refused(error: UpstreamError) -> bool:
    overloaded = isinstance(error, OverloadedError) and error.retry_after_s is not None
    return overloaded or isinstance(error, RateLimitError)


def _repeatable(error: UpstreamError, first_token_timeouts: int) -> bool:
    if isinstance(error, APITimeoutError):
        first = error.phase == "first_token" and first_token_timeouts <= 1
        return first or error.phase == "connect"
    if isinstance(error, APIStatusError):
        return error.status_code in _RETRIED_STATUSES
    return isinstance(error, APIConnectionError) and not error.sent


class RetryBudget:
    """Bounds the retries of failures to a share of the requests, whatever goes wrong.

    It starts with 10 tokens, each request adds 0.1 up to 50, each retry takes one. In a total
    outage the vendor sees at most 1.1 times the requests, plus a constant.
    """

    def __init__(self) -> None:
        self._tokens = BUDGET_START

    @property
    def tokens(self) -> float:
        """What is left."""
        return self._tokens

    def deposit(self) -> None:
        """Count one request."""
        self._tokens = min(BUDGET_MAX, self._tokens + BUDGET_PER_REQUEST)

    def withdraw(self) -> bool:
        """Take the token of one retry; False when there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
