"""This file knows who is asking: one key from the headers, and what that key may do."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from droveway.clock import Clock
from droveway.errors import (
    BadRequestError,
    CallerRateLimitError,
    InvalidKeyError,
    ModelNotAllowedError,
)
from droveway.resilience.key_minute import (
    BUCKETS,
    NUMBERS,
    Reached,
    Verdict,
    correct,
    is_over,
    judge,
)
from droveway.storage.shared_table import SharedTable, Slot
from droveway.storage.table_file import beside

_BEARER: Final = b"bearer "
_WORDS: Final[Mapping[Reached, str]] = {
    "concurrency": "requests at once",
    "rpm": "requests a minute",
    "tpm": "tokens a minute",
}


class KnownKey(Protocol):
    """What the gateway reads of a key."""

    @property
    def id(self) -> str:
        """Its id; never the secret."""

    @property
    def account(self) -> str | None:
        """The account that pays; None for none."""

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

    @property
    def weight(self) -> int:
        """Turns it gets where others get one."""


Find = Callable[[str], KnownKey]


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the one key of a request; stray spaces around it are dropped.

    Raises:
        InvalidKeyError: There is none.
        BadRequestError: There are two different ones: which of them pays is anybody's guess.
    """
    found: set[bytes] = set()
    for name, value in headers:
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
        clock: Where time comes from; for a file the system's, which all processes share.
        store: The store whose servers keep the limits together, in a file beside it; None keeps
            them in this process alone.

    Raises:
        SettingsError: The file beside the store cannot be used.
    """

    def __init__(self, clock: Clock, *, store: Path | None = None) -> None:
        self._clock = clock
        self._table = SharedTable(
            None if store is None else beside(store),
            numbers=NUMBERS,
            is_over=lambda minute: is_over(minute, clock.monotonic()),
        )

    def take(self, key: KnownKey, *, model: str, tokens: int) -> "Permit | NoLimits":
        """Let one request of a key in; one that is refused uses nothing up.

        Args:
            key: Whose request it is.
            model: The model as it was asked for.
            tokens: Tokens it may use, by estimate.

        Returns:
            What must be called when the request has ended, with the tokens it used.

        Raises:
            ModelNotAllowedError: The key may not ask for this model.
            CallerRateLimitError: One of the key's limits is reached.
            StoreUnavailableError: Its limits cannot be looked up.
        """
        if key.models is not None and model not in key.models:
            raise ModelNotAllowedError(f"this key may not use the model {model!r}")
        if key.rpm is None and key.tpm is None and key.concurrency is None:
            return _NO_LIMITS
        slot, verdict = self._ask(key, tokens)
        if verdict.reached == "concurrency" and self._table.bury_the_dead():
            slot, verdict = self._ask(key, tokens)
        if verdict.reached is not None:
            raise _refusal(key, verdict)
        return Permit(self, slot, verdict, key=key)

    def close(self) -> None:
        """Leave the table of limits; requests that come back later are not counted any more."""
        self._table.close()

    def _ask(self, key: KnownKey, tokens: int) -> tuple[Slot, Verdict]:
        table = self._table
        slot = table.lock(key.id)
        try:
            # Read under the lock: no other process can have written a later moment.
            now = self._clock.monotonic()
            in_flight = 0 if key.concurrency is None else table.places_of(slot)
            verdict = judge(slot.numbers, now, key, tokens=tokens, in_flight=in_flight)
            if verdict.reached is None:
                table.take_place(slot)
        finally:
            table.unlock(slot)
        return slot, verdict

    def come_back(self, permit: "Permit", used: int | None) -> None:
        """Give the place of a request back, and count what it used in truth."""
        table, slot = self._table, permit.slot
        if used is None or used == permit.verdict.reserved or permit.key.tpm is None:
            table.give_place_back(slot)
        elif table.lock_again(slot):
            try:
                correct(slot.numbers, self._clock.monotonic(), permit.verdict, used=used)
            finally:
                table.unlock(slot)
                table.give_place_back(slot)


class Permit:
    """One request that was let in; call it when the request has ended, with the tokens it used.

    Attributes:
        key: Whose request it is.
        slot: Where the key's numbers are.
        verdict: What the key had used when it went.
    """

    __slots__ = ("_allotments", "_is_back", "key", "slot", "verdict")

    def __init__(
        self, allotments: Allotments, slot: Slot, verdict: Verdict, *, key: KnownKey
    ) -> None:
        self._allotments = allotments
        self._is_back = False
        self.slot = slot
        self.verdict = verdict
        self.key = key

    def __call__(self, used: int | None) -> None:
        """Give its place back; only the first call counts.

        Args:
            used: Tokens that it used in truth; None when that is not known.
        """
        if not self._is_back:
            self._is_back = True
            self._allotments.come_back(self, used)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return what the OpenAI API tells a caller of its limits, as it was on admission."""
        told: list[tuple[bytes, bytes]] = []
        kinds = (
            (b"requests", self.key.rpm, self.verdict.requests),
            (b"tokens", self.key.tpm, self.verdict.tokens),
        )
        for kind, limit, used in kinds:
            if limit is not None:
                told += [
                    (b"x-ratelimit-limit-" + kind, b"%d" % limit),
                    (b"x-ratelimit-remaining-" + kind, b"%d" % max(0, limit - used)),
                    # This request is the youngest of its minute: all is free when it has left.
                    (b"x-ratelimit-reset-" + kind, b"%ds" % BUCKETS),
                ]
        return told


class NoLimits:
    """Stands for the permit of a key without limits: nothing is counted, nothing is told."""

    __slots__ = ()

    def __call__(self, used: int | None) -> None:
        """Give nothing back."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return nothing."""
        return []


_NO_LIMITS: Final = NoLimits()


def _refusal(key: KnownKey, verdict: Verdict) -> CallerRateLimitError:
    assert verdict.reached is not None, "who is refused has reached a limit"
    bound: int = getattr(key, verdict.reached)
    return CallerRateLimitError(
        f"this key has reached its own limit of {bound} {_WORDS[verdict.reached]}; wait "
        f"{math.ceil(verdict.wait_s)} s, or ask for a higher one",
        retry_after_s=verdict.wait_s,
    )
