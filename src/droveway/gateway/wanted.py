"""This file knows what may be asked of the admin API, in a query or a body; the rest is refused."""

from datetime import datetime
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from droveway.accounts.key import KeyTerms
from droveway.errors import BadRequestError

# Whole numbers; everything else in a query is text.
_COUNTS: Final = ("limit", "after")
_DIGITS_MAX: Final = 19

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Word = Annotated[str, msgspec.Meta(min_length=1)]
Wanted = TypeVar("Wanted", bound=msgspec.Struct)


class NewKey(KeyTerms, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /admin/v1/keys`."""

    name: str


class RequestsWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `GET /admin/v1/requests`."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 100
    since: Moment | None = None
    model: Word | None = None
    key: Word | None = None
    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None


class HoursWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of `GET /admin/v1/hours`."""

    since: Moment | None = None


def read_query(query: bytes, kind: type[Wanted]) -> Wanted:
    """Read a query string.

    Raises:
        BadRequestError: A parameter is not known, is there twice, or cannot be used.
    """
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    told: dict[str, Any] = dict(given)
    if len(told) < len(given):
        raise BadRequestError("the query has a parameter twice; send it once")
    for name in _COUNTS:
        word = told.get(name, "")
        if word.isascii() and word.isdecimal() and len(word) <= _DIGITS_MAX:
            told[name] = int(word)
    try:
        return msgspec.convert(told, kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"the query cannot be used: {error}; {_known(kind)}") from error


def read_json(body: bytes, kind: type[Wanted]) -> Wanted:
    """Read a body.

    Raises:
        BadRequestError: It is no JSON, a field is not known, or its value cannot be used.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the body cannot be used: {error}; {_known(kind)}") from error


def _known(kind: type[msgspec.Struct]) -> str:
    return f"known are {', '.join(kind.__struct_fields__)}"
