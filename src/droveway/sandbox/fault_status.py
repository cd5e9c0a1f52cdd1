"""This file knows the faults that are an HTTP status: refusals and failures of a vendor."""

from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Final

from droveway.sandbox.fault import Case, Fault
from droveway.sandbox.reply import Piece, Reply, error_reply, json_reply

_Header = Callable[[Case], tuple[str, str]]

# status: message, type, code
_ERRORS: Final[dict[int, tuple[str, str, str | None]]] = {
    400: ("Invalid request: the sandbox was told to refuse it.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("This key may not use this model.", "invalid_request_error", "permission_denied"),
    404: ("The model does not exist.", "invalid_request_error", "model_not_found"),
    408: ("The request took too long to arrive.", "invalid_request_error", "request_timeout"),
    413: ("The request is too large.", "invalid_request_error", "request_too_large"),
    422: ("The request was understood and cannot be done.", "invalid_request_error", None),
    429: ("Rate limit reached.", "rate_limit_error", "rate_limit_exceeded"),
    500: ("The server had an error.", "server_error", None),
    502: ("Bad gateway.", "server_error", None),
    503: ("The service is overloaded.", "server_error", "service_unavailable"),
    504: ("The upstream took too long.", "server_error", "gateway_timeout"),
    529: ("Overloaded.", "overloaded_error", None),
}
_BALANCE: Final = {
    "error": {
        "message": "Insufficient Balance",
        "type": "unknown_error",
        "param": None,
        "code": "invalid_request_error",
    }
}
_NGINX: Final = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>\n"


def _status(status: int, header: _Header | None = None) -> Callable[[Reply, Case], Reply]:
    """Refuse with a status and, where wanted, a header."""
    message, kind, code = _ERRORS[status]

    def play(_: Reply, case: Case) -> Reply:
        refusal = error_reply(status, message, kind=kind, code=code)
        return refusal.with_headers(header(case)) if header else refusal

    return play


def _plain_word(status: int) -> str:
    """Describe a plain status fault."""
    envelope = f"Status {status} in OpenAI's error envelope"
    return f"{envelope}, without a Retry-After." if status in {429, 503, 529} else f"{envelope}."


def _seconds(case: Case) -> tuple[str, str]:
    return "retry-after", f"{case.number:g}"


def _date(case: Case) -> tuple[str, str]:
    return "retry-after", format_datetime(case.now + timedelta(seconds=case.number), usegmt=True)


def _past_date(case: Case) -> tuple[str, str]:
    return "retry-after", format_datetime(case.now - timedelta(seconds=case.number), usegmt=True)


def _milliseconds(case: Case) -> tuple[str, str]:
    return "retry-after-ms", f"{case.number:g}"


def _literal(value: str) -> _Header:
    return lambda _: ("retry-after", value)


def _no_balance(_: Reply, __: Case) -> Reply:
    return json_reply(_BALANCE, status=402)


def _html_502(_: Reply, __: Case) -> Reply:
    return Reply((Piece(_NGINX, "body"),), status=502, headers=(("content-type", "text/html"),))


STATUS_FAULTS: Final = (
    *(Fault(str(status), _plain_word(status), _status(status)) for status in _ERRORS),
    Fault("402", "Status 402 with DeepSeek's body, whose code misleads.", _no_balance),
    Fault("429-seconds", "Status 429 with Retry-After: N seconds.", _status(429, _seconds), 1),
    Fault("429-date", "Status 429 with a Retry-After date N seconds on.", _status(429, _date), 2),
    Fault("429-ms", "Status 429 with retry-after-ms: N.", _status(429, _milliseconds), 250),
    Fault(
        "429-past",
        "Status 429 with a Retry-After date N seconds ago.",
        _status(429, _past_date),
        3600,
    ),
    Fault("429-negative", "Status 429 with Retry-After: -5.", _status(429, _literal("-5"))),
    Fault("429-garbage", "Status 429 with Retry-After: soon.", _status(429, _literal("soon"))),
    Fault("429-huge", "Status 429 with Retry-After: 10^9.", _status(429, _literal("1000000000"))),
    Fault("503-seconds", "Status 503 with Retry-After: N seconds.", _status(503, _seconds), 1),
    Fault("529-seconds", "Status 529 with Retry-After: N seconds.", _status(529, _seconds), 1),
    Fault("502-html", "Status 502 with the HTML page of a proxy.", _html_502),
)
