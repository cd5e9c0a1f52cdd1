"""This file knows one socket at the door: requests come in within limits, answers go out in turn.

Theory of operation. A connection reads one request at a time and answers in the order of asking:

    resting ──first byte──▶ head ──blank line──▶ body ──last byte──▶ answering ──answered──▶ resting
                              │                    │
                              └── refused, too late, malformed ──▶ lingering ──▶ closed

What comes while an answer is on its way is read on, up to a bound, and waits for its turn. A
request that is refused early (an unknown key, too large a body) is answered at once; what its
caller still sends is read and dropped for a while, because closing a socket with unread bytes
would take the answer from them. `overdue` is asked once a second by whoever holds the connections:
there is no timer for a request.
"""

import asyncio
import re
from collections import deque
from typing import Final, Protocol, cast

import httptools

from droveway.errors import BadRequestError, DrovewayError
from droveway.gateway.reading import too_large
from droveway.gateway.visit import Visit

HEAD_S: Final = 30.0
BODY_S: Final = 60.0
RESTING_S: Final = 75.0
LINGER_S: Final = 5.0
# A reader that takes nothing for so long is gone, whatever its socket says.
STUCK_S: Final = 60.0
HEADERS_MAX: Final = 100
HEADER_BYTES_MAX: Final = 32 * 1024
PIPELINED_MAX: Final = 16
SHORT_BYTES: Final = 64 * 1024
WRITE_BYTES_HIGH: Final = 64 * 1024
_HOST: Final = re.compile(rb"[A-Za-z0-9._\-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class House(Protocol):
    """Who lets requests in and answers them."""

    body_bytes_max: int

    def greet(self, visit: Visit) -> None:
        """Look at a request's head, before its body is taken.

        Raises:
            DrovewayError: It is refused.
        """

    def serve(self, visit: Visit) -> None:
        """Answer a request that is whole; now or later, but never with an exception."""

    def refuse(self, visit: Visit, error: DrovewayError) -> None:
        """Answer a request with an error."""


class Doorway(Protocol):
    """Who holds the connections."""

    leaving: bool

    def now(self) -> float:
        """The monotonic time in seconds."""

    def came(self, connection: "Connection") -> None:
        """A caller has connected."""

    def went(self, connection: "Connection") -> None:
        """A connection is gone."""


class Connection(asyncio.Protocol):
    """One caller's socket.

    Args:
        house: Who answers.
        doorway: Who holds the connections.

    Attributes:
        blocked: Whether the caller reads more slowly than we write.
    """

    __slots__ = (
        "_answering",
        "_body",
        "_body_bytes",
        "_deaf",
        "_doorway",
        "_early",
        "_head_bytes",
        "_head_whole",
        "_house",
        "_parser",
        "_receiving",
        "_refusal",
        "_since",
        "_stuck_bytes",
        "_stuck_since",
        "_target",
        "_transport",
        "_turns",
        "blocked",
    )

    def __init__(self, house: House, doorway: Doorway) -> None:
        self._house = house
        self._doorway = doorway
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._receiving: Visit | None = None
        self._refusal: DrovewayError | None = None
        self._answering: Visit | None = None
        # What is whole, or refused, and waits for its turn.
        self._turns: deque[tuple[Visit, DrovewayError | None]] = deque()
        self._target = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._head_whole = False
        # Whether what is being received was answered already, and is dropped as it comes.
        self._early = False
        # Whether nothing more is heard: the caller said so, or cannot be understood.
        self._deaf = False
        self._since = doorway.now()
        self._stuck_since = 0.0
        self._stuck_bytes = 0
        self.blocked = False

    # Asked by whoever holds the connections.

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or waits for it."""
        return self._answering is not None or bool(self._turns)

    def close(self) -> None:
        """Close the socket when what was written is sent."""
        self._deaf = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the socket now."""
        self._deaf = True
        if self._transport is not None:
            self._transport.abort()

    def look(self, now: float) -> None:
        """Cut a caller who is too slow, in sending or in reading; called about once a second."""
        if self.blocked:
            self._look_for_a_stuck_reader(now)
        elif self._deaf:
            if now - self._since > LINGER_S and not self.busy:
                self.close()
        elif self._receiving is not None:
            span = BODY_S if self._head_whole else HEAD_S
            if now - self._since > span:
                part = "body" if self._head_whole else "head"
                self._give_up_reading(
                    BadRequestError(f"the {part} of the request took longer than {span:g} s")
                )
        elif not self.busy and now - self._since > RESTING_S:
            self.close()

    # The way out: `Wire` of a visit.

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport is not None:
            self._transport.write(data)

    def stays(self, visit: Visit) -> bool:
        """Whether a further request may come after this one."""
        assert self._answering is visit, "answers go out in turn"
        return bool(self._turns) or not (self._deaf or self._doorway.leaving)

    def answered(self, visit: Visit) -> None:
        """Take the next request, or go."""
        assert self._answering is visit, "answers go out in turn"
        self._answering = None
        self._since = self._doorway.now()
        if self._turns:
            if len(self._turns) == PIPELINED_MAX and self._transport is not None:
                self._transport.resume_reading()
            self._next()
        elif self._doorway.leaving or (self._deaf and self._receiving is None):
            self.close()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody came."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_HIGH)
        self._doorway.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Somebody left."""
        del exc
        self._transport = None
        self._doorway.went(self)
        self._turns.clear()
        if self._answering is not None:
            self._answering.lost()
            self._answering = None

    def pause_writing(self) -> None:
        """Hold back: what was written is not read."""
        self.blocked = True
        self._stuck_since, self._stuck_bytes = self._doorway.now(), 0

    def resume_writing(self) -> None:
        """Go on."""
        self.blocked = False
        if self._answering is not None:
            self._answering.on_room()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._deaf and self._receiving is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We speak HTTP/1.1 only, and say so by going on with it (RFC 9110, 7.8).
            self._parser = httptools.HttpRequestParser(self)
            self.data_received(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._give_up_reading(BadRequestError(f"the request is no HTTP/1.1: {error}"))
        else:
            if self._receiving is not None and not self._head_whole:
                self._head_bytes += len(data)
                if self._head_bytes > 2 * HEADER_BYTES_MAX:
                    self._give_up_reading(_head_too_large())

    # Called by the parser, which must not see an exception.

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._deaf:
            return
        self._receiving = Visit(self)
        self._refusal = None
        self._early = self._head_whole = False
        self._body.clear()
        self._body_bytes = self._head_bytes = 0
        self._target = b""
        self._since = self._doorway.now()

    def on_url(self, url: bytes) -> None:
        """The target came, whole or in pieces."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came; or a trailer, which nobody reads."""
        visit = self._receiving
        if visit is not None and not self._head_whole:
            self._head_bytes += len(name) + len(value)
            if len(visit.headers) <= HEADERS_MAX:
                visit.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole: it is looked at before anything else is taken."""
        visit = self._receiving
        if visit is None:
            return
        self._head_whole = True
        visit.method = self._parser.get_method().decode("latin-1")
        try:
            self._read_head(visit)
            self._house.greet(visit)
        except DrovewayError as error:
            self._refusal = error
            if not _is_short(visit):
                self._refuse_early(visit, error)
            return
        if visit.header(b"expect") is not None and not self.busy:
            self.write(_CONTINUE)

    def on_body(self, piece: bytes) -> None:
        """Some of the body came."""
        visit = self._receiving
        if visit is None:
            return
        self._body_bytes += len(piece)
        if self._body_bytes > self._house.body_bytes_max:
            if self._early:
                self._receiving = None  # it was read for long enough
                self.close()
            else:
                self._refuse_early(visit, too_large(self._house.body_bytes_max))
        elif self._refusal is None:
            self._body.append(piece)

    def on_message_complete(self) -> None:
        """The request is whole."""
        visit, self._receiving = self._receiving, None
        if visit is None:
            return
        if self._early:
            if not self.busy:
                self.close()
            return
        visit.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        if not self._parser.should_keep_alive():
            self._deaf = True
        self._turns.append((visit, self._refusal))
        self._refusal = None
        if self._answering is None:
            self._next()
        elif len(self._turns) == PIPELINED_MAX and self._transport is not None:
            self._transport.pause_reading()

    # Leaves.

    def _read_head(self, visit: Visit) -> None:
        visit.http_1_0 = self._parser.get_http_version() == "1.0"
        target = self._target
        if target[:1] != b"/":
            target = _origin_form(visit, target)
        path, _, visit.query = target.partition(b"?")
        visit.path = path.decode("latin-1")
        if len(visit.headers) > HEADERS_MAX or self._head_bytes > HEADER_BYTES_MAX:
            raise _head_too_large()
        _check_framing(visit)

    def _next(self) -> None:
        visit, refusal = self._turns.popleft()
        self._answering = visit
        if refusal is None:
            self._house.serve(visit)
        else:
            self._house.refuse(visit, refusal)

    def _refuse_early(self, visit: Visit, error: DrovewayError) -> None:
        """Answer before the request is whole; the rest of it is read, and dropped."""
        self._refusal = error
        self._early = self._deaf = True
        self._body.clear()
        self._turns.append((visit, error))
        if self._answering is None:
            self._next()

    def _give_up_reading(self, error: DrovewayError) -> None:
        """Refuse what cannot be read on; nothing more is heard."""
        visit, self._receiving = self._receiving or Visit(self), None
        if self._early:
            self.close()
            return
        self._refuse_early(visit, self._refusal or error)

    def _look_for_a_stuck_reader(self, now: float) -> None:
        assert self._transport is not None, "a connection that is held has its socket"
        waiting = self._transport.get_write_buffer_size()
        if waiting != self._stuck_bytes:
            self._stuck_since, self._stuck_bytes = now, waiting
        elif now - self._stuck_since > STUCK_S:
            self.abort()


def _head_too_large() -> BadRequestError:
    return BadRequestError(
        f"the head has more than {HEADERS_MAX} headers or {HEADER_BYTES_MAX} bytes; send less"
    )


def _is_short(visit: Visit) -> bool:
    """Whether a refused request's body is so short that its caller may keep the connection."""
    declared = visit.header(b"content-length")
    if declared is None:
        return visit.header(b"transfer-encoding") is None
    return len(declared) <= 5 and int(declared) <= SHORT_BYTES


def _check_framing(visit: Visit) -> None:
    """Refuse what two servers in a row could read differently; the parser refuses the rest of it.

    It refuses a Content-Length that is there twice or besides a Transfer-Encoding.
    """
    hosts = [value for name, value in visit.headers if name == b"host"]
    if len(hosts) != 1:
        raise BadRequestError(f"a request has exactly one Host header, not {len(hosts)}")
    if not _HOST.fullmatch(hosts[0]):
        raise BadRequestError("the Host header is no host; send HOST or HOST:PORT")
    coding = visit.header(b"transfer-encoding")
    if coding is not None and (visit.http_1_0 or coding.lower() != b"chunked"):
        raise BadRequestError("transfer-encoding must be chunked, and HTTP/1.0 has none")


def _origin_form(visit: Visit, target: bytes) -> bytes:
    """Return the path of a target that names a host too; that host must be the one of `Host`."""
    scheme, colon, rest = target.partition(b"://")
    host, _, path = rest.partition(b"/")
    if not colon or scheme.lower() not in {b"http", b"https"} or host != visit.header(b"host"):
        raise BadRequestError("the request target must be a path, or a URL of this very host")
    return b"/" + path
