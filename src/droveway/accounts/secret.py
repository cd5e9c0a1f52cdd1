"""This file knows what a key looks like: made from 256 bits of chance, recognised by a checksum.

A key is `dw_`, 43 signs of chance and six signs of checksum, all letters and digits. The checksum
tells a slip of the keyboard, and most guesses, from a key without asking the store. It also lets
scanners find keys in places where they do not belong.
"""

import hashlib
import re
import secrets
import string
import zlib
from typing import Final

PREFIX: Final = "dw_"
SHOWN: Final = len(PREFIX) + 6
_SIGNS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CHANCE_BYTES: Final = 32
_CHANCE_SIGNS: Final = 43  # 62^43 > 2^256
_CHECK_SIGNS: Final = 6  # 62^6 > 2^32
_FORM: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_CHANCE_SIGNS + _CHECK_SIGNS}}}", re.ASCII)


def make() -> str:
    """Make a key; it is shown once and never kept."""
    chance = int.from_bytes(secrets.token_bytes(_CHANCE_BYTES))
    body = PREFIX + _base62(chance, _CHANCE_SIGNS)
    return body + _checksum(body)


def digest_of(key: str) -> bytes | None:
    """Return the SHA-256 of a key, spaces around it left out; None where it is none of ours."""
    key = key.strip()
    if not _FORM.fullmatch(key) or _checksum(key[:-_CHECK_SIGNS]) != key[-_CHECK_SIGNS:]:
        return None
    return hashed(key)


def hashed(key: str) -> bytes:
    """Return the SHA-256 of whatever was sent as a key, spaces around it left out."""
    return hashlib.sha256(key.strip().encode("utf-8", "surrogatepass")).digest()


def shown(key: str) -> str:
    """Return the beginning by which people know a key again."""
    return key[:SHOWN]


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_SIGNS)


def _base62(number: int, signs: int) -> str:
    written = []
    for _ in range(signs):
        number, place = divmod(number, len(_SIGNS))
        written.append(_SIGNS[place])
    return "".join(reversed(written))
