"""This file knows what the head of a request must be: within bounds, and read by all in one way."""

import re
from typing import Final, NamedTuple

from droveway.errors import BadRequestError
from droveway.gateway.visit import Visit

HEADERS_MAX: Final = 100
HEADER_BYTES_MAX: Final = 32 * 1024
SHORT_BYTES: Final = 64 * 1024
LENGTH_DIGITS_MAX: Final = 19
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_HOST: Final = re.compile(rb"[A-Za-z0-9._\-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class Framing(NamedTuple):
    """What a head says of the body behind it.

    Attributes:
        body_bytes: How long it is; None where it comes in chunks.
        waits: Whether the caller sends it only when told to (RFC 9110, 10.1.1).
    """

    body_bytes: int | None
    waits: bool

    @property
    def is_short(self) -> bool:
        """Whether the caller of a refused request may keep the connection: the body is read."""
        return self.body_bytes is not None and self.body_bytes <= SHORT_BYTES and not self.waits


def read_head(visit: Visit, target: bytes, *, version: str, size: int) -> Framing:
    """Check a head that is whole, and set what it says of the path.

    The parser has refused a Content-Length that is there twice, is no number, or stands besides a
    Transfer-Encoding.

    Args:
        visit: Whose method and headers are known.
        target: What was asked for, as it came.
        version: Of HTTP.
        size: Bytes of the target and the headers.

    Raises:
        BadRequestError: Two servers in a row could read it differently, or it is too large.
    """
    if version not in _VERSIONS:
        raise BadRequestError(f"this server speaks HTTP/1.1 and HTTP/1.0, not HTTP/{version}")
    visit.http_1_0 = version == "1.0"
    if len(visit.headers) > HEADERS_MAX or size > HEADER_BYTES_MAX:
        raise too_large_head()
    if visit.method == "CONNECT":
        raise BadRequestError("this is no proxy; CONNECT leads nowhere")
    host, framing = _read_headers(visit)
    path, _, visit.query = _origin_form(target, host).partition(b"?")
    visit.path = path.decode("latin-1")
    return framing


def too_large_head() -> BadRequestError:
    """Return the refusal of a head that is too large."""
    return BadRequestError(
        f"the head has more than {HEADERS_MAX} headers or {HEADER_BYTES_MAX} bytes; send less"
    )


def without_upgrade(visit: Visit, target: bytes, *, version: str) -> bytes:
    """Write a head anew without its wish for another protocol, which we do not grant.

    The parser would take everything behind such a head for the other protocol; a server that goes
    on with HTTP/1.1 (RFC 9110, 7.8) must read the body as the body.
    """
    lines = [b"%b %b HTTP/%b" % (visit.method.encode(), target, version.encode())]
    lines += [b"%b: %b" % header for header in visit.headers if header[0] != b"upgrade"]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _read_headers(visit: Visit) -> tuple[bytes, Framing]:
    hosts: list[bytes] = []
    codings: list[bytes] = []
    length, expected = b"0", b""
    for name, value in visit.headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            length = value
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"expect":
            expected = value
    host = _host(hosts, needed=not visit.http_1_0)
    if codings and (visit.http_1_0 or [each.lower() for each in codings] != [b"chunked"]):
        raise BadRequestError("transfer-encoding must be chunked, and HTTP/1.0 has none")
    if len(length) > LENGTH_DIGITS_MAX:
        raise BadRequestError("the Content-Length has too many digits")
    body_bytes = None if codings else int(length)
    waits = expected.lower() == b"100-continue" and body_bytes != 0 and not visit.http_1_0
    return host, Framing(body_bytes, waits)


def _host(hosts: list[bytes], *, needed: bool) -> bytes:
    if not hosts and not needed:
        return b""  # the probe of a balancer: HTTP/1.0 asks for none
    if len(hosts) != 1:
        raise BadRequestError(f"a request has exactly one Host header, not {len(hosts)}")
    if not _HOST.fullmatch(hosts[0]):
        raise BadRequestError("the Host header is no host; send HOST or HOST:PORT")
    return hosts[0]


def _origin_form(target: bytes, own: bytes) -> bytes:
    """Return the path of a target that names a host too; that host must be the one of `Host`."""
    if target[:1] == b"/":
        return target
    scheme, colon, rest = target.partition(b"://")
    host, _, path = rest.partition(b"/")
    if not colon or scheme.lower() not in {b"http", b"https"} or host.lower() != own.lower():
        raise BadRequestError("the request target must be a path, or a URL of this very host")
    return b"/" + path
