"""This file knows a provider at run time: where it is, what it is sent, and how it is told off."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from droveway.catalog.providers import vendor_of
from droveway.dialects.accents import Accent, accent_named
from droveway.dialects.openai_chat import error_message, error_param, one_line
from droveway.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    DrovewayError,
    InsufficientBalanceError,
    InternalServerError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RequestTooLargeError,
    UnprocessableEntityError,
)
from droveway.resilience.gate import FAILURES_IN_A_ROW
from droveway.resilience.pacing import WAITING_MAX
from droveway.resilience.retry_after import retry_after_s
from droveway.routing.plan import Offer
from droveway.settings import Secret
from droveway.transport import Origin, Request

_CALLER_ERRORS: Final[Mapping[int, type[BadRequestError]]] = {
    400: BadRequestError,
    413: RequestTooLargeError,
    422: UnprocessableEntityError,
}
_VENDOR_ERRORS: Final[Mapping[int, type[APIStatusError]]] = {
    401: AuthenticationError,
    402: InsufficientBalanceError,
    403: PermissionDeniedError,
    429: RateLimitError,
    503: OverloadedError,
    529: OverloadedError,
}
_SHOULD_RETRY: Final[Mapping[str, bool]] = {"true": True, "false": False}
_ADVICE: Final[Mapping[int, str]] = {
    401: "check the key of this provider",
    402: "top up the account at this provider",
    403: "ask the provider what this account may do",
    404: "check base_url and the model's name",
    429: "send less, or wait",
}


Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A vendor account that can be asked.

    Attributes:
        name: Name in the settings.
        origin: Where it listens.
        path: Path before the dialect's own.
        accent: How it differs within its dialect; None speaks as the model's own vendor does.
        key: Its key, where it has one.
        further: The keys of its further accounts, in order.
        weights: How many conversations each account gets where others get one.
        prices: Whose price list applies.
        offer: What it has.
        concurrency: Bound of requests in flight for each model; None asks the catalog.
        rpm: Bound of requests a minute for each model.
        tpm: Bound of tokens a minute for each model.
        waiting_max: Bound of requests that wait, for each model.
        failures_max: Failures in a row after which it is not asked for a while; 0 for never.
        relays: Whether it may be a gateway that tries for us: it is told how long and how often.
    """

    name: str
    origin: Origin
    path: str
    accent: Accent | None
    key: Secret | None
    prices: str | None
    offer: Offer
    concurrency: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    waiting_max: int = WAITING_MAX
    failures_max: int = FAILURES_IN_A_ROW
    relays: bool = False
    further: tuple[Secret, ...] = ()
    weights: tuple[int, ...] = (1,)
    headers: tuple[Fields, ...] = field(init=False, repr=False)
    stream_headers: tuple[Fields, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        told = [_headers(key) for key in (self.key, *self.further)]
        whole, stream = ("accept", "application/json"), ("accept", "text/event-stream")
        object.__setattr__(self, "headers", tuple((*each, whole) for each in told))
        object.__setattr__(self, "stream_headers", tuple((*each, stream) for each in told))

    @property
    def keys(self) -> tuple[Secret, ...]:
        """The keys of all its accounts."""
        return () if self.key is None else (self.key, *self.further)

    def request(
        self, path: str, body: bytes, *, streaming: bool, account: int = 0, told: Fields = ()
    ) -> Request:
        """Address a body to a path of this provider.

        Args:
            path: The dialect's own path.
            body: The body.
            streaming: Whether events are wanted.
            account: As which of its accounts.
            told: Further headers, where it relays.
        """
        headers = (self.stream_headers if streaming else self.headers)[account]
        return Request(
            method="POST",
            origin=self.origin,
            path=self.path + path,
            headers=(*headers, *told) if told else headers,
            body=body,
        )

    def accent_for(self, model: str) -> Accent:
        """Return how this provider is spoken to about a model.

        Models keep their manners behind other people's doors: DeepSeek's wants its reasoning
        back wherever it is served.
        """
        if self.accent is not None:
            return self.accent
        vendor = vendor_of(model)
        return accent_named(vendor.accent if vendor is not None else None)

    def redact(self, text: str) -> str:
        """Take our keys out of a text that a vendor sent back."""
        for key in self.keys:
            text = re.sub(re.escape(key.reveal()), "***", text, flags=re.IGNORECASE)
        return text

    def status_error(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes | object,
        *,
        now: datetime,
        retry_after_max_s: float,
    ) -> DrovewayError:
        """Turn a vendor's refusal into its typed error.

        The status decides, never the words: DeepSeek's 402 calls itself `invalid_request_error`.

        Args:
            status: HTTP status; of an error inside a stream, the one it stands for.
            headers: Names in lower case.
            body: The error body.
            now: The wall clock, UTC; for a Retry-After date.
            retry_after_max_s: What a longer wait is cut to.
        """
        # The key is taken out before the text is cut: half a key is still a secret.
        said = one_line(self.redact(error_message(body))).rstrip(".") or "no reason given"
        message = f"{self.name} answered {status}: {said}"
        if status in _ADVICE:
            message = f"{message}; {_ADVICE[status]}"
        if status == 404:
            return NotFoundError(message, status_code=status)
        if status in _CALLER_ERRORS:
            refused = _CALLER_ERRORS[status](message, status_code=status)
            refused.param = error_param(body)
            return refused
        default = InternalServerError if status >= 500 else APIStatusError
        error = _VENDOR_ERRORS.get(status, default)(
            message,
            status_code=status,
            provider=self.name,
            request_id=headers.get("x-request-id"),
        )
        error.retry_after_s = retry_after_s(headers, now=now, max_s=retry_after_max_s)
        error.should_retry = _SHOULD_RETRY.get(headers.get("x-should-retry", "").lower())
        return error


def _headers(key: Secret | None) -> Fields:
    headers = [("content-type", "application/json"), ("user-agent", "droveway")]
    if key is not None:
        headers.append(("authorization", f"Bearer {key.reveal()}"))
    return tuple(headers)
