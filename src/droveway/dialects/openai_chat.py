"""This file knows the chat completions dialect: how to write a request and read what comes back.

Pure functions on bytes. Fields that we do not know pass both ways: a request's `extra` is laid
over the body, a message's `extra` over its turn, and what a vendor adds to an answer's message
stands in `Answer.extra`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from droveway.chat import (
    Answer,
    ChatEvent,
    ChatRequest,
    Finish,
    Finished,
    Message,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    UsageUpdate,
)
from droveway.dialects.accents import PLAIN, Accent
from droveway.dialects.structured import response_format, schema_instruction
from droveway.dialects.usage import read_usage
from droveway.errors import BadRequestError, ProtocolError

PATH: Final = "/chat/completions"
TOOL_CALLS_MAX: Final = 1_000
_PARAM_SIGNS_MAX: Final = 200
# What the engine itself says of a request, and what it cannot read of an answer.
CAP_FIELDS: Final = ("max_tokens", "max_completion_tokens")
RESERVED: Final = frozenset({"model", "messages", "stream"})
_FINISH: Final[Mapping[str, Finish]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
# Reasons that say that the answer was broken off, not that it is whole.
# DeepSeek, create-chat-completion, 2026-11: "insufficient_system_resource"; OpenRouter: "error".
# vLLM and SGLang, 2026-11: "abort", with a [DONE] after it (vllm-project/vllm#57082).
BROKEN_OFF: Final = frozenset({"insufficient_system_resource", "error", "abort"})
_MESSAGE_FIELDS: Final = frozenset(
    {"role", "content", "tool_calls", "reasoning_content", "reasoning", "refusal"}
)


# What is read of a vendor's JSON; everything else in it is passed over. Those of a stream are no
# business of the garbage collector's (gc=False): there is one a token, and none can be in a circle.
class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolPiece(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolPiece] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    id: Any = None
    model: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


class _WholeChoice(msgspec.Struct):
    message: dict[str, Any]
    index: int | None = 0
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_WholeChoice]
    id: Any = None
    model: Any = None
    usage: Any = None
    error: Any = None


_CHUNK: Final[msgspec.json.Decoder[_Chunk]] = msgspec.json.Decoder(_Chunk)
_COMPLETION: Final[msgspec.json.Decoder[_Completion]] = msgspec.json.Decoder(_Completion)
_ANY: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
_Read = TypeVar("_Read")


def check_request(request: ChatRequest) -> int | None:
    """Refuse a request that would pass by what is counted and bounded.

    Returns:
        The caller's own cap of output tokens, from wherever it was set; None for none.

    Raises:
        BadRequestError: `extra` sets what the engine sets, or a cap is none.
    """
    taken = RESERVED & request.extra.keys()
    if taken:
        raise BadRequestError(f"extra cannot set {min(taken)!r}; the request has a field for it")
    if request.extra.get("n") not in (None, 1):
        raise BadRequestError("one answer is read of each request; ask n times instead of n > 1")
    caps = (request.max_tokens, *(request.extra.get(name) for name in CAP_FIELDS))
    told = [cap for cap in caps if cap is not None]
    for cap in told:
        if type(cap) is not int or cap < 1:
            raise BadRequestError(f"max_tokens is a whole number from 1, not {cap!r}")
    return max(told, default=None)


def write_request(
    request: ChatRequest, *, model: str, accent: Accent = PLAIN, output_cap: int | None = None
) -> bytes:
    """Write a request body.

    Args:
        request: What is asked.
        model: The vendor's name of the model.
        accent: How this vendor differs.
        output_cap: Our own cap of output tokens; used where the caller set none.

    Raises:
        BadRequestError: The request holds what JSON cannot.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": _turns(request, accent),
    }
    if request.stream:
        body["stream"] = True
    if request.temperature is not None:
        body["temperature"] = request.temperature
    cap = request.max_tokens if request.max_tokens is not None else output_cap
    if cap is not None and not request.extra.keys() & set(CAP_FIELDS):
        body[accent.cap_field] = cap
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in request.tools
        ]
    if request.tool_choice is not None:
        body["tool_choice"] = request.tool_choice
    if request.output_schema is not None:
        body["response_format"] = response_format(request, accent)
    body.update(accent.thinking_fields(request))
    body.update(request.extra)
    if request.stream:
        # Laid over the caller's: without it there is no usage to settle by.
        told = request.extra.get("stream_options") or {}
        if not isinstance(told, Mapping):
            raise BadRequestError("stream_options is an object")
        body["stream_options"] = {**told, "include_usage": True}
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadRequestError(f"the request cannot be written as JSON: {error}") from error


