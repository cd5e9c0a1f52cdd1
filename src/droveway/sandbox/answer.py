"""This file knows what the sandbox answers: text, reasoning, tool calls, JSON, and its count."""

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import msgspec

from droveway.sandbox.asked import Asked
from droveway.sandbox.profile import Profile
from droveway.sandbox.shapes import fitting
from droveway.sandbox.tokens import content_text, tokenize
from droveway.sandbox.words import is_chinese, speak, think, topics

_ANY_OBJECT: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"topic": {"type": "string"}, "answer": {"type": "string"}},
}


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, its arguments in tokens."""

    id: str
    name: str
    arguments: tuple[str, ...]

    @property
    def size(self) -> int:
        """Tokens that it costs: one for the name."""
        return 1 + len(self.arguments)


@dataclass(frozen=True, slots=True)
class Said:
    """What the model says to one request, in tokens.

    Attributes:
        reasoning: What it thinks first.
        content: What it answers.
        calls: Tools it wants called.
        finish: The finish reason.
    """

    reasoning: tuple[str, ...]
    content: tuple[str, ...]
    calls: tuple[Call, ...]
    finish: str

    @property
    def size(self) -> int:
        """Completion tokens, reasoning among them."""
        return len(self.reasoning) + len(self.content) + sum(call.size for call in self.calls)


def chance_of(asked: Asked, seed: int) -> random.Random:
    """Seed the chance of a request by what it means, so that a re-encoded one is answered alike."""
    told = msgspec.json.encode([seed, asked.model, asked.messages, asked.tools], order="sorted")
    return random.Random(int.from_bytes(blake2b(told, digest_size=8).digest()))


def compose(
    asked: Asked, chance: random.Random, profile: Profile, *, text: str | None = None
) -> Said:
    """Decide what is answered.

    Args:
        asked: The request.
        chance: From `chance_of`.
        profile: Lengths.
        text: The answer, if a script sets it.

    Returns:
        The answer, within the request's cap: reasoning is said first, then content, then calls.

    Raises:
        SchemaError: A schema of the request is malformed.
    """
    question = asked.question
    reasoning: list[str] = []
    if asked.thinks:
        reasoning = _until(think(question, chance), profile.reasoning_length(chance))
    calls = [] if text is not None else _calls(asked, chance)
    content: list[str] = []
    if text is not None:
        content = tokenize(text)
    elif not calls:
        content = tokenize(_content(asked, chance, profile))
    return _within_cap(asked.cap, Said(tuple(reasoning), tuple(content), tuple(calls), "stop"))


def _content(asked: Asked, chance: random.Random, profile: Profile) -> str:
    schema = _wanted_schema(asked)
    if schema is not None:
        value = fitting(schema, asked.question, chance)
        return msgspec.json.encode(value).decode()
    length = profile.answer_length(chance)
    quoted = _quote_results(asked)
    tokens = _until(speak(asked.question, chance), max(1, length - len(tokenize(quoted))))
    return quoted + "".join(tokens)


def _quote_results(asked: Asked) -> str:
    """Quote the tool results that stand at the end of the conversation."""
    results = []
    for message in reversed(asked.messages):
        if message["role"] != "tool":
            break
        results.append(content_text(message.get("content")))
    if not results:
        return ""
    joined = "; ".join(reversed(results))
    return (
        f"工具的结果是:{joined}。" if is_chinese(asked.question) else f"The tools say: {joined}. "
    )


def _wanted_schema(asked: Asked) -> Mapping[str, Any] | None:
    response_format = asked.fields.get("response_format")
    if not isinstance(response_format, dict):
        return None
    if response_format.get("type") == "json_schema":
        told = response_format.get("json_schema")
        schema = told.get("schema") if isinstance(told, dict) else None
        return schema if isinstance(schema, dict) else _ANY_OBJECT
    if response_format.get("type") == "json_object":
        # Where a vendor takes no schema, it stands in the messages, and a good model follows it.
        texts = (content_text(message.get("content")) for message in asked.messages)
        return next(filter(None, map(_schema_in, texts)), _ANY_OBJECT)
    return None


def _schema_in(text: str) -> Mapping[str, Any] | None:
    start = text.find("{")
    while start >= 0:
        try:
            found, _ = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and isinstance(found.get("properties"), dict):
            return found
        start = text.find("{", start + 1)
    return None


def _calls(asked: Asked, chance: random.Random) -> list[Call]:
    """Call the tools that the last user message names, or the one that must be called."""
    choice = asked.fields.get("tool_choice")
    if not asked.tools or asked.messages[-1]["role"] != "user" or choice == "none":
        return []
    text = asked.question
    named = _named_tools(asked, text)
    if isinstance(choice, dict):
        wanted = choice.get("function")
        name = wanted.get("name") if isinstance(wanted, dict) else None
        named = [(tool, text) for tool in asked.tools if tool["name"] == name]
    elif not named and choice == "required":
        named = [(asked.tools[0], text)]
    if asked.fields.get("parallel_tool_calls") is False:
        named = named[:1]
    calls = []
    for tool, told in named:
        schema = tool.get("parameters") or {"type": "object"}
        arguments = msgspec.json.encode(fitting(schema, told, chance)).decode()
        call_id = f"call_{chance.getrandbits(64):016x}"
        calls.append(Call(call_id, tool["name"], tuple(tokenize(arguments))))
    return calls


def _named_tools(asked: Asked, text: str) -> list[tuple[Mapping[str, Any], str]]:
    """Find the tools that a text names, in its order, each with the words that follow its name."""
    found = []
    for tool in asked.tools:
        spoken = re.escape(tool["name"]).replace("_", "[_ ]")
        match = re.search(rf"(?<![A-Za-z0-9_]){spoken}(?![A-Za-z0-9_])", text, re.IGNORECASE)
        if match:
            found.append((match.start(), match.end(), tool))
    if not found:
        return []
    found.sort(key=lambda place: place[0])
    ends = [start for start, _, _ in found[1:]] + [len(text)]
    told = [(tool, text[end:until]) for (_, end, tool), until in zip(found, ends, strict=True)]
    # "Is it hot in Rome? Use weather": the values stand before the name.
    return [
        (tool, after if topics(after) != ["this"] or re.search(r"\d", after) else text)
        for tool, after in told
    ]


def _until(sentences: Iterator[str], length: int) -> list[str]:
    """Take whole sentences until the length is reached."""
    tokens: list[str] = []
    while len(tokens) < length:
        tokens += tokenize(next(sentences))
    return tokens


def _within_cap(cap: int | None, said: Said) -> Said:
    """Cut an answer to the caller's cap, and say why it ends."""
    if cap is None or said.size <= cap:
        finish = "tool_calls" if said.calls else "stop"
        return Said(said.reasoning, said.content, said.calls, finish)
    reasoning = said.reasoning[:cap]
    content = said.content[: cap - len(reasoning)]
    left = cap - len(reasoning) - len(content)
    calls = []
    for call in said.calls:
        if left < 2:
            break
        calls.append(Call(call.id, call.name, call.arguments[: left - 1]))
        left -= calls[-1].size
    return Said(reasoning, content, tuple(calls), "length")
