"""This file knows embeddings: which requests for them are taken, and what vectors come back."""

import base64
import math
import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import msgspec

from droveway.sandbox.asked import RefusedError, read_fields
from droveway.sandbox.reply import Reply, json_reply
from droveway.sandbox.tokens import tokenize

# OpenAI's bounds for text-embedding-3-small (2026-11).
DIMENSIONS: Final = 1536
INPUTS_MAX: Final = 2048
INPUT_TOKENS_MAX: Final = 8192
TOKENS_MAX: Final = 300_000
_TOKEN_NUMBER_MAX: Final = 2**31 - 1
_FORMATS: Final = (None, "float", "base64")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for embeddings that was found to be in order.

    Attributes:
        model: The model's name as asked for.
        inputs: What shall become vectors, each as the caller's text or token numbers.
        tokens: How many tokens all of them have.
        dimensions: Length of each vector.
        packed: Whether the vectors go out as base64 of little-endian 32-bit floats.
    """

    model: str
    inputs: Sequence[str | Sequence[int]]
    tokens: int
    dimensions: int
    packed: bool

    @property
    def text(self) -> str:
        """The first input, where it is text; scripts look into it."""
        return self.inputs[0] if isinstance(self.inputs[0], str) else ""


def read_wanted(body: bytes) -> Wanted:
    """Check a request for embeddings as a vendor would.

    Raises:
        RefusedError: 400, with what is wrong.
    """
    fields = read_fields(body)
    inputs = _inputs(fields.get("input"))
    sizes = [_size(each, f"input[{i}]") for i, each in enumerate(inputs)]
    if sum(sizes) > TOKENS_MAX:
        message = f"Requested {sum(sizes)} tokens, max {TOKENS_MAX} tokens per request."
        raise RefusedError(400, message, param="input")
    encoding = fields.get("encoding_format")
    if encoding not in _FORMATS:
        message = f"'encoding_format' is {encoding!r}; it must be 'float' or 'base64'."
        raise RefusedError(400, message, param="encoding_format")
    return Wanted(
        model=fields["model"],
        inputs=inputs,
        tokens=sum(sizes),
        dimensions=_dimensions(fields),
        packed=encoding == "base64",
    )


def chance_for(seed: int, model: str, *meant: str | Sequence[int]) -> random.Random:
    """Seed the chance of what is meant: the same inputs have the same vectors and the same pace."""
    told = msgspec.json.encode([seed, model, meant])
    return random.Random(int.from_bytes(blake2b(told, digest_size=8).digest()))


def embeddings_reply(wanted: Wanted, *, seed: int, wait_s: float) -> Reply:
    """Write the vectors as one JSON document.

    Args:
        wanted: The request.
        seed: The sandbox's seed.
        wait_s: Seconds until the answer.
    """
    data = []
    for index, meant in enumerate(wanted.inputs):
        vector = _vector(chance_for(seed, wanted.model, meant), wanted.dimensions)
        told = _told(vector, packed=wanted.packed)
        data.append({"object": "embedding", "index": index, "embedding": told})
    usage = {"prompt_tokens": wanted.tokens, "total_tokens": wanted.tokens}
    body = {"object": "list", "data": data, "model": wanted.model, "usage": usage}
    return json_reply(body, wait_s=wait_s)


def _vector(chance: random.Random, dimensions: int) -> bytes:
    """Draw a vector of length 1, as little-endian 32-bit floats.

    A shorter one is the beginning of the whole one, brought back to length 1: as OpenAI does
    (2026-11).
    """
    numbers = struct.unpack(f"<{DIMENSIONS}h", chance.randbytes(2 * DIMENSIONS))[:dimensions]
    length = math.hypot(*numbers) or 1.0
    return struct.pack(f"<{dimensions}f", *(number / length for number in numbers))


def _told(vector: bytes, *, packed: bool) -> str | Sequence[float]:
    if packed:
        return base64.b64encode(vector).decode()
    return struct.unpack(f"<{len(vector) // 4}f", vector)


def _inputs(value: object) -> Sequence[str | Sequence[int]]:
    """Bring the four forms of an input to one: a list of texts or of lists of token numbers."""
    if value is None:
        raise RefusedError(400, "Missing required parameter: 'input'.", param="input")
    if isinstance(value, str) or (isinstance(value, list) and _are_tokens(value)):
        return [value]
    if not isinstance(value, list) or not 0 < len(value) <= INPUTS_MAX:
        message = f"'input' must be text, tokens, or an array of 1 to {INPUTS_MAX} of them."
        raise RefusedError(400, message, param="input")
    texts = all(isinstance(each, str) for each in value)
    if not texts and not all(isinstance(each, list) and _are_tokens(each) for each in value):
        raise RefusedError(400, "'input' must be all texts or all token arrays.", param="input")
    return value


def _are_tokens(value: Sequence[Any]) -> bool:
    """Whether these are token numbers, at least one; `true` is not a number."""
    return bool(value) and all(
        type(each) is int and 0 <= each <= _TOKEN_NUMBER_MAX for each in value
    )


def _size(meant: str | Sequence[int], where: str) -> int:
    if not meant:
        raise RefusedError(400, f"'{where}' cannot be an empty string.", param="input")
    size = len(tokenize(meant)) if isinstance(meant, str) else len(meant)
    if size > INPUT_TOKENS_MAX:
        message = f"'{where}' has {size} tokens; the maximum is {INPUT_TOKENS_MAX}."
        raise RefusedError(400, message, param="input")
    return size


def _dimensions(fields: Mapping[str, Any]) -> int:
    value = fields.get("dimensions")
    if value is None:
        return DIMENSIONS
    if type(value) is not int or not 1 <= value <= DIMENSIONS:
        message = f"'dimensions' is {value!r}; it must be from 1 to {DIMENSIONS}."
        raise RefusedError(400, message, param="dimensions")
    return value
