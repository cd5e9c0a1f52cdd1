"""This file knows one request at the door, and the three ways in which it is answered."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway
    from droveway.gateway.caller import KnownKey

Headers = Iterable[tuple[bytes, bytes]]

JSON: Final = b"application/json"
EVENTS: Final = b"text/event-stream; charset=utf-8"
_STATUS_LINES: Final = {
    each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus
}
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Wire(Protocol):
    """What an answer is written to."""

    blocked: bool

    def write(self, data: bytes) -> None:
        """Send bytes, now or as soon as the caller reads."""

    def stays(self, visit: "Visit") -> bool:
        """Whether the connection may carry a further request after this one."""

    def answered(self, visit: "Visit") -> None:
        """Take note that the answer is whole."""

    def abort(self) -> None:
        """Close the socket now."""


class Visit:
    """One request: what came, and how it is answered.

    It is answered once: by `respond`, or by `start`, any number of `write` and one `end`. Nothing
    here waits. Once the caller is gone, whatever is still written is dropped.

    Attributes:
        method: In capitals.
        path: Percent-encoded, as it came, without the query.
        query: What follows the question mark.
        headers: Names in lower case, in the order in which they came.
        body: The whole body, unpacked where it was packed.
        http_1_0: Whether the caller speaks HTTP/1.0, which knows no chunks.
        key: Whose request it is, once that is known.
        handler: Who answers, once that is known.
        gone: Whether the caller hung up before the answer was whole.
        on_gone: Called when that happens.
        on_room: Called when the caller reads again after `blocked`.
        head_sent: Whether the answer has begun: after that no error can become a status.
        is_answered: Whether the answer is whole; what is written then would be in the next one.
    """

    __slots__ = (
        "_chunked",
        "_wire",
        "body",
        "gone",
        "handler",
        "head_sent",
        "headers",
        "http_1_0",
        "is_answered",
        "key",
        "method",
        "on_gone",
        "on_room",
        "path",
        "query",
    )

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._chunked = False
        self.method = ""
        self.path = ""
        self.query = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.http_1_0 = False
        self.key: KnownKey | None = None
        self.handler: Callable[[Gateway, Visit], None] = _unanswered
        self.gone = False
        self.head_sent = self.is_answered = False
        self.on_gone: Callable[[], None] = _nothing
        self.on_room: Callable[[], None] = _nothing

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of that name in lower case; None when it is not there."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def blocked(self) -> bool:
        """Whether the caller reads more slowly than we write: wait for `on_room`."""
        return self._wire.blocked and not self.gone

    def respond(
        self, status: int, body: bytes, *, headers: Headers = (), kind: bytes = JSON
    ) -> None:
        """Send a whole answer.

        Args:
            status: HTTP status.
            body: Left out where the method is HEAD, but for its length.
            headers: Further headers; ours alone, never a caller's or a vendor's words unfiltered.
            kind: The content type.
        """
        if self.gone:
            return
        assert not self.head_sent, "a request is answered once"
        self.head_sent = True
        parts = self._head(status, kind, headers)
        if status != HTTPStatus.NO_CONTENT:
            parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(b"\r\n")
        if self.method != "HEAD":
            parts.append(body)
        self._wire.write(b"".join(parts))
        self.is_answered = True
        self._wire.answered(self)

    def start(self, *, headers: Headers = (), kind: bytes = EVENTS) -> None:
        """Begin an answer whose length is not known; to a HEAD, which has no body, none is."""
        if self.gone:
            return
        assert self.method != "HEAD", "a HEAD is answered whole"
        assert not self.head_sent, "a request is answered once"
        self.head_sent = True
        self._chunked = not self.http_1_0
        parts = self._head(200, kind, headers)
        if self._chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        self._wire.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Send the next piece of an answer that was started; it is not empty."""
        if not self.gone:
            assert not self.is_answered, "nothing follows an answer"
            self._wire.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self, data: bytes = b"") -> None:
        """Send the last piece of an answer that was started."""
        if self.gone:
            return
        assert not self.is_answered, "an answer ends once"
        if data:
            self.write(data)
        if self._chunked:
            self._wire.write(_LAST_CHUNK)
        self.is_answered = True
        self._wire.answered(self)

    def cut(self) -> None:
        """Break the connection off: what was sent is not whole, and nobody shall think so."""
        if not self.gone and not self.is_answered:
            self._wire.abort()

    def let_go(self) -> None:
        """Tell nobody any more: who would be told holds this visit."""
        self.on_gone = self.on_room = _nothing

    def lost(self) -> None:
        """Take note that the caller hung up; there is room for everything now, as it is dropped."""
        self.gone = True
        self.on_gone()
        self.on_room()

    def _head(self, status: int, kind: bytes, headers: Headers) -> list[bytes]:
        line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
        parts = [line, b"content-type: ", kind, b"\r\n"]
        parts += [b"%b: %b\r\n" % header for header in headers]
        if not self._wire.stays(self):
            parts.append(b"connection: close\r\n")
        return parts


def _unanswered(gateway: "Gateway", visit: Visit) -> None:
    del gateway
    raise AssertionError(f"{visit.path} was let in without a handler")


def _nothing() -> None:
    """Stand in where nobody wants to be told."""
