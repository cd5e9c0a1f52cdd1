"""This file knows which proxy stands between us and an origin, as the environment says it."""

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from droveway.errors import SettingsError
from droveway.transport.origin import Origin, parse_url

_SCHEMES: Final = ("http", "https")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that is spoken to over HTTP.

    Attributes:
        origin: Where it listens; with scheme https the way to it is encrypted too.
        authorization: Value of Proxy-Authorization, "" for none; not shown in repr.
    """

    origin: Origin
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ProxyRules:
    """Which origins go through which proxy.

    Attributes:
        http: Proxy of http origins; None for none.
        https: Proxy of https origins; None for none.
        bypass: Rules of NO_PROXY in lower case: a name (which covers its subdomains), an address,
            a network such as 10.0.0.0/8, any of the first two with ":port", or "*" for everything.
    """

    http: Proxy | None = None
    https: Proxy | None = None
    bypass: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY; lower case wins, as in curl.

        Raises:
            SettingsError: A proxy's URL cannot be used; the message does not repeat it.
        """
        every = _proxy(environ, "ALL_PROXY")
        found = {scheme: _proxy(environ, f"{scheme.upper()}_PROXY") or every for scheme in _SCHEMES}
        listed = _variable(environ, "NO_PROXY").lower().replace(",", " ").split()
        return cls(http=found["http"], https=found["https"], bypass=tuple(listed))

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """The proxy to an origin; None to go straight, as loopback always does."""
        proxy = self.https if origin.scheme == "https" else self.http
        if proxy is None or _is_loopback(origin.host):
            return None
        return None if any(_covers(rule, origin) for rule in self.bypass) else proxy


def _variable(environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name.lower()) or environ.get(name) or "").strip()


def _proxy(environ: Mapping[str, str], name: str) -> Proxy | None:
    url = _variable(environ, name)
    if not url:
        return None
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        address = parts.netloc.rpartition("@")[2]
    except ValueError:
        raise SettingsError(f"{name} is not the URL of a proxy") from None
    if parts.scheme not in _SCHEMES:
        raise SettingsError(f"{name} names a {parts.scheme} proxy; only http and https are spoken")
    try:
        origin, _ = parse_url(f"{parts.scheme}://{address}")
    except SettingsError:
        raise SettingsError(f"{name} is not the URL of a proxy") from None
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return Proxy(origin, f"Basic {token}" if user or password else "")


def _is_loopback(host: str) -> bool:
    address = _address(host)
    if address is not None:
        return address.is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _covers(rule: str, origin: Origin) -> bool:
    if rule == "*":
        return True
    name, port = _split_port(rule)
    if port and port != str(origin.port):
        return False
    address = _address(origin.host)
    if address is not None:
        return _holds(name, address)
    suffix = name.removeprefix("*").removeprefix(".")
    return bool(suffix) and (origin.host == suffix or origin.host.endswith(f".{suffix}"))


def _split_port(rule: str) -> tuple[str, str]:
    if rule.startswith("["):
        name, _, port = rule[1:].partition("]")
        return name, port.removeprefix(":")
    if rule.count(":") == 1:
        name, _, port = rule.partition(":")
        return name, port
    return rule, ""


def _holds(rule: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        # A name in NO_PROXY; it says nothing about an address.
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
