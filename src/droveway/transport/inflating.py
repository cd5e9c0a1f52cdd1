"""This file knows how to take gzip and deflate off a body, piece by piece and never unbounded."""

import zlib
from collections.abc import Iterator
from typing import Final

from droveway.errors import ProtocolError

# What one step may unpack; a bomb is noticed between two steps.
PIECE_BYTES_MAX: Final = 65_536
CODINGS: Final = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class Inflater:
    """Unpacks one body.

    Args:
        coding: "gzip" or "deflate"; a deflate body may come with or without its zlib frame,
            because servers do both.
        whence: Who sent it, for messages.
    """

    __slots__ = ("_coding", "_first", "_stream", "_whence")

    def __init__(self, coding: str, *, whence: str) -> None:
        self._coding = coding
        self._whence = whence
        self._first = b""
        self._stream = zlib.decompressobj(_GZIP_WINDOW) if coding == "gzip" else None

    @property
    def whole(self) -> bool:
        """Whether the packed body reached its end."""
        return self._stream is not None and self._stream.eof

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Unpack the next bytes.

        Yields:
            Pieces of at most `PIECE_BYTES_MAX` bytes, none of them empty.

        Raises:
            ProtocolError: They are not what the coding promises.
        """
        if self._stream is None:
            data = self._first = self._first + data
            if len(data) < 2:
                return
            self._stream = zlib.decompressobj(_deflate_window(data))
        stream = self._stream
        more = True
        while data or more:
            if stream.eof:
                stream = self._stream = self._next_member()
            try:
                piece = stream.decompress(data, PIECE_BYTES_MAX)
            except zlib.error as error:
                raise ProtocolError(
                    f"{self._whence} sent a body that is not {self._coding} as it says ({error})"
                ) from error
            data = stream.unconsumed_tail or stream.unused_data
            # A full piece may leave more inside although all input is taken.
            more = len(piece) == PIECE_BYTES_MAX and not stream.eof
            if piece:
                yield piece

    def _next_member(self) -> "zlib._Decompress":
        if self._coding != "gzip":
            raise ProtocolError(f"{self._whence} sent bytes after the end of a deflate body")
        return zlib.decompressobj(_GZIP_WINDOW)


def _deflate_window(start: bytes) -> int:
    """Tell a zlib frame (RFC 1950: method 8, a multiple of 31) from a bare deflate stream."""
    framed = start[0] & 0x0F == 8 and (start[0] * 256 + start[1]) % 31 == 0
    return zlib.MAX_WBITS if framed else -zlib.MAX_WBITS
