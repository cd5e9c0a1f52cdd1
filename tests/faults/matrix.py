"""This file knows what must come of every fault of the sandbox: the table of cells, as data.

One row for each fault, one cell for a stream and one for a whole answer; the accent and the face
(library or gateway) change nothing of it. What stands here follows from the table of endings, from
what is retried, and from what is charged: the vendor's count, else ours, else nothing.
"""

from typing import Final, Literal, NamedTuple

from droveway.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    DrovewayError,
    InsufficientBalanceError,
    InternalServerError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    Phase,
    ProtocolError,
    RateLimitError,
    RequestTooLargeError,
    StreamTruncatedError,
    UnprocessableEntityError,
)

Charged = Literal["provider", "counted", "nothing"]
Accent = Literal["plain", "deepseek"]
Face = Literal["library", "gateway"]
ACCENTS: Final[tuple[Accent, ...]] = ("plain", "deepseek")
FACES: Final[tuple[Face, ...]] = ("library", "gateway")
ATTEMPTS_MAX: Final = 5


class Cell(NamedTuple):
    """What must come of one request.

    Attributes:
        error: What the library raises; None for a whole answer.
        code: The error's code, in the library and in the journal.
        status: How the gateway answers where nothing was delivered.
        attempts: Requests that the vendor sees.
        charged: Whose count is paid.
        begun: Whether the gateway had delivered data: then the error is an event.
        phase: Which clock ran out.
        retryable: What the caller is told of it.
    """

    error: type[DrovewayError] | None = None
    code: str | None = None
    status: int = 200
    attempts: int = 1
    charged: Charged = "provider"
    begun: bool = False
    phase: Phase | None = None
    retryable: bool = True

    @property
    def outcome(self) -> str:
        """What the journal says."""
        return "completed" if self.error is None else "failed"

    def __str__(self) -> str:
        return f"{self.code or 'completed'} / {self.attempts} / {self.charged}"


class Fault(NamedTuple):
    """What must come of a fault, and on which clocks it is played.

    Attributes:
        stream: Its cell where a stream is asked for.
        whole: Its cell where the answer is asked for in one piece.
        hasty: Whether the clocks are short: the vendor is silent, or tells us to wait for long.
        partial: Its cell for a whole answer in the library, where the error brings the partial
            answer, and so its bill; None where that is no different.
    """

    stream: Cell
    whole: Cell
    hasty: bool = False
    partial: Cell | None = None


OK: Final = Cell()
COUNTED: Final = OK._replace(charged="counted")


def _failed(error: type[DrovewayError], status: int = 502, attempts: int = 1) -> Cell:
    return Cell(error, error.code, status, attempts, "nothing")


def _cut_off(error: type[DrovewayError]) -> Cell:
    return Cell(error, error.code, charged="counted", begun=True)


def _silent(phase: Phase, attempts: int = 1) -> Cell:
    return _failed(APITimeoutError, 504, attempts)._replace(phase=phase)


def _both(cell: Cell, *, hasty: bool = False) -> Fault:
    return Fault(cell, cell, hasty)


BROKEN: Final = _failed(APIConnectionError)
NONSENSE: Final = _failed(ProtocolError)
BROKEN_OFF: Final = NONSENSE._replace(charged="provider")
TRUNCATED: Final = _cut_off(StreamTruncatedError)
FELL_SILENT: Final = _cut_off(APITimeoutError)._replace(phase="idle")
OUR_ACCOUNT: Final = {
    "401": AuthenticationError,
    "402": InsufficientBalanceError,
    "403": PermissionDeniedError,
}
REFUSED: Final = _failed(RateLimitError, 429)
REFUSED_TO_THE_END: Final = _failed(RateLimitError, 429, ATTEMPTS_MAX)
FAILED_TO_THE_END: Final = _failed(InternalServerError, attempts=ATTEMPTS_MAX)
OVERLOADED_TO_THE_END: Final = _failed(OverloadedError, attempts=ATTEMPTS_MAX)
TWICE: Final = OK._replace(attempts=2)

