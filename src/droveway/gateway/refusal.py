"""This file knows how an error becomes an HTTP answer; there is no other such table."""

import math
from typing import Final

import msgspec

from droveway.errors import (
    AlreadyServedError,
    APIStatusError,
    AuthenticationError,
    CallerError,
    DrovewayError,
    InsufficientBalanceError,
    MethodNotAllowedError,
    NoAnswerError,
    PermissionDeniedError,
    RateLimitError,
    RequestInFlightError,
)
from droveway.gateway.visit import Headers, Visit

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}
# A vendor's word about our account is no word about the caller's: to them it is a failed vendor.
_OURS: Final = (AuthenticationError, InsufficientBalanceError, PermissionDeniedError)
RETRY_AFTER_UNKNOWN_S: Final = 1


def status_of(error: DrovewayError) -> int:
    """Return the status with which an error is answered."""
    return 502 if isinstance(error, _OURS) else error.status


def envelope(error: DrovewayError) -> dict[str, object]:
    """Return the error object of the OpenAI dialect."""
    status = status_of(error)
    return {
        "message": _message(error),
        "type": _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error"),
        "param": getattr(error, "param", None),
        "code": "upstream_failed" if isinstance(error, _OURS) else error.code,
    }


def error_event(error: DrovewayError, *, request_id: str) -> bytes:
    """Return the event with which a stream fails after its head was sent."""
    told = {**envelope(error), "retryable": error.retryable, "request_id": request_id}
    phase = getattr(error, "phase", None)
    if phase is not None:
        told["phase"] = phase
    partial = getattr(error, "partial", None)
    if partial is not None:
        told["characters_delivered"] = len(partial.text)
        if partial.usage is not None:
            told["tokens_delivered"] = partial.usage.output
    return b"data: " + msgspec.json.encode({"error": told}) + b"\n\n"


def refuse(visit: Visit, error: DrovewayError, *, headers: Headers = ()) -> None:
    """Answer with an error."""
    extra = list(headers)
    status = status_of(error)
    later = getattr(error, "retry_after_s", None) is not None
    if later or status == 429 or isinstance(error, RequestInFlightError):
        extra.append((b"retry-after", b"%d" % _retry_after_s(error)))
    if isinstance(error, MethodNotAllowedError):
        extra.append((b"allow", error.allow.encode()))
    if status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, AlreadyServedError) or (
        error.attempts and not isinstance(error, CallerError)
    ):
        # We have tried for them: an SDK that tries again multiplies our attempts by its own.
        extra.append((b"x-should-retry", b"false"))
    visit.respond(status, msgspec.json.encode({"error": envelope(error)}), headers=extra)


def _retry_after_s(error: DrovewayError) -> int:
    wait = getattr(error, "retry_after_s", None)
    return max(1, math.ceil(wait)) if wait else RETRY_AFTER_UNKNOWN_S


def _message(error: DrovewayError) -> str:
    if isinstance(error, NoAnswerError | RateLimitError | APIStatusError):
        return f"the upstream provider failed: {error.message}"
    return error.message
