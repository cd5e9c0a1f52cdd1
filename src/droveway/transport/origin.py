"""This file knows what a server is to us: a scheme, a host and a port, read from a base URL."""

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from droveway.errors import SettingsError

_PORTS: Final = {"http": 80, "https": 443}
# urlsplit drops tabs and newlines without a word; here they are refused.
_NOT_IN_A_URL: Final = re.compile(r"[\x00-\x20\x7f\\]")
_HOST: Final = re.compile(r"[0-9a-z._-]{1,253}|[0-9a-f:.]+(%[0-9a-z]+)?")


class Origin(msgspec.Struct, frozen=True):
    """Where connections go; two requests to equal origins may share one.

    Attributes:
        scheme: "http" or "https".
        host: Lower-case name or address, an IPv6 address without brackets.
        port: 1 to 65535.
    """

    scheme: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """Host and port for people and for CONNECT: "api.example.com:443", "[::1]:80"."""
        return f"{self._bracketed}:{self.port}"

    @property
    def host_header(self) -> str:
        """The value of `Host`: the port only where it is not the scheme's own."""
        return self._bracketed if self.port == _PORTS[self.scheme] else self.address

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_url(url: str) -> tuple[Origin, str]:
    """Read a base URL.

    Args:
        url: Such as "https://api.example.com/v1".

    Returns:
        The origin, and the path prefix without its last slash: "/v1", or "" for none.

    Raises:
        SettingsError: It is no base URL that we can use; the message never repeats a password.
    """
    if _NOT_IN_A_URL.search(url):
        raise SettingsError("a base URL has no spaces, backslashes or control characters in it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"this is no base URL: {error}") from None
    if "@" in parts.netloc:
        raise SettingsError("a base URL carries no user or password; keys belong into api_key")
    if parts.scheme not in _PORTS:
        raise SettingsError(f"a base URL begins with https:// or http://, not as {url!r} does")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise SettingsError(f"a base URL has no query and no fragment: {url!r}")
    host = _ascii_host(parts.hostname or "", url)
    if port == 0:
        raise SettingsError(f"port 0 cannot be connected to: {url!r}")
    if not parts.path.isascii():
        raise SettingsError(f"write the path of a base URL percent-encoded: {url!r}")
    return Origin(parts.scheme, host, port or _PORTS[parts.scheme]), parts.path.rstrip("/")


def _ascii_host(host: str, url: str) -> str:
    try:
        encoded = host if ":" in host else host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise SettingsError(f"the host of {url!r} is no name and no address") from None
    if not _HOST.fullmatch(encoded):
        raise SettingsError(f"the host of {url!r} is no name and no address")
    return encoded
