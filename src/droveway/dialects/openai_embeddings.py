"""This file knows how embeddings are asked for and what must be read of their answer."""

from typing import Any, Final

import msgspec

from droveway.chat import Answer, Usage
from droveway.dialects.openai_chat import name_of
from droveway.dialects.usage import read_usage
from droveway.errors import ProtocolError

PATH: Final = "/embeddings"


class _Vectors(msgspec.Struct, gc=False):
    # The vectors themselves are skipped: nobody here needs them, and they are long.
    data: list[msgspec.Raw]
    model: Any = None
    usage: dict[str, Any] | None = None
    error: Any = None


_VECTORS: Final[msgspec.json.Decoder[_Vectors]] = msgspec.json.Decoder(_Vectors)


def read_embeddings(body: bytes) -> Answer:
    """Read how many tokens an answer with embeddings used; the vectors stay bytes.

    Returns:
        An answer without text; its usage is None where the vendor gave no count.

    Raises:
        ProtocolError: It is no list of embeddings.
    """
    try:
        found = _VECTORS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(
            f"the provider answered 200 with no list of embeddings; is base_url right? ({error})"
        ) from error
    if found.error or not found.data:
        raise ProtocolError("the provider answered 200 without an embedding in it")
    return Answer(finish_reason="stop", usage=_usage(found.usage), model=name_of(found.model))


def _usage(raw: dict[str, Any] | None) -> Usage | None:
    """Read the count; embeddings have no output, so its field is left out by vendors."""
    return None if raw is None else read_usage({"completion_tokens": 0, **raw})
