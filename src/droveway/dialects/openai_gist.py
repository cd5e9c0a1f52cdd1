"""This file knows what must be read of a whole answer whose bytes go through unchanged.

The text stays bytes: the corridor needs the outcome, the model and the tokens. Where the vendor
gave no count that can be used, the whole answer is read after all, because its text is counted.
"""

from typing import Any, Final

import msgspec

from droveway.chat import Answer
from droveway.dialects.openai_chat import BROKEN_OFF, finish_of, name_of, read_answer
from droveway.dialects.usage import read_usage


class _Choice(msgspec.Struct, gc=False):
    index: int | None = 0
    finish_reason: str | None = None


class _Gist(msgspec.Struct, gc=False):
    choices: list[_Choice]
    id: Any = None
    model: Any = None
    usage: Any = None
    error: Any = None


_GIST: Final[msgspec.json.Decoder[_Gist]] = msgspec.json.Decoder(_Gist)


def read_gist(body: bytes) -> Answer:
    """Read how a whole answer ended and what it used, without its text.

    Raises:
        ProtocolError: As for `read_answer`.
    """
    try:
        whole = _GIST.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return read_answer(body)
    reason = whole.choices[0].finish_reason if len(whole.choices) == 1 else None
    usage = read_usage(whole.usage)
    if whole.error or usage is None or not reason or reason in BROKEN_OFF:
        return read_answer(body)
    return Answer(
        finish_reason=finish_of(reason),
        usage=usage,
        model=name_of(whole.model),
        id=name_of(whole.id),
    )
