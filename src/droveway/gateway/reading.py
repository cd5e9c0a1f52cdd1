"""This file knows how a packed request body is unpacked, within a size."""

import zlib
from typing import Final

from droveway.errors import BadRequestError, RequestTooLargeError

_GZIP: Final = 16 + zlib.MAX_WBITS


def unpacked(body: bytes, coding: bytes, *, bytes_max: int) -> bytes:
    """Return a body as it was before `content-encoding`.

    Args:
        body: As it came.
        coding: The header's value.
        bytes_max: What it may have, unpacked.

    Raises:
        RequestTooLargeError: It is larger.
        BadRequestError: It is packed in a way we do not read, or not as the header says.
    """
    coding = coding.strip().lower()
    if coding == b"identity":
        return body
    if coding not in {b"gzip", b"x-gzip", b"deflate"}:
        raise BadRequestError("content-encoding must be gzip, deflate or identity")
    inflater = zlib.decompressobj(_GZIP if b"gzip" in coding else zlib.MAX_WBITS)
    try:
        found = inflater.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise BadRequestError(f"the body is not what content-encoding says: {error}") from error
    if len(found) > bytes_max:
        raise too_large(bytes_max)
    if not inflater.eof:
        raise BadRequestError("the packed body stops amid itself")
    if inflater.unused_data:
        raise BadRequestError("something follows the packed body; pack it in one piece")
    return found


def too_large(bytes_max: int) -> RequestTooLargeError:
    """Return the refusal of a body that is too large."""
    return RequestTooLargeError(f"the request body is larger than {bytes_max} bytes; send less")
