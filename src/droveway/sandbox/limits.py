"""This file knows the rate limits of the sandbox and the headers that tell of them."""

import math
from dataclasses import dataclass

import msgspec

from droveway.sandbox.reply import Reply, error_reply


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one API key may ask of one model.

    Attributes:
        rpm: Requests a minute; None is without limit and without headers.
        tpm: Tokens a minute, prompt and completion; None likewise.
        concurrency: Requests at once (DeepSeek Flash: 2,500, 2026-11).
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int = 2500

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value!r}; it must be at least 1")


@dataclass(slots=True)
class _Bucket:
    """A budget per minute that refills continuously and starts full."""

    per_minute: int
    level: float
    at: float

    def refill(self, now: float) -> None:
        self.level = min(self.per_minute, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now

    def wait_s(self, amount: float) -> float:
        """Seconds until so much is there; more than a whole budget waits for the whole."""
        return max(0.0, (min(amount, self.per_minute) - self.level) * 60 / self.per_minute)

    def headers(self, noun: str) -> tuple[tuple[str, str], ...]:
        reset_s = (self.per_minute - self.level) * 60 / self.per_minute
        return (
            (f"x-ratelimit-limit-{noun}", str(self.per_minute)),
            (f"x-ratelimit-remaining-{noun}", str(max(0, math.floor(self.level)))),
            (f"x-ratelimit-reset-{noun}", _span(reset_s)),
        )


class Lane:
    """One key's use of one model: its buckets and its requests in flight."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.in_flight = 0
        self._limits = limits
        self._requests = limits.rpm and _Bucket(limits.rpm, limits.rpm, now)
        self._tokens = limits.tpm and _Bucket(limits.tpm, limits.tpm, now)

    def admit(self, tokens: int, now: float) -> Reply | None:
        """Take a request in, or return the 429; an admitted one must `leave`."""
        if self.in_flight >= self._limits.concurrency:
            return _refusal("concurrent requests", 1.0)
        wanted = ((self._requests, 1, "requests"), (self._tokens, tokens, "tokens"))
        for bucket, amount, noun in wanted:
            if bucket:
                bucket.refill(now)
                if (wait_s := bucket.wait_s(amount)) > 0:
                    return _refusal(f"{noun} per min", wait_s).with_headers(*self.headers())
        for bucket, amount, _ in wanted:
            if bucket:
                bucket.level -= amount
        self.in_flight += 1
        return None

    def leave(self) -> None:
        """A request is over."""
        self.in_flight -= 1

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What is left, in OpenAI's headers."""
        requests = self._requests.headers("requests") if self._requests else ()
        return requests + (self._tokens.headers("tokens") if self._tokens else ())


def _refusal(noun: str, wait_s: float) -> Reply:
    message = f"Rate limit reached on {noun}. Please try again in {_span(wait_s)}."
    refusal = error_reply(429, message, kind="rate_limit_error", code="rate_limit_exceeded")
    return refusal.with_headers(
        ("retry-after", str(math.ceil(wait_s))), ("retry-after-ms", str(math.ceil(wait_s * 1000)))
    )


def _span(seconds: float) -> str:
    """Write a span as OpenAI's headers do: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{math.ceil(rest)}s" if minutes else f"{rest:.3g}s"
