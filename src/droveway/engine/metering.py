"""This file knows what an attempt has produced: the answer so far, and its tokens."""

import math
from collections.abc import Iterable

from droveway.chat import (
    Answer,
    ChatEvent,
    ChatRequest,
    Finish,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)


class _Pieces:
    """A tool call that is still being written."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.arguments: list[str] = []


class Meter:
    """Collects the events of one attempt into an answer.

    Attributes:
        usage: The vendor's last count; a later one replaces an earlier one.
        finish: The vendor's finish marker, once seen.
    """

    __slots__ = ("_calls", "_current", "_reasoning", "_text", "finish", "usage")

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Pieces] = []
        self._current: dict[int, _Pieces] = {}
        self.usage: Usage | None = None
        self.finish: Finish | None = None

    def take(self, event: ChatEvent) -> None:
        """Add one event."""
        if isinstance(event, TextDelta):
            self._text.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, ToolCallDelta):
            self._take_tool_call(event)
        elif isinstance(event, UsageUpdate):
            self.usage = event.usage
        elif isinstance(event, Finished):
            self.finish = event.reason

    def answer(self, *, model: str | None, id: str | None) -> Answer:  # noqa: A002 - the field's name
        """Return what there is so far."""
        return Answer(
            text="".join(self._text),
            reasoning="".join(self._reasoning) or None,
            tool_calls=tuple(
                ToolCall(call.id or f"call_{place}", call.name or "", "".join(call.arguments))
                for place, call in enumerate(self._calls)
            ),
            finish_reason=self.finish,
            usage=self.usage,
            model=model,
            id=id,
        )

    def _take_tool_call(self, delta: ToolCallDelta) -> None:
        call = self._current.get(delta.index)
        # Some hosts reuse an index for the next call; a new id is a new call, never a merge.
        if call is None or (delta.id and call.id and delta.id != call.id):
            call = self._current[delta.index] = _Pieces()
            self._calls.append(call)
        call.id = call.id or delta.id
        call.name = call.name or delta.name
        call.arguments.append(delta.arguments)


def counted_usage(input_estimate: int, answer: Answer) -> Usage:
    """Estimate the tokens of an answer for which the vendor gave no count.

    Args:
        input_estimate: The input's tokens, by estimate.
        answer: What came back.

    Returns:
        A usage that says it was counted; all input as uncached.
    """
    reasoning = estimate_tokens(answer.reasoning or "")
    written = (answer.text, *(call.name + call.arguments for call in answer.tool_calls))
    return Usage(
        input=input_estimate,
        output=reasoning + sum(map(estimate_tokens, written)),
        reasoning=reasoning,
        source="counted",
    )


def estimate_input(request: ChatRequest) -> int:
    """Estimate the input tokens of a request: its texts, four a message, and its tools."""
    return (
        _sum(message.text for message in request.messages)
        + 4 * len(request.messages)
        + _sum(tool.description + str(tool.parameters) for tool in request.tools)
    )


def tokens_of(event: ChatEvent) -> int:
    """Estimate the output tokens of one event of a stream; one at least where it has any text."""
    if isinstance(event, TextDelta | ReasoningDelta):
        return estimate_tokens(event.text)
    return estimate_tokens(event.arguments) if isinstance(event, ToolCallDelta) else 0


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text; for pacing and for want of a vendor's count only.

    Four ASCII characters make a token, three other characters two (Chinese text takes 0.5 to
    0.7 a character in the vocabularies of 2026).
    """
    wide = 0 if text.isascii() else sum(character > "\x7f" for character in text)
    return math.ceil((len(text) - wide) / 4 + wide * 2 / 3)


def _sum(texts: Iterable[str]) -> int:
    return sum(map(estimate_tokens, texts))
