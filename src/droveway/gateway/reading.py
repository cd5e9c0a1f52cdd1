"""This file knows how a request's body is received: within a size, within a time, unpacked."""

import asyncio
import zlib
from typing import Final

from droveway.errors import BadRequestError, CancelledCallError, RequestTooLargeError
from droveway.gateway.asgi import Receive, Visit

BODY_S: Final = 60.0
_GZIP: Final = 16 + zlib.MAX_WBITS


async def read_body(visit: Visit, *, bytes_max: int) -> bytes:
    """Receive a whole body.

    Args:
        visit: The request.
        bytes_max: What it may have, before and after unpacking.

    Raises:
        RequestTooLargeError: It is larger, or says that it will be.
        BadRequestError: It is packed in a way we do not read, or takes too long.
        CancelledCallError: The caller went away.
    """
    declared = visit.header(b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > bytes_max:
        raise _too_large(bytes_max)
    message = await visit.receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise CancelledCallError("the caller went away before the request was whole")
    if message.get("more_body"):
        body = await _rest(body, visit.receive, bytes_max)
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    coding = (visit.header(b"content-encoding") or b"identity").strip().lower()
    return body if coding == b"identity" else _unpacked(body, coding, bytes_max)


async def _rest(first: bytes, receive: Receive, bytes_max: int) -> bytes:
    pieces, size = [first], len(first)
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise CancelledCallError("the caller went away before the request was whole")
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > bytes_max:
                    raise _too_large(bytes_max)
                if not message.get("more_body"):
                    return b"".join(pieces)
    except TimeoutError as error:
        raise BadRequestError(
            f"the request body took longer than {BODY_S:g} s; send it at once"
        ) from error


def _unpacked(body: bytes, coding: bytes, bytes_max: int) -> bytes:
    if coding not in {b"gzip", b"x-gzip", b"deflate"}:
        raise BadRequestError("content-encoding must be gzip, deflate or identity")
    inflater = zlib.decompressobj(_GZIP if b"gzip" in coding else zlib.MAX_WBITS)
    try:
        unpacked = inflater.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise BadRequestError(f"the body is not what content-encoding says: {error}") from error
    if len(unpacked) > bytes_max:
        raise _too_large(bytes_max)
    if not inflater.eof:
        raise BadRequestError("the packed body stops amid itself")
    return unpacked


def _too_large(bytes_max: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"the request body is larger than {bytes_max} bytes; send less")
