"""This file knows how bytes from a client become whole HTTP requests."""

from dataclasses import dataclass
from typing import Any, Final

import httptools

_BODY_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, whole; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool

    @property
    def key(self) -> str:
        """The API key; empty when there is none."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else ""


class UnreadableError(Exception):
    """The bytes are no request that the sandbox takes; nothing more can be read.

    Attributes:
        status: With which it is answered.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Reader:
    """Reads the requests of one connection."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._parser: Any = httptools.HttpRequestParser(self._sink)
        self._sink.parser = self._parser

    def feed(self, data: bytes) -> list[Request]:
        """Read on; returns the requests that are whole by now, in order.

        Raises:
            UnreadableError: This is not HTTP, or too large.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise UnreadableError(400, "The sandbox does not upgrade connections.") from None
        except httptools.HttpParserError as error:
            raise UnreadableError(400, f"This is not HTTP: {error}") from None
        if self._sink.size > _BODY_BYTES_MAX:
            raise UnreadableError(413, "The body is larger than 64 MB.")
        requests, self._sink.requests = self._sink.requests, []
        return requests

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for `100 Continue`; true once for each request."""
        wants, self._sink.wants_continue = self._sink.wants_continue, False
        return wants

    def close(self) -> None:
        """Let go of the parser, which would hold itself."""
        self._parser = self._sink.parser = None


class _Sink:
    """What the parser calls."""

    def __init__(self) -> None:
        self.parser: Any = None
        self.requests: list[Request] = []
        self.wants_continue = False
        self.size = 0
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body, self.size = b"", {}, [], 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.wants_continue = self._headers.get("expect", "").lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        if self.size <= _BODY_BYTES_MAX:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self.size > _BODY_BYTES_MAX:
            return
        request = Request(
            method=self.parser.get_method().decode("latin-1"),
            path=self._url.decode("latin-1"),
            headers=self._headers,
            body=b"".join(self._body),
            keep_alive=self.parser.should_keep_alive(),
        )
        self.requests.append(request)
        self.wants_continue = False
