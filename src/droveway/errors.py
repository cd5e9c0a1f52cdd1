"""This file knows everything that can go wrong, and whose fault it is.

DrovewayError
├── CallerError                      the request must change
│   ├── BadRequestError              400 invalid_request
│   │   ├── UnprocessableEntityError 422 invalid_request
│   │   ├── RequestTooLargeError     413 request_too_large
│   │   └── NotFoundError            404 model_not_found
│   ├── InvalidKeyError              401 invalid_api_key
│   ├── ModelNotAllowedError         403 model_not_allowed
│   ├── RouteNotFoundError           404 route_not_found
│   ├── MethodNotAllowedError        405 method_not_allowed
│   ├── UnpricedModelError           404 model_unpriced
│   ├── LimitExceededError           402 budget_exhausted
│   ├── RequestInFlightError         409 request_in_flight
│   ├── AlreadyServedError           409 already_served
│   ├── IdempotencyMismatchError     422 idempotency_mismatch
│   ├── BalanceTooLowError           402 insufficient_balance
│   ├── FrozenAccountError           403 account_frozen
│   ├── LaterError                   429, the same request may be let in later
│   │   ├── CallerRateLimitError     429 rate_limited
│   │   ├── QueueFullError           429 rate_limited
│   │   └── DeadlineExceededError    429 deadline_exceeded
│   ├── UnknownRoleError             400 invalid_request
│   ├── ToolError                    400 tool_failed
│   └── CancelledCallError           499 cancelled
├── UpstreamError                    they failed; the plan may go on
│   ├── APIConnectionError           502, never a full answer
│   │   └── APITimeoutError          504, with its phase
│   ├── APIStatusError               502, the vendor answered with an error
│   │   ├── AuthenticationError      the vendor said 401
│   │   ├── InsufficientBalanceError the vendor said 402
│   │   ├── PermissionDeniedError    the vendor said 403
│   │   ├── RateLimitError           the vendor said 429
│   │   └── InternalServerError      the vendor said 5xx
│   │       └── OverloadedError      503 or 529
│   ├── ProviderDownError            503, it failed in a row and is not asked now
│   ├── ProtocolError                what they sent is not what was agreed
│   │   └── OutputValidationError    the answer does not fit `output_type`
│   └── StreamTruncatedError         the stream stopped without its finish marker
├── StoreUnavailableError            503 unavailable
├── GoingDownError                   503 unavailable
├── SettingsError                    refuse to start
└── NoAnswerError                    two or more candidates failed; holds each

`status` is what a server answers for us, `status_code` what the vendor said to us. Names follow
the OpenAI SDK where the meaning is the same. A message says what happened and what to do; it
never holds a key or prompt text.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from droveway.chat import Answer
    from droveway.money import Money

Phase = Literal["connect", "first_token", "idle", "total"]


class DrovewayError(Exception):
    """Root of all errors of this package.

    Attributes:
        status: HTTP status with which a server of ours answers this.
        code: Stable, documented word for programs.
        retryable: Whether the same call may succeed later, unchanged.
        attempts: How many requests were sent to vendors before this was raised.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, attempts: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.attempts = attempts

    def forget_trace(self) -> None:
        """Let go of the frames it came through, before it is kept.

        What keeps an error is mostly in one of them: the two would hold each other in a circle, and
        the whole request with them, until a collector looks.
        """
        left: list[BaseException | None] = [self]
        while left:
            error = left.pop()
            if error is not None:
                error.__traceback__ = None
                left += (error.__cause__, error.__context__)


class CallerError(DrovewayError):
    """The request must change before it can succeed."""

    status = 400
    code = "invalid_request"


class BadRequestError(CallerError):
    """The request is malformed, or the vendor refused it as such.

    Attributes:
        status_code: The vendor's status; None when we refused it ourselves.
        param: The field of the request that the vendor names; None when it names none.
    """

    def __init__(self, message: str, *, attempts: int = 0, status_code: int | None = None) -> None:
        super().__init__(message, attempts=attempts)
        self.status_code = status_code
        self.param: str | None = None


class UnprocessableEntityError(BadRequestError):
    """The vendor understood the request and cannot do it (422)."""

    status = 422


