"""This file knows which chat requests a vendor takes, and how it refuses the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from droveway.sandbox.tokens import content_text

_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_CAPS: Final = ("max_tokens", "max_completion_tokens")


class RefusedError(Exception):
    """The request is refused with this status, in OpenAI's envelope."""

    def __init__(self, status: int, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request that was found to be in order.

    Attributes:
        fields: The whole request.
        model: The model's name as asked for.
        messages: The conversation.
        stream: Whether a stream is wanted.
        include_usage: Whether the stream shall end with a usage chunk.
        cap: The most completion tokens, or None.
        tools: Function tools, each `{"name": …, "parameters": …}`.
    """

    fields: Mapping[str, Any]
    model: str
    messages: Sequence[Mapping[str, Any]]
    stream: bool
    include_usage: bool
    cap: int | None
    tools: Sequence[Mapping[str, Any]]

    @property
    def is_deepseek(self) -> bool:
        """Whether the model has DeepSeek's manners."""
        return self.model.rpartition("/")[2].startswith("deepseek-")

    @property
    def thinks(self) -> bool:
        """Whether the model reasons first; `deepseek-chat` is the name that never did."""
        thinking = self.fields.get("thinking") or {}
        off = isinstance(thinking, dict) and thinking.get("type") == "disabled"
        return self.is_deepseek and not off and not self.model.endswith("deepseek-chat")

    @property
    def question(self) -> str:
        """The text of the last user message."""
        users = (m for m in reversed(self.messages) if m["role"] == "user")
        return next((content_text(m.get("content")) for m in users), "")


def read_request(body: bytes) -> Asked:
    """Check a chat request as a vendor would.

    Raises:
        RefusedError: 400, with what is wrong.
    """
    fields = read_fields(body)
    messages = _messages(fields.get("messages"))
    stream = _flag(fields, "stream")
    asked = Asked(
        fields=fields,
        model=fields["model"],
        messages=messages,
        stream=stream,
        include_usage=_include_usage(fields.get("stream_options"), stream=stream),
        cap=_cap(fields),
        tools=_tools(fields.get("tools")),
    )
    _check_numbers(fields)
    _check_tool_turns(messages)
    if asked.thinks:
        _check_deepseek_thinking(asked)
    return asked


def read_fields(body: bytes) -> dict[str, Any]:
    """Read the fields of any request; a model is among them.

    Raises:
        RefusedError: 400, with what is wrong.
    """
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedError(
            400, f"We could not parse the JSON body of your request: {error}"
        ) from None
    if not isinstance(fields, dict):
        raise RefusedError(400, "The JSON body of your request must be an object.")
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise RefusedError(400, "you must provide a model parameter", param="model")
    return fields


def _messages(value: object) -> Sequence[Mapping[str, Any]]:
    if value is None:
        raise RefusedError(400, "Missing required parameter: 'messages'.", param="messages")
    if not isinstance(value, list) or not value:
        raise RefusedError(400, "'messages' must be a non-empty array.", param="messages")
    for i, message in enumerate(value):
        where = f"messages[{i}]"
        if not isinstance(message, dict):
            raise RefusedError(400, f"'{where}' must be an object.", param=where)
        if message.get("role") not in _ROLES:
            said = message.get("role")
            raise RefusedError(400, f"'{where}.role' is {said!r}: not a role.", param=where)
        content = message.get("content")
        in_parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
        if not (content is None or isinstance(content, str) or in_parts):
            raise RefusedError(400, f"'{where}.content' must be text or parts.", param=where)
        if content is None and message["role"] != "assistant":
            raise RefusedError(400, f"'{where}.content' is missing.", param=where)
        calls = message.get("tool_calls")
        if calls is not None and not _are_calls(calls):
            raise RefusedError(400, f"'{where}.tool_calls' must be calls with an id.", param=where)
    return value


def _are_calls(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(call, dict) and isinstance(call.get("id"), str) for call in value
    )


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise RefusedError(400, f"'{name}' must be a boolean.", param=name)


def _include_usage(options: object, *, stream: bool) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict):
        raise RefusedError(400, "'stream_options' must be an object.", param="stream_options")
    if not stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise RefusedError(400, message, param="stream_options")
    return _flag(options, "include_usage")


def _cap(fields: Mapping[str, Any]) -> int | None:
    """Return the smaller of the two caps that are given."""
    caps = []
    for name in _CAPS:
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise RefusedError(400, f"'{name}' must be an integer.", param=name)
        if value < 1:
            raise RefusedError(400, f"'{name}' is {value}; it must be at least 1.", param=name)
        caps.append(value)
    return min(caps, default=None)


def _tools(value: object) -> Sequence[Mapping[str, Any]]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RefusedError(400, "'tools' must be an array.", param="tools")
    functions = []
    for i, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RefusedError(400, f"'tools[{i}].function.name' is missing.", param="tools")
        functions.append(function)
    return functions


def _check_numbers(fields: Mapping[str, Any]) -> None:
    temperature = fields.get("temperature")
    is_number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if temperature is not None and not (is_number and 0 <= temperature <= 2):
        raise RefusedError(400, "'temperature' must be from 0 to 2.", param="temperature")
    if fields.get("n") not in (None, 1):
        raise RefusedError(400, "'n' must be 1: one answer per request.", param="n")


def _check_tool_turns(messages: Sequence[Mapping[str, Any]]) -> None:
    """Each call of an assistant is answered before the talk goes on, and nothing else is."""
    open_calls: set[Any] = set()
    for message in messages:
        if message["role"] == "tool":
            answered = message.get("tool_call_id")
            if not isinstance(answered, str) or answered not in open_calls:
                text = (
                    "a message with role 'tool' must answer a preceding message with 'tool_calls'"
                )
                raise RefusedError(400, f"Invalid parameter: {text}.", param="messages")
            open_calls.remove(answered)
            continue
        if open_calls:
            break
        open_calls = {call.get("id") for call in message.get("tool_calls") or ()}
    if open_calls:
        missing = ", ".join(sorted(map(str, open_calls)))
        text = "'tool_calls' must be followed by tool messages for each 'tool_call_id'"
        raise RefusedError(400, f"{text}; without an answer: {missing}", param="messages")


def _check_deepseek_thinking(asked: Asked) -> None:
    """Two refusals of DeepSeek's thinking mode (seen 2026-06 to 2026-11)."""
    choice = asked.fields.get("tool_choice")
    if choice == "required" or isinstance(choice, dict):
        raise RefusedError(400, "Thinking mode does not support this tool_choice")
    for message in asked.messages:
        # An empty string is accepted, a missing one is not.
        if message.get("tool_calls") and not isinstance(message.get("reasoning_content"), str):
            text = "The `reasoning_content` in the thinking mode must be passed back to the API."
            raise RefusedError(400, text)
