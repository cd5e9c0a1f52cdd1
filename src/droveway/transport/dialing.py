"""This file knows how a socket to an origin is opened: straight, through a proxy, under TLS."""

import asyncio
import errno
import os
import re
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

from droveway.errors import APIConnectionError
from droveway.transport.connection import Connection
from droveway.transport.origin import Origin
from droveway.transport.proxies import Proxy

_ANSWER: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_ANSWER_BYTES_MAX: Final = 65_536
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_HINTS: Final = {
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower the connections per origin",
    errno.ENFILE: "raise the system's limit of open files",
    errno.EADDRNOTAVAIL: "all local ports are in use; lower the connections per origin",
}
_TRUST: Final = "to trust an authority of your own, set SSL_CERT_FILE to its PEM file"

Tls = Callable[[], ssl.SSLContext]


async def dial(connection: Connection, *, origin: Origin, proxy: Proxy | None, tls: Tls) -> None:
    """Open the socket of a connection; when this returns, a request may be written.

    Args:
        connection: Gets the socket, in `connection_made`.
        origin: Where to.
        proxy: What to go through; None for nothing.
        tls: Gives the TLS settings when they are needed.

    Raises:
        APIConnectionError: It cannot be opened; nothing was sent. The socket is closed, as it is
            when the caller is cancelled.
    """
    if proxy is not None and origin.scheme == "https":
        await _dial_tunnel(connection, origin=origin, proxy=proxy, tls=tls)
        return
    await _connect(lambda: connection, proxy.origin if proxy else origin, tls)


async def _connect(factory: Callable[[], asyncio.Protocol], to: Origin, tls: Tls) -> None:
    context = tls() if to.scheme == "https" else None
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(factory, to.host, to.port, ssl=context)
    except OSError as error:
        raise explained(error, to) from error


async def _dial_tunnel(connection: Connection, *, origin: Origin, proxy: Proxy, tls: Tls) -> None:
    tunnel = _Tunnel(origin, proxy)
    joined = False
    try:
        await _connect(lambda: tunnel, proxy.origin, tls)
        transport = await tunnel.agreed()
        secured = await asyncio.get_running_loop().start_tls(
            transport, connection, tls(), server_hostname=origin.host
        )
        if secured is None:
            raise ConnectionAbortedError("the tunnel closed")
        connection.connection_made(secured)
        joined = True
    except OSError as error:
        raise explained(error, origin) from error
    finally:
        if not joined:
            tunnel.close()


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a way through; after its answer TLS takes the socket over."""

    def __init__(self, origin: Origin, proxy: Proxy) -> None:
        self._origin = origin
        self._proxy = proxy
        self._transport: asyncio.Transport | None = None
        self._answer = b""
        self._agreed: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    async def agreed(self) -> asyncio.Transport:
        """Wait for the proxy's yes."""
        return await self._agreed

    def close(self) -> None:
        """Close the socket to the proxy, if there is one."""
        self._agreed.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        target = self._origin.address
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self._proxy.authorization:
            lines.append(f"Proxy-Authorization: {self._proxy.authorization}")
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def data_received(self, data: bytes) -> None:
        if self._agreed.done():
            return
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if not end and len(self._answer) <= _ANSWER_BYTES_MAX:
            return
        status = _ANSWER.match(head + b"\r")
        if not end or status is None or rest:
            self._refuse("does not answer CONNECT as a proxy would; is it one?")
        elif not status[1].startswith(b"2"):
            advice = "check the user and password of its URL" if status[1] == b"407" else "ask it"
            self._refuse(f"refused a tunnel with status {status[1].decode()}; {advice}")
        else:
            assert self._transport is not None
            self._agreed.set_result(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        why = f" ({exc})" if exc is not None else ""
        self._refuse(f"closed the connection instead of opening a tunnel{why}; is it a proxy?")

    def _refuse(self, how: str) -> None:
        if not self._agreed.done():
            where = f"the proxy {self._proxy.origin.address}"
            self._agreed.set_exception(
                APIConnectionError(
                    f"cannot connect to {self._origin.address}: {where} {how}", sent=False
                )
            )


def explained(error: OSError, to: Origin) -> APIConnectionError:
    """Say in one line what kept us from connecting, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = (
            f"the certificate of {to.address} cannot be trusted ({error.verify_message}); {_TRUST}"
        )
    elif isinstance(error, ssl.SSLError):
        reason = (error.reason or "handshake failed").replace("_", " ").lower()
        text = f"no TLS with {to.address} ({reason}); does base_url want http:// instead?"
    elif isinstance(error, socket.gaierror):
        text = (
            f"cannot find {to.host!r} ({error.strerror});"
            " is base_url right, and does name resolution work here?"
        )
    else:
        reason, hint = _reason(error)
        text = f"cannot connect to {to.address} ({reason}); {hint}"
    return APIConnectionError(text, sent=False)


def _reason(error: OSError) -> tuple[str, str]:
    """What the system said; asyncio words several failed addresses in one text."""
    numbers = [error.errno] if error.errno else [int(n) for n in _ERRNO.findall(str(error))]
    hint = next((_HINTS[n] for n in numbers if n in _HINTS), None)
    words = " and ".join(dict.fromkeys(os.strerror(n).lower() for n in numbers))
    told = words or " ".join(str(error).split())[:120] or type(error).__name__
    return told, hint or "is the provider running, and is base_url right?"
