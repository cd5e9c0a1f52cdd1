"""This file knows the two lanes by which a request comes: composed by us, or passed as bytes.

Both meet the same corridor. A composed request is written in the vendor's dialect; a passed one
was written by its caller in that very dialect and travels as it came, but for three splices: the
model's name, `stream_options.include_usage`, and an output cap where we set one.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, get_args

import msgspec

from droveway.chat import Answer, ChatRequest, Message, Role
from droveway.dialects import openai_chat, openai_embeddings
from droveway.dialects.accents import PLAIN, Accent
from droveway.dialects.openai_chat import check_request, read_answer, write_request
from droveway.dialects.openai_embeddings import read_embeddings
from droveway.dialects.openai_gist import read_gist
from droveway.dialects.splice import Spans
from droveway.engine.metering import estimate_input
from droveway.errors import BadRequestError

# Without a tokenizer: four bytes of JSON are about a token.
BYTES_PER_TOKEN: Final = 4
_CAPS: Final = ("max_completion_tokens", "max_tokens")
_NOTHING: Final = (b"null", None)
_ROLES: Final = get_args(Role)
CAP_MAX: Final = 2**31
# It is echoed in headers, kept in the journal and looked up in tables: no place for a book.
MODEL_CHARS_MAX: Final = 256


class Endpoint(NamedTuple):
    """What can be asked of a vendor.

    Attributes:
        path: After the base URL.
        needs: The field without which there is nothing to answer.
        writes: Whether the model writes text, and may do so piece by piece.
        read_whole: Reads an answer that came in one piece.
    """

    path: str
    needs: str
    writes: bool
    read_whole: Callable[[bytes], Answer]


COMPOSED_CHAT: Final = Endpoint(openai_chat.PATH, "messages", True, read_answer)
CHAT: Final = Endpoint(openai_chat.PATH, "messages", True, read_gist)
EMBEDDINGS: Final = Endpoint(openai_embeddings.PATH, "input", False, read_embeddings)


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
    def endpoint(self) -> Endpoint:
        """What is asked of the vendor."""

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

    def may_hold_media(self) -> bool:
        """Whether there may be anything but text in it; cheap, and never wrongly no."""

    def written(self) -> bytes:
        """The request as bytes, for a journal that keeps them."""

    def input_estimate(self) -> int:
        """About how many tokens the input has."""

    def body(self, *, model: str, accent: Accent, output_cap: int | None) -> bytes:
        """The request body for one candidate."""


class Composed:
    """A request that we compose, in the dialect of whoever answers."""

    through = False
    endpoint = COMPOSED_CHAT

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

    def may_hold_media(self) -> bool:
        """Say so where any content is in parts."""
        return any(isinstance(each.content, list) for each in self._request.messages)

    def written(self) -> bytes:
        """Return the request as a plain vendor would get it; nothing where it cannot be written."""
        try:
            return write_request(self._request, model=self.model, accent=PLAIN, output_cap=None)
        except BadRequestError:
            return b""  # which is why it was refused: its row says so

    def input_estimate(self) -> int:
        """Estimate the input by its texts."""
        return estimate_input(self._request)

    def body(self, *, model: str, accent: Accent, output_cap: int | None) -> bytes:
        """Write the body."""
        return write_request(self._request, model=model, accent=accent, output_cap=output_cap)


class Passed:
    """A request whose bytes go through.

    Args:
        body: The body as it came, uncompressed.
        endpoint: What is asked for.

    Attributes:
        wants_usage: Whether the caller asked for a usage chunk at the end of a stream.

    Raises:
        BadRequestError: It is no JSON object, has a key twice, or a field that we must read is
            not of its type.
    """

    through = True

    def __init__(self, body: bytes, endpoint: Endpoint = CHAT) -> None:
        self.endpoint = endpoint
        self._bytes = body
        self._spans = Spans(body)
        self.model = _decoded(self._spans, "model", str)
        if not self.model:
            raise BadRequestError("the request names no model; set the field 'model'")
        if len(self.model) > MODEL_CHARS_MAX:
            raise BadRequestError(f"'model' is longer than {MODEL_CHARS_MAX} characters")
        self.stream = endpoint.writes and bool(_optional(self._spans, "stream", bool))
        options = _optional(self._spans, "stream_options", dict[str, Any]) or {}
        self.wants_usage = options.get("include_usage") is True
        self.max_tokens = _cap(self._spans) if endpoint.writes else 0
        given = self._spans.values.get(endpoint.needs)
        if given in _NOTHING:
            raise BadRequestError(f"the request has no {endpoint.needs}; set that field")
        assert given is not None, "absent was refused above"
        if endpoint.writes and given[:1] != b"[":
            raise BadRequestError(f"{endpoint.needs} must be an array of messages")

    def check(self) -> None:
        """Refuse nothing more: what is read of the bytes was checked when they came."""

    def messages(self) -> Sequence[Message]:
        """Return the conversation, read leniently: a role that is none counts as the user's."""
        if not self.endpoint.writes:
            return ()
        turns = _decoded(self._spans, "messages", list[_Turn])
        return [
            Message(role=turn.role if turn.role in _ROLES else "user", content=turn.content)
            for turn in turns
        ]

    def may_hold_media(self) -> bool:
        """Say so unless no part can have a type: its word would stand there, plain or escaped."""
        return self.endpoint.writes and (b'"type"' in self._bytes or b"\\u" in self._bytes)

    def written(self) -> bytes:
        """Return the bytes as they came."""
        return self._bytes

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
    role: Any = None


_DECODERS: Final = {
    kind: msgspec.json.Decoder(kind) for kind in (str, bool, int, dict[str, Any], list[_Turn])
}


def _decoded(spans: Spans, key: str, kind: Any) -> Any:  # noqa: ANN401 - what the kind says
    if key not in spans.values:
        raise BadRequestError(f"the request has no {key!r}; set it")
    try:
        return _DECODERS[kind].decode(spans.values[key])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"{key!r} of the request cannot be used: {error}") from error


def _optional(spans: Spans, key: str, kind: Any) -> Any:  # noqa: ANN401 - what the kind says
    if spans.values.get(key) in _NOTHING:
        return None
    return _decoded(spans, key, kind)


def _cap(spans: Spans) -> int | None:
    """Return the output cap; of two, the larger one: a vendor may take either."""
    found: list[int] = []
    for key in _CAPS:
        cap: int | None = _optional(spans, key, int)
        if cap is not None:
            if not 1 <= cap <= CAP_MAX:
                raise BadRequestError(f"{key!r} must be between 1 and {CAP_MAX}, not {cap}")
            found.append(cap)
    return max(found, default=None)


def inquiry_of(request: "ChatRequest | Inquiry") -> Inquiry:
    """Return a request as the corridor takes it."""
    return Composed(request) if isinstance(request, ChatRequest) else request
