"""This file knows who is asking: one key from the headers, and what that key may do."""

from collections.abc import Callable, Collection, Mapping
from itertools import count
from typing import Final, Protocol

from droveway.clock import Clock
from droveway.errors import (
    BadRequestError,
    CallerRateLimitError,
    InvalidKeyError,
    ModelNotAllowedError,
)
from droveway.gateway.asgi import Scope
from droveway.resilience.pacing import Pacer, Ticket

CONCURRENCY_UNBOUNDED: Final = 1_000_000
_BEARER: Final = b"bearer "


class KnownKey(Protocol):
    """What the gateway reads of a key."""

    @property
    def id(self) -> str:
        """Its id; never the secret."""

    @property
    def tags(self) -> Mapping[str, str]:
        """Free words for the journal."""

    @property
    def models(self) -> Collection[str] | None:
        """Models it may ask for; None for all."""

    @property
    def rpm(self) -> int | None:
        """Requests a minute at most."""

    @property
    def tpm(self) -> int | None:
        """Tokens a minute at most."""

    @property
    def concurrency(self) -> int | None:
        """Requests at once at most."""


Find = Callable[[str], KnownKey]


def key_of(scope: Scope) -> str:
    """Return the one key of a request; stray spaces around it are dropped.

    Raises:
        InvalidKeyError: There is none.
        BadRequestError: There are two different ones: which of them pays is anybody's guess.
    """
    found: set[bytes] = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.add(value.strip())
        elif name == b"authorization" and value[:7].lower() == _BEARER:
            found.add(value[7:].strip())
    found.discard(b"")
    if len(found) > 1:
        raise BadRequestError("the request carries two different keys; send one")
    if not found:
        raise InvalidKeyError("no API key was sent; send it as 'Authorization: Bearer KEY'")
    return found.pop().decode("latin-1")


class Allotments:
    """What each key has left of its own limits; a key that is over them touches nobody else.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pacers: dict[str, tuple[tuple[int | None, ...], Pacer]] = {}
        self._numbers = count()

    def take(self, key: KnownKey, *, model: str, tokens: int) -> Callable[[int | None], None]:
        """Let one request of a key in.

        Args:
            key: Whose request it is.
            model: The model as it was asked for.
            tokens: Tokens it may use, by estimate.

        Returns:
            What must be called when the request has ended, with the tokens it used.

        Raises:
            ModelNotAllowedError: The key may not ask for this model.
            CallerRateLimitError: One of the key's limits is reached.
        """
        if key.models is not None and model not in key.models:
            raise ModelNotAllowedError(f"this key may not use the model {model!r}")
        limits = (key.concurrency, key.rpm, key.tpm)
        if limits == (None, None, None):
            return _nothing_to_return
        pacer = self._pacer(key, limits)
        ticket = Ticket(next(self._numbers), tokens, 0.0)
        now = self._clock.monotonic()
        pacer.join(ticket)
        if ticket not in pacer.admit(now):
            wake_at = pacer.wake_at(now)
            pacer.leave(ticket)
            wait = 1.0 if wake_at is None else wake_at - now
            raise CallerRateLimitError(
                "this key has reached its own limit; wait, or ask for a higher one",
                retry_after_s=wait,
            )

        def come_back(used: int | None) -> None:
            pacer.returned(ticket, tokens=used)

        return come_back

    def _pacer(self, key: KnownKey, limits: tuple[int | None, ...]) -> Pacer:
        known = self._pacers.get(key.id)
        if known is None or known[0] != limits:
            concurrency = key.concurrency or CONCURRENCY_UNBOUNDED
            known = (limits, Pacer(concurrency=concurrency, rpm=key.rpm, tpm=key.tpm))
            self._pacers[key.id] = known
        return known[1]


def _nothing_to_return(used: int | None) -> None:
    """A key without limits has nothing to give back."""
