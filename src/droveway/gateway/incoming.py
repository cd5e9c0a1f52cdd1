"""This file knows how bytes become requests, within limits; it neither reads sockets nor answers.

Theory of operation. One request after the other is put together, and put into the queue of turns:

    nothing ──first byte──▶ head ──blank line──▶ body ──last byte──▶ into the queue; nothing
                              │                    │
                              └── refused, too late, malformed ──▶ into the queue; deaf

Whoever cannot be understood, or is refused before a body that is not short, is not heard any
more. A body that is short is read and dropped, and its caller is heard further.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import httptools

from droveway.errors import BadRequestError, DrovewayError
from droveway.gateway.head import (
    HEADER_BYTES_MAX,
    HEADERS_MAX,
    read_head,
    too_large_head,
    without_upgrade,
)
from droveway.gateway.reading import too_large
from droveway.gateway.visit import Visit, Wire

HEAD_S: Final = 30.0
BODY_S: Final = 60.0
# Bytes that are neither a whole header nor a body: the parser holds them where we cannot see.
UNSEEN_BYTES_MAX: Final = 2 * HEADER_BYTES_MAX

# What is whole, or refused, and waits for its answer.
Turns = deque[tuple[Visit, DrovewayError | None]]


class Guard(Protocol):
    """Who lets requests in."""

    body_bytes_max: int

    def greet(self, visit: Visit) -> None:
        """Look at a request's head, before its body is taken.

        Raises:
            DrovewayError: It is refused.
        """


class Incoming:
    """What one caller sends.

    Args:
        guard: Who lets requests in.
        wire: What the answers will be written to.
        turns: Where requests are put.
        now: Returns the monotonic time in seconds.

    Attributes:
        visit: What is being received; None between two requests.
        since: When its first byte came.
        is_deaf: Whether nothing more is heard: one of the two said so, or is not understood.
        is_cut: Whether the caller may still be sending although nothing is heard.
        owes_continue: Whether the caller waits to be told that it may send the body.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_guard",
        "_head_bytes",
        "_head_whole",
        "_now",
        "_parser",
        "_plain_head",
        "_refusal",
        "_target",
        "_turns",
        "_unseen_bytes",
        "_wire",
        "is_cut",
        "is_deaf",
        "owes_continue",
        "since",
        "visit",
    )

    def __init__(self, guard: Guard, wire: Wire, turns: Turns, *, now: Callable[[], float]) -> None:
        self._guard = guard
        self._wire = wire
        self._turns = turns
        self._now = now
        self._parser = httptools.HttpRequestParser(self)
        self._refusal: DrovewayError | None = None
        self._target = b""
        self._head_bytes = self._unseen_bytes = self._body_bytes = 0
        self._head_whole = False
        # A head without its wish to upgrade, to be read in its place.
        self._plain_head = b""
        self._body: bytes | bytearray = b""
        self.visit: Visit | None = None
        self.since = 0.0
        self.is_deaf = self.is_cut = self.owes_continue = False

    def feed(self, data: bytes | memoryview) -> None:
        """Take some bytes; not so many that what they become matters before it is looked at."""
        size = len(data)
        while data and not self.is_deaf:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # We speak HTTP/1.1 only, and say so by going on with it (RFC 9110, 7.8).
                self._parser = httptools.HttpRequestParser(self)
                data = self._plain_head + bytes(data[upgrade.args[0] :])
                self._plain_head = b""
            except httptools.HttpParserError as error:
                self.refuse(BadRequestError(f"the request is no HTTP/1.1: {error}"))
            else:
                break
        if self.visit is not None:
            self._unseen_bytes += size
            if self._unseen_bytes > UNSEEN_BYTES_MAX:
                self.refuse(too_large_head())

    def forget(self) -> None:
        """Let go of what points back, once deaf: the collector of circles comes seldom."""
        assert self.is_deaf, "nothing is fed any more"
        del self._parser, self._wire

    def look(self, now: float) -> None:
        """Refuse what takes too long."""
        span = BODY_S if self._head_whole else HEAD_S
        if self.visit is not None and now - self.since > span:
            part = "body" if self._head_whole else "head"
            self.refuse(BadRequestError(f"the {part} of the request took longer than {span:g} s"))

    def refuse(self, error: DrovewayError) -> None:
        """Refuse what cannot be read on; a mistake behind the last request is nobody's."""
        if not self.is_deaf:
            visit = self.visit or Visit(self._wire)
            self._turns.append((visit, self._refusal or error))
            self.is_cut = True
            self.stop()

    def stop(self) -> None:
        """Hear nothing more, and forget what is not whole."""
        self.is_cut = self.is_cut or self.visit is not None
        self.is_deaf = True
        self.visit = None
        self.owes_continue = False
        self._body = self._target = b""

    # Called by the parser, which must not see an exception.

    def on_message_begin(self) -> None:
        """A request begins."""
        if self.is_deaf:
            return
        self.visit = Visit(self._wire)
        self.since = self._now()
        self._refusal = None
        self._head_whole = self.owes_continue = False
        self._head_bytes = self._unseen_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """The target came, whole or in pieces."""
        if self.visit is not None:
            self._target += url
            self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came; or a trailer, which nobody reads."""
        visit = self.visit
        if visit is not None and not self._head_whole:
            self._head_bytes += len(name) + len(value)
            if len(visit.headers) <= HEADERS_MAX:
                visit.headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        """The head is whole: it is looked at before anything else is taken."""
        visit = self.visit
        if visit is None:
            return
        parser, target, self._target = self._parser, self._target, b""
        version = parser.get_http_version()
        visit.method = parser.get_method().decode("latin-1")
        self._head_whole = True
        try:
            framing = read_head(visit, target, version=version, size=self._head_bytes)
        except DrovewayError as error:
            self.refuse(error)
            return
        if parser.should_upgrade():
            self._plain_head = without_upgrade(visit, target, version=version)
            self.visit = None
            return
        try:
            self._guard.greet(visit)
        except DrovewayError as error:
            error.forget_trace()
            self._refusal = error
            if not framing.is_short:
                self.refuse(error)
            return
        if (framing.body_bytes or 0) > self._guard.body_bytes_max:
            self.refuse(too_large(self._guard.body_bytes_max))
        else:
            self.owes_continue = framing.waits

    def on_body(self, piece: bytes) -> None:
        """Some of the body came."""
        if self.visit is None:
            return
        self.owes_continue = False
        self._unseen_bytes = 0
        self._body_bytes += len(piece)
        if self._body_bytes > self._guard.body_bytes_max:
            self.refuse(too_large(self._guard.body_bytes_max))
        elif self._refusal is not None:
            return
        elif not self._body:
            self._body = piece
        else:
            # Not a list of pieces: one for each byte would be many times as large as the bytes.
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += piece

    def on_message_complete(self) -> None:
        """The request is whole."""
        visit, self.visit = self.visit, None
        if visit is None:
            return
        visit.body, self._body = bytes(self._body), b""
        if visit.http_1_0 or not self._parser.should_keep_alive():
            self.is_deaf = True
        self._turns.append((visit, self._refusal))
