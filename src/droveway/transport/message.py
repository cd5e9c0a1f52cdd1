"""This file knows what goes out and what comes in: a request, a response's head, and the sink."""

import re
from functools import lru_cache
from typing import Final, Protocol

import msgspec

from droveway.errors import UpstreamError
from droveway.transport.origin import Origin

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Two lengths or two hosts in one head are how requests are smuggled; only the transport sets these.
_OURS: Final = frozenset(
    ("connection", "content-length", "expect", "host", "te", "transfer-encoding", "upgrade")
)
_BODILESS: Final = frozenset(("GET", "HEAD", "DELETE"))
_CODINGS: Final = "Accept-Encoding: gzip, deflate\r\n"


class Request(msgspec.Struct, frozen=True):
    """What is asked of an origin.

    Attributes:
        method: "POST", "GET" and so on.
        origin: Whom it goes to.
        path: Path and query as they stand in the request line, percent-encoded, with its "/".
        headers: Further headers; host, length, connection and accepted codings are added.
        body: The whole body; empty for none.
    """

    method: str
    origin: Origin
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class ResponseHead(msgspec.Struct, frozen=True):
    """The head of a final response.

    Attributes:
        status: 200 to 999.
        headers: Name in lower case and value, in the order they came.
    """

    status: int
    headers: list[tuple[str, str]]

    def get(self, name: str) -> str | None:
        """The first value of a header, asked for in lower case; None when it is not there."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Sink(Protocol):
    """Who takes a response; called from the event loop while bytes arrive.

    The order is: at most one `on_head`, then any number of `on_chunk`, then exactly one of
    `on_done` and `on_error`, which may also come first of all. After `Call.abort` nothing comes.
    The calls must not block and must not raise.
    """

    def on_head(self, head: ResponseHead) -> None:
        """The final status and headers are here."""

    def on_chunk(self, data: bytes) -> None:
        """Bytes of the body, with transfer and content codings taken off; never empty."""

    def on_done(self) -> None:
        """The body ended as HTTP promised; without a promised length, when the peer closed."""

    def on_error(self, error: UpstreamError) -> None:
        """The response will not become whole."""


class _Silence:
    """The sink of a call that was aborted."""

    def on_head(self, head: ResponseHead) -> None: ...

    def on_chunk(self, data: bytes) -> None: ...

    def on_done(self) -> None: ...

    def on_error(self, error: UpstreamError) -> None: ...


SILENCE: Final[Sink] = _Silence()


def request_bytes(request: Request, *, proxied: bool = False, authorization: str = "") -> bytes:
    """Write a request as bytes.

    Args:
        request: What is asked.
        proxied: Whether a proxy reads it, which wants the whole URL in the request line.
        authorization: Value of Proxy-Authorization; "" for none.

    Raises:
        ValueError: Something in it would break out of its place in the head. Values are never
            repeated in the message: one of them is the key.
    """
    head = _head_bytes(
        request.method,
        request.path,
        request.origin,
        request.headers,
        proxied=proxied,
        authorization=authorization,
    )
    body = request.body
    if body or request.method not in _BODILESS:
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    return head + b"\r\n"


# A provider's requests differ in their bodies only.
@lru_cache(maxsize=256)
def _head_bytes(  # noqa: PLR0917 - a cache compares positions faster than names
    method: str,
    path: str,
    origin: Origin,
    headers: tuple[tuple[str, str], ...],
    *,
    proxied: bool,
    authorization: str,
) -> bytes:
    """Write the head of a request up to its length."""
    if " " in path or not path.startswith("/") or not path.isascii():
        raise ValueError("a path begins with a slash and is percent-encoded")
    host = origin.host_header
    target = f"http://{host}{path}" if proxied else path
    _checked_name(method)
    lines = [f"{method} {target} HTTP/1.1\r\n", f"Host: {host}\r\n"]
    codings = _CODINGS
    for name, value in headers:
        if _checked_name(name) == "accept-encoding":
            codings = ""
        lines.append(f"{name}: {value}\r\n")
    if codings:
        lines.append(codings)
    if authorization:
        lines.append(f"Proxy-Authorization: {authorization}\r\n")
    head = "".join(lines)
    # Counting line ends finds one that was smuggled in anywhere, at the price of three quick scans.
    if head.count("\r") != len(lines) or head.count("\n") != len(lines) or "\0" in head:
        raise ValueError("a path or header has a line break or a NUL in it")
    try:
        return head.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("a header has a character outside of Latin-1 in it") from None


@lru_cache(maxsize=512)
def _checked_name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no method and no header name")
    lower = name.lower()
    if lower in _OURS:
        raise ValueError(f"the transport sets {lower!r} itself; leave it out")
    return lower
