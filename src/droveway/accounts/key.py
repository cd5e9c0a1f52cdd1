"""This file knows what a key is: who asks with it, and how much they may ask."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from droveway.errors import BadRequestError
from droveway.storage.moments import micros, moment

_NAME_SIGNS_MAX: Final = 100
# Any zone's end of that year is still a moment in UTC.
_YEAR_MAX: Final = 9998
WEIGHT_MAX: Final = 1_000
_LIMIT_MAX: Final = 2**63 - 1


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key, without its secret.

    Attributes:
        id: Ours, for good; the journal names it.
        name: People's name for it; no two keys in use share one.
        shown: The beginning of the secret, by which people know it again.
        models: The names that may be asked for with it; None for all.
        expires_at: From when on it opens nothing, UTC; None for never.
        rpm: Requests in any minute at most.
        tpm: Tokens in any minute at most.
        concurrency: Requests in flight at most.
        weight: How many turns it gets where others get one, when requests wait.
        tags: Free words for the journal: team, agent, role.
        account: The id of the account that pays for what is asked with it; None for nobody's.
        created_at: When it was made, UTC.
        revoked_at: When it was taken back, UTC; None while it is in use.
    """

    id: str
    name: str
    shown: str
    models: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    weight: int = 1
    tags: Mapping[str, str] = {}
    account: str | None = None
    created_at: datetime
    revoked_at: datetime | None = None

    def open_at(self, now: datetime) -> bool:
        """Whether it opens anything at a moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class KeyTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key is made with; as for `Key`."""

    models: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    weight: int = 1
    tags: dict[str, str] = {}

    def __post_init__(self) -> None:
        for name in ("rpm", "tpm", "concurrency"):
            bound = getattr(self, name)
            if bound is not None and not 1 <= bound <= _LIMIT_MAX:
                raise ValueError(f"{name} must be at least 1; leave it out for no limit")
        if not 1 <= self.weight <= WEIGHT_MAX:
            raise ValueError(f"weight must be between 1 and {WEIGHT_MAX}")
        words = (*(self.models or ()), *self.tags, *self.tags.values())
        if not all(word.isprintable() for word in words) or "" in (self.models or ()):
            raise ValueError("models and tags are words that can be printed, on one line")
        if self.models == ():
            raise ValueError("models is empty: such a key opens nothing; leave it out for all")
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise ValueError("expires_at needs a time zone, such as 2027-01-01T00:00:00Z")
        if self.expires_at is not None and self.expires_at.year > _YEAR_MAX:
            raise ValueError(f"expires_at is after {_YEAR_MAX}; leave it out for never")


class KeyRow(NamedTuple):
    """A key as the store keeps it, in the order of `statements`."""

    id: str
    name: str
    shown: str
    models: str | None
    expires_at_us: int | None
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    tags: str
    created_at_us: int
    revoked_at_us: int | None
    account_id: str | None
    weight: int


def terms_of(given: Mapping[str, Any]) -> KeyTerms:
    """Read what somebody wants a key to be made with.

    Raises:
        BadRequestError: A field is not known, or its value cannot be used.
    """
    try:
        # Strict but for datetimes: they come as such from Python, and as text from JSON.
        return msgspec.convert(given, KeyTerms)
    except msgspec.ValidationError as error:
        known = ", ".join(KeyTerms.__struct_fields__)
        raise BadRequestError(f"a key cannot be made so: {error}; known are {known}") from error


def usable_name(name: str) -> str:
    """Return a name as it is kept.

    Raises:
        BadRequestError: It is empty, longer than 100 signs, or holds control signs.
    """
    name = name.strip()
    if not name or len(name) > _NAME_SIGNS_MAX or not name.isprintable():
        raise BadRequestError(f"{name!r} is no name for a key; write up to 100 signs on one line")
    return name


def row_of(key: Key) -> KeyRow:
    """Write a key as the store keeps it."""
    return KeyRow(
        id=key.id,
        name=key.name,
        shown=key.shown,
        models=None if key.models is None else msgspec.json.encode(key.models).decode(),
        expires_at_us=None if key.expires_at is None else micros(key.expires_at),
        rpm=key.rpm,
        tpm=key.tpm,
        concurrency=key.concurrency,
        tags=msgspec.json.encode(key.tags).decode(),
        created_at_us=micros(key.created_at),
        revoked_at_us=None if key.revoked_at is None else micros(key.revoked_at),
        account_id=key.account,
        weight=key.weight,
    )


def key_of(row: tuple[Any, ...]) -> Key:
    """Read a key as the store keeps it."""
    kept = KeyRow(*row)
    return Key(
        id=kept.id,
        name=kept.name,
        shown=kept.shown,
        models=None if kept.models is None else tuple(msgspec.json.decode(kept.models)),
        expires_at=_moment(kept.expires_at_us),
        rpm=kept.rpm,
        tpm=kept.tpm,
        concurrency=kept.concurrency,
        tags=msgspec.json.decode(kept.tags),
        account=kept.account_id,
        weight=kept.weight,
        created_at=moment(kept.created_at_us),
        revoked_at=_moment(kept.revoked_at_us),
    )


def _moment(kept: int | None) -> datetime | None:
    return None if kept is None else moment(kept)