def read_answer(body: bytes) -> Answer:
    """Read a whole answer.

    Raises:
        ProtocolError: It is no chat completion, or one without a finish reason.
    """
    try:
        whole = _decode(body, _COMPLETION)
    except msgspec.DecodeError as error:
        what = "an HTML page" if body.lstrip()[:1] == b"<" else "no chat completion"
        raise ProtocolError(
            f"the provider answered 200 with {what}; is base_url right? ({error})"
        ) from error
    choice = next((each for each in whole.choices if not each.index), None)
    if choice is None or whole.error:
        raise ProtocolError("the provider answered 200 without a choice in it")
    answer = _answer_of(whole, choice)
    if not choice.finish_reason or choice.finish_reason in BROKEN_OFF:
        broken_off = ProtocolError(
            f"the provider broke the answer off (finish_reason {choice.finish_reason!r})"
        )
        broken_off.partial = answer
        raise broken_off
    return answer


def _answer_of(whole: _Completion, choice: _WholeChoice) -> Answer:
    message = choice.message
    content = message.get("content")
    if not (content is None or isinstance(content, str | list)):
        raise ProtocolError("the provider's answer has a content that is no text")
    return Answer(
        text=_text(content) or _text(message.get("refusal")),
        reasoning=_text(message.get("reasoning_content") or message.get("reasoning")) or None,
        tool_calls=_read_tool_calls(message.get("tool_calls")),
        finish_reason=finish_of(choice.finish_reason),
        usage=read_usage(whole.usage),
        model=name_of(whole.model),
        id=name_of(whole.id),
        extra={name: message[name] for name in message if name not in _MESSAGE_FIELDS},
    )


def finish_of(reason: str | None) -> Finish | None:
    """Return why a model stopped; None where it did not, or was broken off."""
    if not reason or reason in BROKEN_OFF:
        return None
    return _FINISH.get(reason, "other")


def name_of(value: object) -> str | None:
    """Return what a vendor calls something: a text, or a number that stands for one."""
    return None if value is None or value == "" else str(value)


class ChunkReader:
    """Reads the chunks of one stream; feed it the data of each event.

    Attributes:
        finished: Whether the finish marker was seen.
        broken_off: The vendor's reason when it broke the answer off itself.
        model: The model the vendor names, once known.
        id: The vendor's id of the answer, once known.
        without_choice: Whether the last chunk had no choice at all, as usage chunks have none.
    """

    __slots__ = ("broken_off", "finished", "id", "model", "without_choice")

    def __init__(self) -> None:
        self.finished = False
        self.without_choice = False
        self.broken_off: str | None = None
        self.model: str | None = None
        self.id: str | None = None

    def read(self, data: bytes) -> list[ChatEvent]:
        """Read one chunk.

        Returns:
            What it says, in order: reasoning, text, tool calls, finish, usage; often one thing.

        Raises:
            msgspec.DecodeError: The line is no JSON object; the caller counts it and goes on.
            ProtocolError: It is an object, but no chunk: text may be in it, and would be missing.
            InBandError: The vendor reports an error inside the stream.
        """
        try:
            chunk = _decode(data, _CHUNK)
        except msgspec.ValidationError as error:
            if data.lstrip()[:1] != b"{":
                raise  # a word or a number: there can be no text of the answer in it
            raise ProtocolError(f"a chunk of the stream cannot be read: {error}") from error
        if chunk.error:
            raise InBandError(chunk.error)
        # Azure's first chunk has both as "" (2026-11); some servers give no id at all.
        if self.id is None or self.model is None:
            self.id = self.id or name_of(chunk.id)
            self.model = self.model or name_of(chunk.model)
        self.without_choice = not chunk.choices
        events: list[ChatEvent] = []
        for choice in chunk.choices or ():
            if not choice.index:
                self._read_choice(choice, events)
        if chunk.usage is not None and (usage := read_usage(chunk.usage)) is not None:
            events.append(UsageUpdate(usage))
        return events

    def _read_choice(self, choice: "_Choice", events: list[ChatEvent]) -> None:
        delta = choice.delta
        if delta is not None:
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning:
                events.append(ReasoningDelta(reasoning))
            if delta.content:
                content = delta.content
                events.append(TextDelta(content if isinstance(content, str) else _text(content)))
            elif delta.refusal:
                events.append(TextDelta(delta.refusal))
            if delta.tool_calls:
                events.extend(_tool_deltas(delta.tool_calls))
        # Some hosts write "" for null on every chunk (sgl-project/sglang#3912, 2025-02).
        if choice.finish_reason in BROKEN_OFF:
            self.broken_off = choice.finish_reason
        elif choice.finish_reason and not self.finished:
            self.finished = True
            events.append(Finished(_FINISH.get(choice.finish_reason, "other")))


