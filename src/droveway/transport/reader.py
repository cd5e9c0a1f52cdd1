"""This file knows how the bytes of a response become calls on a sink; it touches no socket.

Theory of operation. `begin` arms the reader for one response, `feed` takes bytes as they come, and
`ended` is told when the peer closed. llhttp (through httptools) does the grammar, strictly:

    head open ──headers complete──▶ body ──message complete──▶ complete
        ▲──── 1xx: forgotten ────┘        (HEAD, 204, 304: at once)

A folded header line is the one deprecated thing that a user agent must still read (RFC 9112, 5.2),
and llhttp refuses it or else drops its other guards; so the bytes of an open head are kept, and
after that one refusal they are gathered to the end of the head, unfolded and read once more.
"""

import re
from functools import lru_cache
from typing import Final

from httptools import HttpParserCallbackError, HttpParserError, HttpResponseParser

from droveway.errors import ProtocolError
from droveway.transport.folding import unfolded
from droveway.transport.inflating import CODINGS, Inflater
from droveway.transport.message import SILENCE, ResponseHead, Sink

HEADERS_MAX: Final = 256
HEAD_BYTES_MAX: Final = 65_536
BODY_BYTES_MAX: Final = 64 * 1024 * 1024

_FRAMING: Final = frozenset(
    ("content-length", "transfer-encoding", "content-encoding", "keep-alive")
)
_BLANK: Final = frozenset((" ", "\t"))
_BODILESS: Final = frozenset((204, 304))
_VERSIONS: Final = frozenset(("1.1", "1.0"))
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FOLD_REFUSED: Final = "Unexpected whitespace after header value"
_KEEP_ALIVE: Final = re.compile(r"timeout\s*=\s*\"?(\d{1,6})", re.IGNORECASE)


