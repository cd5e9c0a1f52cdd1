"""This file knows how to change a field of a JSON body and leave every other byte as it came.

Provider prompt caches keep hitting only if the same text stays the same bytes, and fields that we
do not know survive only if nobody writes them anew. So a body is never decoded and encoded: its
top level is walked for the exact span of each value, and edits are put into those spans.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from droveway.errors import BadRequestError

_OPENING: Final = re.compile(rb"[ \t\n\r]*\{")
_KEY: Final = re.compile(rb'[ \t\n\r,]*("(?:[^"\\]|\\.)*+")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_CLOSING: Final = re.compile(rb"[ \t\n\r]*\}")
_TOP: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Spans:
    """The top level of a JSON object, with the place of each value.

    Args:
        body: The whole body, as it came.

    Attributes:
        values: The bytes of each value, by key.

    Raises:
        BadRequestError: It is no JSON object, or has a key twice: which of the two a vendor takes
            is anybody's guess, and a cheap model could be checked and a dear one be billed.
    """

    __slots__ = ("_at", "_body", "_end", "values")

    def __init__(self, body: bytes) -> None:
        self._body = body
        try:
            raw = _TOP.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadRequestError(f"the request body is no JSON object: {error}") from error
        self.values: dict[str, bytes] = {key: bytes(value) for key, value in raw.items()}
        self._at: dict[str, int] = {}
        self._end = self._walk()

    def edited(self, edits: Mapping[str, bytes]) -> bytes:
        """Return the body with some values replaced, or added behind the last one.

        Args:
            edits: JSON text by key.
        """
        pieces: list[bytes] = []
        done = 0
        body = self._body
        for key in sorted(edits.keys() & self._at.keys(), key=self._at.__getitem__):
            start = self._at[key]
            pieces += (body[done:start], edits[key])
            done = start + len(self.values[key])
        added = [
            msgspec.json.encode(key) + b":" + text
            for key, text in edits.items()
            if key not in self._at
        ]
        if added:
            joint = b"," if self.values else b""
            pieces += (body[done : self._end], joint, b",".join(added))
            done = self._end
        pieces.append(body[done:])
        return b"".join(pieces)

    def _walk(self) -> int:
        """Find the place of each value; return where the last one ends."""
        body, values, places = self._body, self.values, self._at
        opening = _OPENING.match(body)
        assert opening is not None, "the decoder has read an object"
        end = opening.end()
        # A key, and what stands around it: the decoder has seen that nothing else can.
        while (found := _KEY.match(body, end)) is not None:
            at, text = found.end(), found[1]
            key = msgspec.json.decode(text, type=str) if b"\\" in text else text[1:-1].decode()
            value = values[key]
            end = at + len(value)
            if key in places or not body.startswith(value, at):
                raise _twice(key)
            places[key] = at
        if _CLOSING.match(body, end) is None:
            # Of `{"n": 12, "n": 1}` the last value is how the first one begins.
            raise _twice(key)
        return end


def _twice(key: str) -> BadRequestError:
    return BadRequestError(f"the request body has the key {key[:100]!r} twice; send it once")
