"""This file knows the nouns of a conversation: what is asked, what happens, what is answered.

They are the hinge between dialects: a vendor's dialect writes a `ChatRequest` as bytes and reads
bytes as `ChatEvent`s and an `Answer`. Fields that we do not know travel in `extra` both ways.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant", "tool"]
Finish = Literal["stop", "length", "tool_calls", "content_filter", "other"]
UsageSource = Literal["provider", "counted", "bound"]
# Content as a vendor takes it: text, or a list of parts such as {"type": "image_url", …}.
Content = str | list[dict[str, Any]] | None


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model wants made.

    Attributes:
        id: The model's name for this call; the result must carry it back.
        name: Name of the tool.
        arguments: JSON text as the model wrote it; it may be invalid.
    """

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: Text, content parts, or None for a turn that only calls tools.
        tool_calls: Calls of an assistant's turn.
        tool_call_id: Which call a tool's turn answers.
        name: Name of the speaker, where a vendor takes one.
        reasoning: The model's reasoning, kept apart from the answer; replayed to vendors that
            need it back in a tool loop.
        extra: Fields we do not know, passed on as they are.
    """

    role: Role
    content: Content = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None
    extra: Mapping[str, Any] = {}

    @property
    def text(self) -> str:
        """The text of the content; of a list of parts, their texts in order."""
        return content_text(self.content)


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function the model may call: its name, what it does, JSON schema of its parameters."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What one call asks for, in no vendor's dialect.

    Attributes:
        model: A plain name, `provider/model`, or an alias of the settings.
        messages: The conversation, oldest first.
        stream: Whether the answer is wanted piece by piece.
        temperature: Passed on when given; never invented.
        max_tokens: The caller's own cap of output tokens.
        tools: Functions that the model may call.
        tool_choice: "auto", "none", "required" or a vendor's object.
        output_schema: JSON schema the answer must fit.
        output_name: Name of that schema.
        reasoning_effort: "none", "minimal", "low", "medium", "high", "xhigh" or "max"; None
            leaves it to the vendor.
        extra: Further fields of the request, passed on as they are.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    temperature: float | None = None
    max_tokens: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None
    output_name: str = "answer"
    reasoning_effort: str | None = None
    extra: Mapping[str, Any] = {}


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one answer, each counted in exactly one of the first four classes.

    Attributes:
        input: Input tokens that were in no cache.
        cached_read: Input tokens read from the vendor's prompt cache; not in `input`.
        cache_write: Input tokens written to it at a surcharge; not in `input`.
        output: Output tokens, reasoning among them.
        reasoning: How many of `output` were reasoning.
        source: provider: the vendor said so; counted: estimated from the text; bound: an upper
            bound, when nothing better is known.
    """

    input: int = 0
    cached_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    source: UsageSource = "provider"

    @property
    def input_total(self) -> int:
        """All input tokens, cached or not."""
        return self.input + self.cached_read + self.cache_write

    def __add__(self, other: "Usage") -> "Usage":
        """Sum two usages; the sum is only as good as the weaker source."""
        rank: tuple[UsageSource, ...] = ("provider", "counted", "bound")
        return Usage(
            input=self.input + other.input,
            cached_read=self.cached_read + other.cached_read,
            cache_write=self.cache_write + other.cache_write,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
            source=max(self.source, other.source, key=rank.index),
        )


NO_USAGE: Final = Usage()


class TextDelta(msgspec.Struct, frozen=True, gc=False, tag="text"):
    """A piece of the answer's text."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False, tag="reasoning"):
    """A piece of the model's reasoning; never part of the answer."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False, tag="tool_call"):
    """A piece of a tool call; `id` and `name` come with its first piece."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class UsageUpdate(msgspec.Struct, frozen=True, tag="usage"):
    """The vendor's count so far; a later one replaces an earlier one."""

    usage: Usage


class Finished(msgspec.Struct, frozen=True, gc=False, tag="finished"):
    """The vendor's finish marker."""

    reason: Finish


ChatEvent = TextDelta | ReasoningDelta | ToolCallDelta | UsageUpdate | Finished


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, whole or (in a truncation error) as far as it came.

    Attributes:
        text: The answer.
        reasoning: The model's reasoning, or None.
        tool_calls: Calls the model wants made.
        finish_reason: Why the model stopped; None only in a partial answer.
        usage: Tokens; None when the vendor gave none and nothing was counted yet.
        model: The model that the vendor says has answered.
        id: The vendor's id of the answer.
        extra: Further fields of the vendor's message.
    """

    text: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: Finish | None = None
    usage: Usage | None = None
    model: str | None = None
    id: str | None = None
    extra: Mapping[str, Any] = {}

    def as_message(self) -> Message:
        """The answer as a turn of the conversation that follows it."""
        return Message(
            role="assistant",
            content=self.text or (None if self.tool_calls else ""),
            tool_calls=self.tool_calls,
            reasoning=self.reasoning,
        )


def content_text(content: Content) -> str:
    """Return the text of a content; list-shaped content counts by its text parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