class InBandError(Exception):
    """An error object inside a stream; the attempt turns it into its typed error."""

    def __init__(self, body: object) -> None:
        super().__init__("error event")
        self.body = body


def error_message(body: bytes | object) -> str:
    """Return what a vendor's error body says, as long as it is."""
    said = body
    if isinstance(body, bytes):
        try:
            said = _decode(body, _ANY)
        except msgspec.DecodeError:
            text = body.decode("utf-8", "replace").strip()
            return "an HTML page" if text.startswith("<") else text
    if isinstance(said, Mapping):
        inner = said.get("error") or said
        if isinstance(inner, Mapping):
            words = (inner.get(name) for name in ("message", "detail", "type", "code"))
            inner = next((word for word in words if word), "")
        return str(inner)
    return str(said)


def error_param(body: bytes | object) -> str | None:
    """Return the field of the request that a vendor's error body names, where it names one."""
    said = body
    if isinstance(body, bytes):
        try:
            said = _decode(body, _ANY)
        except msgspec.DecodeError:
            return None
    inner = said.get("error") if isinstance(said, Mapping) else None
    named = inner.get("param") if isinstance(inner, Mapping) else None
    return named[:_PARAM_SIGNS_MAX] if isinstance(named, str) else None


def _decode(data: bytes, decoder: "msgspec.json.Decoder[_Read]") -> _Read:
    try:
        return decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        # Neither is a DecodeError of msgspec's, and both are nothing but bad JSON.
        raise msgspec.DecodeError(str(error)) from error


def one_line(text: str) -> str:
    """Return a text in one line of at most 300 characters."""
    return " ".join(text.split())[:300]


def _tool_deltas(pieces: Sequence[_ToolPiece]) -> list[ToolCallDelta]:
    if len(pieces) > TOOL_CALLS_MAX:
        raise ProtocolError(f"the provider sent more than {TOOL_CALLS_MAX} tool calls at once")
    return [
        ToolCallDelta(
            index=piece.index if piece.index is not None else position,
            id=piece.id or None,
            name=(piece.function.name if piece.function else None) or None,
            arguments=(piece.function.arguments if piece.function else None) or "",
        )
        for position, piece in enumerate(pieces)
    ]


def _read_tool_calls(raw: object) -> tuple[ToolCall, ...]:
    if not raw:
        return ()
    try:
        pieces = msgspec.convert(raw, list[_ToolPiece])
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the provider's tool calls cannot be read: {error}") from error
    return tuple(
        ToolCall(delta.id or f"call_{delta.index}", delta.name or "", delta.arguments)
        for delta in _tool_deltas(pieces)
    )


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, Mapping))
        return "".join(text for text in texts if isinstance(text, str))
    return ""


def _turns(request: ChatRequest, accent: Accent) -> list[dict[str, Any]]:
    tools = bool(request.tools) or any(message.tool_calls for message in request.messages)
    replay = accent.replay == "with_tools" and tools
    turns = [_turn(message, replay=replay) for message in request.messages]
    if request.output_schema is not None and not accent.json_schema:
        turns.insert(0, {"role": "system", "content": schema_instruction(request.output_schema)})
    return turns


def _turn(message: Message, *, replay: bool) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if replay and message.role == "assistant":
        # All or nothing over the history, and an absent one is a 400 on a cold cache (DeepSeek,
        # 2026-11); an empty one is taken.
        turn["reasoning_content"] = message.reasoning or ""
    turn.update(message.extra)
    return turn