class ResponseReader:
    """Reads the responses of one connection, one after the other.

    Args:
        whence: Who sends, for messages: "api.example.com:443".
        head_bytes_max: Limit of one head, of the trailers, and of anything else that is not body.

    Attributes:
        complete: The response armed for has ended.
        reusable: The connection may carry another request; meaningful when complete.
        keep_alive_s: How long the server said it keeps an idle connection; None if it did not say.
    """

    __slots__ = (
        "_barren",
        "_body_bytes_max",
        "_close_delimited",
        "_coding",
        "_folded",
        "_head",
        "_head_bytes",
        "_head_bytes_max",
        "_head_only",
        "_headers",
        "_held",
        "_inflated_bytes",
        "_inflater",
        "_length",
        "_parser",
        "_sink",
        "_transfer",
        "_whence",
        "_wire_bytes",
        "complete",
        "keep_alive_s",
        "reusable",
    )

    def __init__(self, *, whence: str, head_bytes_max: int = HEAD_BYTES_MAX) -> None:
        self._whence = whence
        self._head_bytes_max = head_bytes_max
        self._parser = self._new_parser()
        self.keep_alive_s: int | None = None
        self.begin(SILENCE)

    def begin(
        self, sink: Sink, *, head_only: bool = False, body_bytes_max: int = BODY_BYTES_MAX
    ) -> None:
        """Arm for the next response.

        Args:
            sink: Who takes it.
            head_only: The request was a HEAD: the head promises a body that will not come.
            body_bytes_max: Limit of the body, counted unpacked.
        """
        self._sink = sink
        self._head_only = head_only
        self._body_bytes_max = body_bytes_max
        self._head: ResponseHead | None = None
        self._held = b""
        self._head_bytes = 0
        self._folded = False
        self._barren = self._wire_bytes = self._inflated_bytes = 0
        self._close_delimited = False
        self._inflater: Inflater | None = None
        self._forget_headers()
        self.complete = self.reusable = False

    def mute(self) -> None:
        """Call the sink no more."""
        self._sink = SILENCE

    def forget(self) -> None:
        """Let go of the parser, for good: it points back, and no circle shall be left."""
        del self._parser

    def feed(self, data: bytes) -> None:
        """Take bytes; the sink is called from inside.

        Raises:
            ProtocolError: They are no response, or one beyond a limit.
        """
        wire_bytes = self._wire_bytes
        head_open = self._head is None
        if head_open and not self._held and data[:1] != b"H":
            # llhttp skips empty lines here; what comes before a status line is no response.
            raise ProtocolError(f"{self._whence} does not answer in HTTP/1.1; is base_url right?")
        if self._folded and head_open:
            self._gather(data)
            return
        self._parse(data, head_open=head_open, wire_bytes=wire_bytes)

    def _parse(self, data: bytes, *, head_open: bool, wire_bytes: int) -> None:
        refusal: HttpParserError | None = None
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            refusal = error
        # Outside of the handler, where the parser may be called again without mixing up contexts.
        if refusal is not None:
            self._refused(refusal, data)
            return
        if self.complete:
            return
        if self._head is None:
            self._held += data
            if len(self._held) > self._head_bytes_max:
                raise self._beyond("head")
        elif head_open:
            self._held = b""
        elif self._wire_bytes == wire_bytes:
            # Chunk extensions or a trailer without end: bytes that are no body.
            self._barren += len(data)
            if self._barren > self._head_bytes_max:
                raise self._beyond("framing")
        else:
            self._barren = 0

    def ended(self) -> bool:
        """Whether the body is whole now that the peer closed: nothing had promised a length."""
        if not self._close_delimited or self.complete:
            return self.complete
        return self._inflater is None or self._inflater.whole or not self._wire_bytes

    @property
    def began(self) -> bool:
        """Whether any byte of this response was read."""
        return bool(self._held) or self._head is not None

    # Called by the parser, in the order of a response.

    def on_message_begin(self) -> None:
        """A response begins; one that nobody asked for ends the connection."""
        if self.complete:
            raise ProtocolError(f"{self._whence} sent more than the response")

    def on_status(self, reason: bytes) -> None:
        """The words behind the status, or a piece of them; they are read by nobody."""
        self._head_bytes += len(reason)
        if _CONTROL.search(reason):
            raise ProtocolError(f"{self._whence} sent control characters in its status line")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line, or one of the trailers, which are counted and dropped."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._head_bytes_max:
            raise self._beyond("head")
        if self._head is not None:
            return
        key = _lower(name)
        text = value.decode("latin-1")
        if text[-1:] in _BLANK:
            text = text.rstrip(" \t")
        headers = self._headers
        headers.append((key, text))
        if key in _FRAMING:
            self._note(key, text)
        if len(headers) > HEADERS_MAX:
            raise ProtocolError(f"{self._whence} sent more than {HEADERS_MAX} headers")

    def on_headers_complete(self) -> None:
        """The head is whole: skip it if it is informational, else decide how the body ends."""
        status = self._parser.get_status_code()
        if self._parser.get_http_version() not in _VERSIONS:
            raise ProtocolError(f"{self._whence} does not speak HTTP/1.1; is base_url right?")
        if status < 200:
            self._informational(status)
            return
        bodiless = self._head_only or status in _BODILESS
        if not bodiless:
            self._decide_framing()
        self._head = ResponseHead(status, self._headers)
        # The trailers get an allowance of their own.
        self._head_bytes = 0
        self._sink.on_head(self._head)
        if self._head_only:
            self.complete = True
            # llhttp would read a body now; stop it here, the connection is not used again.
            raise ProtocolError(f"{self._whence} answered a HEAD")

    def on_body(self, body: bytes) -> None:
        """Bytes of the body, chunk framing taken off."""
        self._wire_bytes += len(body)
        if self._inflater is not None:
            self._inflate(self._inflater, body)
        elif self._wire_bytes > self._body_bytes_max:
            raise self._beyond("body")
        else:
            self._sink.on_chunk(body)

    def on_message_complete(self) -> None:
        """The body ended as promised."""
        if self._head is None:
            self._forget_headers()
            return
        if self._inflater is not None and self._wire_bytes and not self._inflater.whole:
            raise ProtocolError(f"{self._whence} sent a packed body that stops amid itself")
        self.complete = True
        self.reusable = self._parser.should_keep_alive()

    # Leaves.

    def _new_parser(self) -> HttpResponseParser:
        parser = HttpResponseParser(self)
        # Servers of old pad chunk sizes with spaces; nothing can hide in them.
        parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
        return parser

    def _forget_headers(self) -> None:
        self._headers: list[tuple[str, str]] = []
        self._coding = self._transfer = ""
        self._length: str | None = None

    def _note(self, key: str, text: str) -> None:
        if key == "content-length":
            self._length = text
        elif key == "keep-alive":
            told = _KEEP_ALIVE.search(text)
            self.keep_alive_s = int(told[1]) if told else None
        elif key == "content-encoding":
            self._coding = ", ".join(filter(None, (self._coding, text.lower())))
        else:
            self._transfer = ", ".join(filter(None, (self._transfer, text.lower())))

    def _informational(self, status: int) -> None:
        if status < 100 or status == 101 or self._length is not None or self._transfer:
            raise ProtocolError(f"{self._whence} answered with a status {status:03d} out of place")

    def _decide_framing(self) -> None:
        if self._transfer not in {"", "chunked"}:
            raise ProtocolError(f"{self._whence} uses the transfer coding {self._transfer[:60]!r}")
        if self._coding not in {"", "identity"}:
            coding = CODINGS.get(self._coding)
            if coding is None:
                raise ProtocolError(
                    f"{self._whence} packed the body as {self._coding[:60]!r},"
                    " which we did not offer to read"
                )
            self._inflater = Inflater(coding, whence=self._whence)
        self._close_delimited = self._length is None and not self._transfer

    def _inflate(self, inflater: Inflater, body: bytes) -> None:
        for piece in inflater.pieces(body):
            self._inflated_bytes += len(piece)
            if self._inflated_bytes > self._body_bytes_max:
                raise self._beyond("body")
            self._sink.on_chunk(piece)

    def _refused(self, error: HttpParserError, data: bytes) -> None:
        """Sort out why the parser stopped."""
        if self.complete:
            # The response is whole; what follows it on the wire is not ours.
            self.reusable = False
        elif isinstance(error, HttpParserCallbackError) and error.__context__ is not None:
            raise error.__context__ from None
        elif self._head is None and str(error) == _FOLD_REFUSED and not self._folded:
            self._folded = True
            self._gather(data)
        else:
            raise ProtocolError(
                f"{self._whence} does not answer in HTTP/1.1 ({error}); is base_url right?"
            ) from error

    def _gather(self, data: bytes) -> None:
        """Keep a folded head until it is whole, then read it without its folds."""
        self._held += data
        ready = unfolded(self._held)
        if ready is None:
            if len(self._held) > self._head_bytes_max:
                raise self._beyond("head")
            return
        self._held = b""
        self._head_bytes = 0
        self._forget_headers()
        self._parser = self._new_parser()
        self._parse(ready, head_open=True, wire_bytes=0)

    def _beyond(self, what: str) -> ProtocolError:
        bound = self._body_bytes_max if what == "body" else self._head_bytes_max
        return ProtocolError(f"the {what} of {self._whence}'s response is beyond {bound:,} bytes")


@lru_cache(maxsize=256)
def _lower(name: bytes) -> str:
    """Return a header's name in lower case; a vendor's names are few and always the same."""
    return name.lower().decode("latin-1")