FAULTS: Final[dict[str, Fault]] = {
    # The caller's mistakes, and those of our account.
    "400": _both(_failed(BadRequestError, 400)),
    "404": _both(_failed(NotFoundError, 404)),
    "413": _both(_failed(RequestTooLargeError, 413)),
    "422": _both(_failed(UnprocessableEntityError, 422)),
    "408": _both(_failed(APIStatusError)),
    **{status: _both(_failed(error)._replace(retryable=False))
       for status, error in OUR_ACCOUNT.items()},
    # Refusals: back in line, until the attempts or the time are used up.
    "429": _both(REFUSED, hasty=True),
    "429-seconds:5": _both(REFUSED, hasty=True),
    "429-date:5": _both(REFUSED, hasty=True),
    "429-negative": _both(REFUSED, hasty=True),
    "429-garbage": _both(REFUSED, hasty=True),
    "429-huge": _both(REFUSED),
    "429-ms:20": _both(REFUSED_TO_THE_END),
    "429-past": _both(REFUSED_TO_THE_END),
    "503-seconds:0.02": _both(OVERLOADED_TO_THE_END),
    "529-seconds:0.02": _both(OVERLOADED_TO_THE_END),
    "429-ms:20@1": _both(TWICE),
    "503-seconds:0.02@1": _both(TWICE),
    # Failures before a body: once more, within a budget.
    "500": _both(FAILED_TO_THE_END),
    "502": _both(FAILED_TO_THE_END),
    "502-html": _both(FAILED_TO_THE_END),
    "504": _both(FAILED_TO_THE_END),
    "503": _both(OVERLOADED_TO_THE_END),
    "529": _both(OVERLOADED_TO_THE_END),
    "error-200": _both(FAILED_TO_THE_END),
    "500@1": _both(TWICE),
    # The connection.
    "refuse": _both(BROKEN),
    "hang-up": _both(BROKEN),
    "cut-head": _both(BROKEN),
    "cut-event:0": Fault(_failed(StreamTruncatedError), BROKEN),
    # The role alone was delivered: nothing is repeated, and nothing was produced.
    "cut-event:1": Fault(TRUNCATED._replace(charged="nothing"), BROKEN),
    "cut-event:3": Fault(TRUNCATED, BROKEN),
    "cut-event-rst:3": Fault(TRUNCATED, BROKEN),
    "cut-byte:540": Fault(TRUNCATED, BROKEN),
    "cut-byte-rst:540": Fault(TRUNCATED, BROKEN),
    "short-length": Fault(OK, BROKEN),  # the stream is whole before the lie shows
    "close-delimited": _both(OK),
    "close-delimited-cut:3": Fault(TRUNCATED, NONSENSE),
    # Silence.
    "slow-headers": Fault(_silent("first_token", 2), _silent("total"), hasty=True),
    "slow-tokens:0.01": _both(OK),
    "stall:0": Fault(_silent("first_token", 2), _silent("idle"), hasty=True),
    "stall:0@1": Fault(TWICE, _silent("idle"), hasty=True),
    "stall:3": Fault(FELL_SILENT, _silent("idle"), hasty=True),
    "stall-keepalive:0": Fault(_silent("first_token", 2), _silent("total"), hasty=True),
    "stall-keepalive:3": Fault(FELL_SILENT, _silent("total"), hasty=True),
    "keepalive-first:2": _both(OK),
    # Endings.
    "end-without-finish": Fault(TRUNCATED, NONSENSE, partial=BROKEN_OFF),
    "end-without-done": _both(OK),
    # The usage chunk came: the vendor will bill by it.
    "done-without-finish": Fault(
        TRUNCATED._replace(charged="provider"), NONSENSE, partial=BROKEN_OFF
    ),
    "finish-twice": _both(OK),
    "finish-unknown": _both(OK),
    "data-after-done": _both(OK),
    # Events.
    "malformed:2": Fault(OK, NONSENSE),
    "malformed:9": Fault(_cut_off(ProtocolError), NONSENSE),
    "malformed-body": Fault(_failed(StreamTruncatedError), NONSENSE),
    "error-event:0": _both(FAILED_TO_THE_END),
    "error-event:3": Fault(_cut_off(InternalServerError), FAILED_TO_THE_END),
    "huge-event": _both(OK),
    "tool-index-reuse": _both(OK),
    "no-role": _both(OK),
    "empty-choices-first": _both(OK),
    # The usage.
    "usage-missing": _both(COUNTED),
    "usage-null": _both(COUNTED),
    "usage-twice": _both(OK),
    "usage-on-choices": _both(OK),
    "usage-on-finish": _both(OK),
    "usage-negative": _both(COUNTED),
    "usage-huge": _both(COUNTED),
    "usage-float": _both(COUNTED),
    "usage-string": _both(COUNTED),
    # Bytes.
    "crlf": _both(OK),
    "cr": _both(OK),
    "split-lines": _both(OK),
    "split-utf8": _both(OK),
    "multi-line-data": _both(OK),
    "no-space": _both(OK),
    "extra-fields": _both(OK),
    "byte-order-mark": Fault(OK, NONSENSE),
    "gzip": _both(OK),
    "html-200": _both(NONSENSE),
}  # fmt: skip


class Place(NamedTuple):
    """Where a cell stands.

    Attributes:
        fault: The row.
        stream: Whether a stream is asked for.
        accent: How the vendor speaks; DeepSeek's thinks first.
        face: Who asks: the library, or a caller of the gateway.
    """

    fault: str
    stream: bool
    accent: Accent
    face: Face

    @property
    def cell(self) -> Cell:
        """What must come of it."""
        fault = FAULTS[self.fault]
        if self.stream:
            return fault.stream
        return fault.partial if fault.partial and self.face == "library" else fault.whole

    @property
    def column(self) -> str:
        """Its column's name."""
        return f"{self.face} {self.accent} {'stream' if self.stream else 'whole'}"

    def __str__(self) -> str:
        return f"{self.fault}, {self.column}"


def places(face: Face) -> list[Place]:
    """Return every cell of a face, row by row."""
    return [
        Place(fault, stream, accent, face)
        for fault in FAULTS
        for accent in ACCENTS
        for stream in (True, False)
    ]