class RequestTooLargeError(BadRequestError):
    """The request is larger than the model or the server takes."""

    status = 413
    code = "request_too_large"


class NotFoundError(BadRequestError):
    """No configured provider has this model."""

    status = 404
    code = "model_not_found"


class InvalidKeyError(CallerError):
    """The key opens nothing here: malformed, unknown, revoked or expired."""

    status = 401
    code = "invalid_api_key"


class UnpricedModelError(CallerError):
    """The model has no price where money decides; it is never billed as another or as 0."""

    status = 404
    code = "model_unpriced"


class LimitExceededError(CallerError):
    """A limit leaves no room for this call: `max_cost`, `max_requests`, or a gateway's budget."""

    status = 402
    code = "budget_exhausted"


class BalanceTooLowError(CallerError):
    """The account's prepaid balance does not cover what this request may cost.

    Attributes:
        available: What is left, where it is known.
        needed: What the request may cost, where it is known.
    """

    status = 402
    code = "insufficient_balance"

    def __init__(
        self,
        message: str,
        *,
        attempts: int = 0,
        available: "Money | None" = None,
        needed: "Money | None" = None,
    ) -> None:
        super().__init__(message, attempts=attempts)
        self.available = available
        self.needed = needed


class RequestInFlightError(CallerError):
    """A request with this Idempotency-Key is on its way.

    Attributes:
        retry_after_s: When it is worth asking again.
    """

    status = 409
    code = "request_in_flight"
    retryable = True
    retry_after_s: float = 2.0


class AlreadyServedError(CallerError):
    """A request with this Idempotency-Key was served and charged, and its answer is not kept.

    Attributes:
        request_id: Which request that was.
        cost: What it was charged.
    """

    status = 409
    code = "already_served"

    def __init__(
        self, message: str, *, attempts: int = 0, request_id: str = "", cost: "Money | None" = None
    ) -> None:
        super().__init__(message, attempts=attempts)
        self.request_id = request_id
        self.cost = cost


class IdempotencyMismatchError(CallerError):
    """This Idempotency-Key was used for another body."""

    status = 422
    code = "idempotency_mismatch"


class FrozenAccountError(CallerError):
    """Nothing is served for this account until its operator opens it again."""

    status = 403
    code = "account_frozen"


class LaterError(CallerError):
    """The same request may be let in later; no vendor is asked now.

    Attributes:
        retry_after_s: In about how many seconds; None when that is not known.
    """

    status = 429
    code = "rate_limited"
    retryable = True

    def __init__(
        self, message: str, *, attempts: int = 0, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, attempts=attempts)
        self.retry_after_s = retry_after_s


class CallerRateLimitError(LaterError):
    """The key has reached a limit of its own."""


class QueueFullError(LaterError):
    """Too many requests wait for one model of a provider."""


class DeadlineExceededError(LaterError):
    """The caller's deadline passed, or was sure to pass, while the call waited for its turn."""

    code = "deadline_exceeded"


class UnknownRoleError(CallerError):
    """A role was named that the supervisor does not have."""


class ToolError(CallerError):
    """A tool is not usable as given, or the model called tools for too many rounds."""

    code = "tool_failed"


class CancelledCallError(CallerError):
    """The caller went away, or the engine was closed, before the answer was whole."""

    status = 499
    code = "cancelled"


