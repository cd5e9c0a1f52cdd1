"""This file knows how a conversation may be written: as text, as messages, as dicts."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from droveway.chat import Message, ToolCall
from droveway.errors import BadRequestError

Turns = str | Sequence[Message | Mapping[str, Any]]
_KNOWN: Final = frozenset(
    {"role", "content", "name", "tool_call_id", "tool_calls", "reasoning_content", "reasoning"}
)


def conversation_of(message: Turns, system: str | None) -> list[Message]:
    """Return the turns of a call: the system prompt in front, the whole history behind it.

    Args:
        message: A user's message, or a conversation of `Message`s or of dicts as the OpenAI SDK
            takes them.
        system: The system prompt; it takes the place of one that stands in front.

    Raises:
        BadRequestError: There is nothing to send, or a turn cannot be read.
    """
    turns = _turns(message)
    if system is None:
        return turns
    if not isinstance(system, str):
        raise BadRequestError(f"a system prompt is text, not {type(system).__name__}")
    rest = turns[1:] if turns[0].role in {"system", "developer"} else turns
    return [Message(role="system", content=system), *rest]


def _turns(message: Turns) -> list[Message]:
    if isinstance(message, str):
        return [Message(role="user", content=message)]
    if not isinstance(message, Sequence):
        raise BadRequestError(
            f"a message is text or a list of messages, not {type(message).__name__}"
        )
    if not message:
        raise BadRequestError("there is no message to send; give at least one")
    turns: list[Any] = list(message)
    return [_turn(place, each) for place, each in enumerate(turns, 1)]


def _turn(place: int, turn: Message | Mapping[str, Any]) -> Message:
    if isinstance(turn, Message):
        return turn
    if not isinstance(turn, Mapping):
        raise BadRequestError(
            f"message {place} is neither a Message nor a dict but {type(turn).__name__}"
        )
    known = {name: turn[name] for name in _KNOWN & turn.keys()}
    reasoning = known.pop("reasoning_content", None) or known.pop("reasoning", None)
    known.pop("reasoning", None)
    calls = known.pop("tool_calls", None) or ()
    try:
        return msgspec.convert(
            {
                **known,
                "reasoning": reasoning,
                "tool_calls": [_tool_call(call) for call in calls],
                "extra": {name: turn[name] for name in turn if name not in _KNOWN},
            },
            Message,
        )
    except (msgspec.ValidationError, TypeError, KeyError) as error:
        raise BadRequestError(f"message {place} cannot be read: {error}") from error


def _tool_call(call: ToolCall | Mapping[str, Any]) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    function = call["function"]
    return ToolCall(call["id"], function["name"], function["arguments"])
