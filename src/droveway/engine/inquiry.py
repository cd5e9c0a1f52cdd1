"""This file knows the two lanes by which a request comes: composed by us, or passed as bytes.

Both meet the same corridor. A composed request is written in the vendor's dialect; a passed one
was written by its caller in that very dialect and travels as it came, but for three splices: the
model's name, `stream_options.include_usage`, and an output cap where we set one.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from droveway.chat import ChatRequest, Message
from droveway.dialects.accents import Accent
from droveway.dialects.openai_chat import check_request, write_request
from droveway.dialects.splice import Spans
from droveway.engine.metering import estimate_input
from droveway.errors import BadRequestError

# Without a tokenizer: four bytes of JSON are about a token.
BYTES_PER_TOKEN: Final = 4
_CAPS: Final = ("max_completion_tokens", "max_tokens")
_NOTHING: Final = (b"null", None)


class Inquiry(Protocol):
    """What the corridor needs to know of a request, whichever lane it came by."""

    @property
    def model(self) -> str:
        """The model that is asked for."""

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted piece by piece."""

    @property
    def max_tokens(self) -> int | None:
        """The caller's own cap of output tokens."""

    @property
    def through(self) -> bool:
        """Whether the answer's bytes go to the caller as they come."""

    def check(self) -> None:
        """Refuse what would pass by that which is counted and bounded.

        Raises:
            BadRequestError: There is such a thing.
        """

    def messages(self) -> Sequence[Message]:
        """The conversation; asked for only where its text decides something."""

    def input_estimate(self) -> int:
        """About how many tokens the input has."""

    def body(self, *, model: str, accent: Accent, output_cap: int | None) -> bytes:
        """The request body for one candidate."""


class Composed:
    """A request that we compose, in the dialect of whoever answers."""

    through = False

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self.model = request.model
        self.stream = request.stream
        self.max_tokens = request.max_tokens

    def check(self) -> None:
        """Refuse an `extra` that sets what the engine sets, and caps that are none.

        A cap within `extra` is the caller's own cap from then on.
        """
        self.max_tokens = check_request(self._request)

    def messages(self) -> Sequence[Message]:
        """Return the conversation."""
        return self._request.messages

    def input_estimate(self) -> int:
        """Estimate the input by its texts."""
        return estimate_input(self._request)

    def body(self, *, model: str, accent: Accent, output_cap: int | None) -> bytes:
        """Write the body."""
        return write_request(self._request, model=model, accent=accent, output_cap=output_cap)


class Passed:
    """A chat request whose bytes go through.

    Args:
        body: The body as it came, uncompressed.

    Attributes:
        wants_usage: Whether the caller asked for a usage chunk at the end of a stream.

    Raises:
        BadRequestError: It is no JSON object, has a key twice, or a field that we must read is
            not of its type.
    """

    through = True

    def __init__(self, body: bytes) -> None:
        self._bytes = body
        self._spans = Spans(body)
        self.model = _decoded(self._spans, "model", str)
        if not self.model:
            raise BadRequestError("the request names no model; set the field 'model'")
        self.stream = bool(_optional(self._spans, "stream", bool))
        self._options = _optional(self._spans, "stream_options", dict[str, Any]) or {}
        self.wants_usage = self._options.get("include_usage") is True
        self.max_tokens = _cap(self._spans)
        if "messages" not in self._spans.values:
            raise BadRequestError("the request has no messages; set the field 'messages'")

    def check(self) -> None:
        """Refuse nothing more: what is read of the bytes was checked when they came."""

    def messages(self) -> Sequence[Message]:
        """Return the conversation, read leniently: only its content matters here."""
        turns = _decoded(self._spans, "messages", list[_Turn])
        return [Message(role="user", content=turn.content) for turn in turns]

    def input_estimate(self) -> int:
        """Estimate the input by its bytes."""
        return len(self._bytes) // BYTES_PER_TOKEN

    def body(self, *, model: str, accent: Accent, output_cap: int | None) -> bytes:
        """Return the bytes as they came, with the splices that are needed and no others."""
        edits: dict[str, bytes] = {}
        if model != self.model:
            edits["model"] = msgspec.json.encode(model)
        if self.stream and not self.wants_usage:
            edits["stream_options"] = self._usage_wanted()
        if output_cap is not None and self.max_tokens is None:
            edits[accent.cap_field] = b"%d" % output_cap
        return self._spans.edited(edits) if edits else self._bytes

    def _usage_wanted(self) -> bytes:
        told = self._spans.values.get("stream_options")
        if told in _NOTHING:
            return b'{"include_usage":true}'
        assert told is not None, "null and absent are told apart above"
        return Spans(told).edited({"include_usage": b"true"})


class _Turn(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None


def _decoded(spans: Spans, key: str, kind: Any) -> Any:  # noqa: ANN401 - what the kind says
    if key not in spans.values:
        raise BadRequestError(f"the request has no {key!r}; set it")
    try:
        return msgspec.json.decode(spans.values[key], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"{key!r} of the request cannot be used: {error}") from error


def _optional(spans: Spans, key: str, kind: Any) -> Any:  # noqa: ANN401 - what the kind says
    if spans.values.get(key) in _NOTHING:
        return None
    return _decoded(spans, key, kind)


def _cap(spans: Spans) -> int | None:
    for key in _CAPS:
        cap: int | None = _optional(spans, key, int)
        if cap is not None:
            if not 1 <= cap <= 2**31:
                raise BadRequestError(f"{key!r} must be at least 1, not {cap}")
            return cap
    return None


def inquiry_of(request: "ChatRequest | Inquiry") -> Inquiry:
    """Return a request as the corridor takes it."""
    return Composed(request) if isinstance(request, ChatRequest) else request