class UpstreamError(DrovewayError):
    """A vendor failed; a plan with further candidates may go on.

    Attributes:
        status_code: HTTP status of the vendor; None when there was none.
        provider: Name of the provider in the settings.
        request_id: The vendor's own id of the request, where it gave one.
        sent: Whether any byte of the request may have reached the vendor.
        partial: What had arrived until then; None for nothing.
        should_retry: What the vendor says of sending it again; None when it says nothing.
    """

    partial: "Answer | None" = None
    should_retry: bool | None = None
    status = 502
    code = "upstream_failed"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        attempts: int = 0,
        status_code: int | None = None,
        provider: str | None = None,
        request_id: str | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message, attempts=attempts)
        self.status_code = status_code
        self.provider = provider
        self.request_id = request_id
        self.sent = sent

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Change every text in it that may stem from the vendor; takes keys out."""
        self.message = change(self.message)
        self.args = (self.message,)
        if self.request_id is not None:
            self.request_id = change(self.request_id)


class APIConnectionError(UpstreamError):
    """The vendor could not be reached, or the connection broke before the answer was whole."""


class APITimeoutError(APIConnectionError):
    """One of the four clocks of a call ran out.

    Attributes:
        phase: Which clock: connect, first_token, idle or total.
    """

    status = 504
    code = "upstream_timeout"

    def __init__(
        self,
        message: str,
        *,
        phase: Phase,
        provider: str | None = None,
        sent: bool = True,
        attempts: int = 0,
    ) -> None:
        super().__init__(message, provider=provider, sent=sent, attempts=attempts)
        self.phase: Phase = phase


class APIStatusError(UpstreamError):
    """The vendor answered with an error status.

    Attributes:
        retry_after_s: Seconds the vendor asked us to wait, already capped; None when it did not.
    """

    retry_after_s: float | None = None


class AuthenticationError(APIStatusError):
    """The vendor does not accept our key (401)."""

    retryable = False


class InsufficientBalanceError(APIStatusError):
    """The balance at the vendor is used up (402)."""

    retryable = False


class PermissionDeniedError(APIStatusError):
    """The vendor's account may not do this (403)."""

    retryable = False


class RateLimitError(APIStatusError):
    """The vendor refuses for now (429)."""

    status = 429
    code = "rate_limited"


class InternalServerError(APIStatusError):
    """The vendor failed inside (5xx)."""


class OverloadedError(InternalServerError):
    """The vendor has too much to do (503, 529)."""


class ProviderDownError(UpstreamError):
    """The provider failed again and again; it is asked again, by one request, in a while.

    Attributes:
        retry_after_s: When that is, in seconds.
    """

    status = 503
    code = "unavailable"

    def __init__(
        self,
        message: str,
        *,
        attempts: int = 0,
        retry_after_s: float = 1.0,
        provider: str | None = None,
    ) -> None:
        super().__init__(message, attempts=attempts, provider=provider, sent=False)
        self.retry_after_s = retry_after_s


class ProtocolError(UpstreamError):
    """What the vendor sent is not what the protocol agrees on."""


class OutputValidationError(ProtocolError):
    """The answer does not fit the `output_type` that was asked for."""


class StreamTruncatedError(UpstreamError):
    """A stream stopped without its finish marker; it is never passed off as complete.

    Attributes:
        partial: What had arrived until then, with its estimated usage.
    """

    def __init__(
        self,
        message: str,
        *,
        partial: "Answer",
        provider: str | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message, provider=provider, attempts=attempts)
        self.partial: Answer = partial


class StoreUnavailableError(DrovewayError):
    """The store cannot be read or written now: locked, full, read-only, damaged or closed."""

    status = 503
    code = "unavailable"
    retryable = True


class GoingDownError(DrovewayError):
    """The server is going down and could not wait for this request any longer."""

    status = 503
    code = "unavailable"
    retryable = True


class ModelNotAllowedError(CallerError):
    """The key may not ask for this model."""

    status = 403
    code = "model_not_allowed"


class RouteNotFoundError(CallerError):
    """The server has nothing at this path."""

    status = 404
    code = "route_not_found"


class MethodNotAllowedError(CallerError):
    """There is such a route, but it is asked in another way.

    Attributes:
        allow: The method it takes.
    """

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, attempts: int = 0, allow: str = "") -> None:
        super().__init__(message, attempts=attempts)
        self.allow = allow


class SettingsError(DrovewayError):
    """The settings cannot be used; nothing was started."""

    code = "invalid_settings"


class NoAnswerError(DrovewayError):
    """Two or more candidates failed.

    Attributes:
        errors: What each attempt ended with, in order.
    """

    status = 502
    code = "upstream_failed"
    retryable = True

    def __init__(self, message: str, *, errors: Sequence[DrovewayError], attempts: int = 0) -> None:
        super().__init__(message, attempts=attempts)
        self.errors = tuple(errors)
