"""This file knows the ring of keys: made once, looked up on every request, taken back at once."""

import asyncio
import hmac
import secrets
from datetime import UTC
from typing import Any, Final

from droveway.accounts import secret, statements
from droveway.accounts.key import Key, key_of, row_of, terms_of, usable_name
from droveway.clock import Clock, SystemClock
from droveway.errors import BadRequestError, InvalidKeyError
from droveway.storage import Store
from droveway.storage.moments import micros

_REFUSED: Final = "this API key opens nothing here; check it, or make one: droveway keys add NAME"


class _Known:
    """The keys that were looked up since the last change of any."""

    __slots__ = ("by_digest", "generation", "version")

    def __init__(self, version: tuple[int, int], generation: int) -> None:
        self.version = version
        self.generation = generation
        self.by_digest: dict[bytes, Key] = {}


class KeyRing:
    """The keys of a store; every process has its own ring over the same keys.

    Args:
        store: Where they are kept.
        clock: Where the time for expiry comes from.
    """

    def __init__(self, store: Store, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock: Clock = clock or SystemClock()
        self._known: _Known | None = None
        self._asked = False

    def find(self, plain: str) -> Key:
        """Return the key of a secret; takes microseconds, and sees every change at once.

        Raises:
            InvalidKeyError: It is malformed, unknown, revoked or expired.
            StoreUnavailableError: The store cannot be read.
        """
        known = self._current()
        key = known.by_digest.get(secret.hashed(plain)) or self._look_up(plain, known)
        if not key.open_at(self._clock.now()):
            ended = "revoked" if key.revoked_at is not None else "expired"
            raise InvalidKeyError(f"the API key {key.name!r} is {ended}; ask for a new one")
        return key

    async def add(
        self,
        name: str,
        *,
        account: str | None = None,
        **terms: Any,  # noqa: ANN401 - read by `terms_of`
    ) -> tuple[Key, str]:
        """Make a key.

        Args:
            name: People's name for it.
            account: The id of the account that pays; whoever gives it has looked it up.
            terms: Any of models, expires_at, rpm, tpm, concurrency, weight, tags.

        Returns:
            The key, and its secret, which nobody can show again.

        Raises:
            BadRequestError: A term is not known or cannot be used, or the name is in use.
        """
        given, now = terms_of(terms), self._clock.now()
        if given.expires_at is not None and given.expires_at <= now:
            raise BadRequestError(f"expires_at {given.expires_at.isoformat()} is past already")
        plain = secret.make()
        key = Key(
            id=f"key_{secrets.token_hex(8)}",
            name=usable_name(name),
            shown=secret.shown(plain),
            models=given.models,
            expires_at=given.expires_at and given.expires_at.astimezone(UTC),
            rpm=given.rpm,
            tpm=given.tpm,
            concurrency=given.concurrency,
            weight=given.weight,
            tags=given.tags,
            account=account,
            created_at=now,
        )
        row = (*row_of(key), secret.digest_of(plain))
        if not await self._store.write(lambda db: db.run(statements.ADD, row)):
            raise BadRequestError(f"the name {key.name!r} is in use; take another, or rotate it")
        return key, plain

    def list(self) -> tuple[Key, ...]:
        """Return all keys, the oldest first, revoked ones among them."""
        return tuple(key_of(row) for row in self._store.read(statements.ALL))

    def show(self, name_or_id: str) -> Key:
        """Return one key; of several that had a name, the one in use or the last one.

        Raises:
            BadRequestError: There is no such key.
        """
        rows = self._store.read(statements.BY_WORD, (name_or_id,))
        if not rows:
            raise BadRequestError(f"there is no key {name_or_id!r}; see droveway keys list")
        return key_of(rows[0])

    async def revoke(self, name_or_id: str) -> Key:
        """Take a key back: the next request with it is refused, in every process.

        Raises:
            BadRequestError: There is no such key, or it is revoked already.
        """
        key = self.show(name_or_id)
        told = (micros(self._clock.now()), key.id)
        if not await self._store.write(lambda db: db.run(statements.REVOKE, told)):
            raise BadRequestError(f"the key {key.name!r} is revoked already")
        return self.show(key.id)

    async def rotate(self, name_or_id: str) -> tuple[Key, str]:
        """Give a key a new secret; the old one opens nothing from now on.

        Returns:
            The key, and its new secret, which nobody can show again.

        Raises:
            BadRequestError: There is no such key, or it is revoked.
        """
        key = self.show(name_or_id)
        plain = secret.make()
        told = (secret.digest_of(plain), secret.shown(plain), key.id)
        if not await self._store.write(lambda db: db.run(statements.ROTATE, told)):
            raise BadRequestError(f"the key {key.name!r} is revoked; make a new one")
        return self.show(key.id), plain

    def _current(self) -> _Known:
        """Return what is known and still true: forgotten when any process has changed a key.

        Requests that reach an event loop in one turn are looked at in one moment, so the store is
        asked once for all of them.
        """
        known = self._known
        if self._asked and known is not None:
            return known
        version = self._store.data_version()
        try:
            asyncio.get_running_loop().call_soon(self._forget_asking)
            self._asked = True
        except RuntimeError:
            pass  # without an event loop there are no turns
        if known is not None and known.version == version:
            return known
        # Somebody committed something. Most commits are journal rows: only keys matter here.
        (generation,) = self._store.read(statements.GENERATION)[0]
        if known is None or known.generation != generation:
            # A new one, never the old one emptied: a look-up in another thread may still hold
            # what it read before the change, and must not put it among what is true now.
            known = self._known = _Known(version, generation)
        else:
            known.version = version
        return known

    def _forget_asking(self) -> None:
        self._asked = False

    def _look_up(self, plain: str, known: _Known) -> Key:
        digest = secret.digest_of(plain)
        if digest is None:
            raise InvalidKeyError(_REFUSED)
        rows = self._store.read(statements.BY_DIGEST, (digest,))
        if not rows or not hmac.compare_digest(rows[0][-1], digest):
            raise InvalidKeyError(_REFUSED)
        key = known.by_digest[digest] = key_of(rows[0][:-1])
        return key
