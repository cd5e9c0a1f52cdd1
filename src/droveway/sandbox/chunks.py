"""This file knows how an answer looks in OpenAI's chat completions, whole or as a stream."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from droveway.sandbox.answer import Said
from droveway.sandbox.profile import Profile
from droveway.sandbox.reply import Piece, PieceKind, Reply, json_reply

_encode = msgspec.json.Encoder().encode
_STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
)


@dataclass(frozen=True, slots=True)
class Label:
    """What every chunk of an answer carries: its id, its moment in Unix seconds, its model."""

    id: str
    created: int
    model: str


def usage_of(said: Said, prompt: int, cached: int) -> dict[str, Any]:
    """Write the usage as DeepSeek does: OpenAI's fields, and its own two of the cache."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said.size,
        "total_tokens": prompt + said.size,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": len(said.reasoning)},
        "prompt_cache_hit_tokens": cached,
        "prompt_cache_miss_tokens": prompt - cached,
    }


def whole_reply(label: Label, said: Said, usage: dict[str, Any], *, wait_s: float) -> Reply:
    """Write an answer as one JSON document."""
    message: dict[str, Any] = {"role": "assistant"}
    message["content"] = None if said.calls else "".join(said.content)
    if said.reasoning:
        message["reasoning_content"] = "".join(said.reasoning)
    if said.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": "".join(call.arguments)},
            }
            for call in said.calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish}
    body = {
        "id": label.id,
        "object": "chat.completion",
        "created": label.created,
        "model": label.model,
        "system_fingerprint": "fp_sandbox",
        "choices": [choice],
        "usage": usage,
    }
    return json_reply(body, wait_s=wait_s)


def stream_reply(
    label: Label,
    said: Said,
    usage: dict[str, Any] | None,
    *,
    chance: random.Random,
    profile: Profile,
) -> Reply:
    """Write an answer as server-sent events.

    Args:
        label: What each chunk carries.
        said: The answer.
        usage: The usage, if the caller asked for it.
        chance: Draws the pace.
        profile: The pace.
    """
    pieces = tuple(_Scribe(label, usage, profile=profile, chance=chance).pieces(said))
    return Reply(pieces, headers=_STREAM_HEADERS, framing="chunked")


class _Scribe:
    """Writes the chunks of one stream; the unchanging parts are encoded once."""

    def __init__(
        self,
        label: Label,
        usage: dict[str, Any] | None,
        *,
        profile: Profile,
        chance: random.Random,
    ) -> None:
        self._usage = usage
        self._profile = profile
        self._chance = chance
        fields = {
            "id": label.id,
            "object": "chat.completion.chunk",
            "created": label.created,
            "model": label.model,
            "system_fingerprint": "fp_sandbox",
        }
        self._head = b"data: " + _encode(fields)[:-1] + b',"choices":'
        # As OpenAI does: every chunk says null where the last one says the usage.
        self._end = b"}\n\n" if usage is None else b',"usage":null}\n\n'

    def pieces(self, said: Said) -> Iterator[Piece]:
        """All events of a stream, in order."""
        first_s = self._profile.first_wait_s(self._chance)
        yield self._chunk("role", b'{"role":"assistant","content":""}', wait_s=first_s)
        yield from self._texts("reasoning", b'{"reasoning_content":', said.reasoning)
        yield from self._texts("text", b'{"content":', said.content)
        for index, call in enumerate(said.calls):
            opening = {"name": call.name, "arguments": ""}
            delta = {"index": index, "id": call.id, "type": "function", "function": opening}
            yield self._chunk("tool", _encode({"tool_calls": [delta]}), tokens=1)
            before = b'{"tool_calls":[{"index":%d,"function":{"arguments":' % index
            # Arguments come in a few pieces, never in one, so that clients must join them.
            size = max(1, min(8, len(call.arguments) // 2))
            for text, tokens in _grouped(call.arguments, size):
                yield self._chunk("tool", before + _encode(text) + b"}}]}", tokens=tokens)
        yield self._chunk("finish", b"{}", finish=_encode(said.finish))
        if self._usage is not None:
            data = self._head + b'[],"usage":' + _encode(self._usage) + b"}\n\n"
            yield Piece(data, "usage")
        yield Piece(b"data: [DONE]\n\n", "done")

    def _texts(self, kind: PieceKind, before: bytes, said: tuple[str, ...]) -> Iterator[Piece]:
        for text, tokens in _grouped(said, self._profile.tokens_per_chunk):
            yield self._chunk(kind, before + _encode(text) + b"}", tokens=tokens)

    def _chunk(
        self,
        kind: PieceKind,
        delta: bytes,
        *,
        finish: bytes = b"null",
        tokens: int = 0,
        wait_s: float | None = None,
    ) -> Piece:
        choice = b'[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}]' % (delta, finish)
        if wait_s is None:
            wait_s = self._profile.chunk_wait_s(self._chance, tokens) if tokens else 0.0
        return Piece(self._head + choice + self._end, kind, wait_s=wait_s, tokens=tokens)


def _grouped(tokens: tuple[str, ...], size: int) -> Iterator[tuple[str, int]]:
    """Join tokens in groups; each with its count."""
    rest = iter(tokens)
    while group := tuple(islice(rest, size)):
        yield "".join(group), len(group)
