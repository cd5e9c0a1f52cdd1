"""This file knows server-sent events: bytes in, events out, and how the stream stood at its end.

Sans-IO, after the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream": lines end
in CRLF, LF or CR, a byte-order mark at the start is skipped, one space after the colon is
dropped, several `data` lines join with LF, a line that starts with a colon is a comment, and an
event that is not closed by an empty line is no event. What the standard leaves out, a proxy for
paid answers needs: how much of what came, and whether the end fell inside an event.
"""

from typing import Final, Literal

import msgspec

from droveway.errors import ProtocolError

EndState = Literal["between_events", "inside_event"]
EVENT_BYTES_MAX: Final = 2 * 2**20
_BOM: Final = b"\xef\xbb\xbf"


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event.

    Attributes:
        data: The data lines, joined with LF.
        event: The event's type; empty where none was named.
        id: The last id that was named, on this event or before it.
    """

    data: bytes
    event: bytes = b""
    id: bytes = b""


class EventParser:
    """Parses an event stream from pieces of any size.

    Args:
        event_bytes_max: Bytes that one event's data lines and the line being read may take.

    Attributes:
        events: How many events were given out.
        comments: How many comment lines came; keep-alives are such.
        retry_ms: The reconnection time the server named last, or None.
    """

    __slots__ = (
        "_bytes_max", "_data", "_data_bytes", "_event", "_id", "_rest",
        "_skip_lf", "_started", "comments", "events", "retry_ms",
    )  # fmt: skip

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._bytes_max = event_bytes_max
        self._rest = bytearray()  # the line that is not finished yet
        self._data: list[bytes] = []  # data lines of the event that is not finished yet
        self._data_bytes = 0  # of those lines, their names included
        self._event = b""
        self._id = b""
        self._skip_lf = False  # the last piece ended in CR: an LF that follows belongs to it
        self._started = False
        self.events = 0
        self.comments = 0
        self.retry_ms: int | None = None

    def feed(self, piece: bytes) -> list[ServerSentEvent]:
        """Take the next bytes and return the events that are now whole.

        Raises:
            ProtocolError: One event is larger than the bound; the parser is of no use after it.
        """
        if self._is_one_whole_event(piece):
            self.events += 1
            return [ServerSentEvent(piece[6:-2], b"", self._id)]
        if not self._started:
            piece = self._start(piece)
        if self._skip_lf and piece:
            self._skip_lf = False
            if piece[:1] == b"\n":
                piece = piece[1:]
        if b"\r" in piece:
            self._skip_lf = piece[-1:] == b"\r"
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in piece:
            self._keep(piece)
            return []
        first, *lines = piece.split(b"\n")
        if self._rest:
            first = bytes(self._rest) + first
            self._rest.clear()
        rest = lines.pop()
        found: list[ServerSentEvent] = []
        self._line(first, found)
        for line in lines:
            self._line(line, found)
        self._keep(rest)
        return found

    def finish(self) -> EndState:
        """Say how the stream stood when its bytes ended."""
        inside = self._rest or self._data or self._event
        return "inside_event" if inside else "between_events"

    def _is_one_whole_event(self, piece: bytes) -> bool:
        """Whether the piece is just what vendors send for a token: `data: …` and an empty line."""
        return (
            piece[:6] == b"data: "
            and piece.find(b"\n") == len(piece) - 2
            and piece[-1:] == b"\n"
            and not (self._rest or self._data or self._event or self._skip_lf)
            and self._started
            and len(piece) <= self._bytes_max
            and b"\r" not in piece
        )

    def _start(self, piece: bytes) -> bytes:
        held = bytes(self._rest) + piece
        self._rest.clear()
        if len(held) < len(_BOM) and _BOM.startswith(held):
            self._rest += held
            return b""
        self._started = True
        return held.removeprefix(_BOM)

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._bound(len(self._rest) + len(piece))
            self._rest += piece

    def _line(self, line: bytes, found: list[ServerSentEvent]) -> None:
        if not line:
            self._dispatch(found)
            return
        self._bound(len(line))
        name, colon, value = line.partition(b":")
        if not name and colon:
            self.comments += 1
            return
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data_bytes += len(line)
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
            self._id = value
        elif name == b"retry" and value.isdigit():
            self.retry_ms = int(value[:12])

    def _dispatch(self, found: list[ServerSentEvent]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            self._data, self._data_bytes = [], 0
            found.append(ServerSentEvent(data, self._event, self._id))
            self.events += 1
        self._event = b""

    def _bound(self, line_bytes: int) -> None:
        # Whole lines count, as unfinished ones do: how the bytes were cut must not matter.
        if self._data_bytes + line_bytes > self._bytes_max:
            raise ProtocolError(
                f"an event of the stream is larger than {self._bytes_max} bytes; "
                "raise the bound or ask the vendor why"
            )
