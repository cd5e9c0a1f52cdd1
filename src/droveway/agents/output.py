"""This file knows how an answer becomes an object of the type that was asked for."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final, Generic, Protocol, runtime_checkable

import msgspec

from droveway.agents.answer_type import T
from droveway.errors import BadRequestError, OutputValidationError

_FENCE: Final = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


@runtime_checkable
class SelfDescribing(Protocol):
    """A type that knows its own schema and reads its own JSON, as pydantic's models do."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema."""

    @classmethod
    def model_validate_json(cls, json_data: str) -> Any:  # noqa: ANN401 - an object of that class
        """Read an object from JSON."""


class Output(Generic[T]):
    """How the answers of an agent are read.

    Args:
        kind: str for the text itself, else a dataclass, a msgspec struct or a pydantic model.

    Attributes:
        schema: JSON schema the answer must fit; None for plain text.
        name: Name of that schema.

    Raises:
        BadRequestError: There is no schema for such a type.
    """

    def __init__(self, kind: type[T]) -> None:
        if not isinstance(kind, type):
            raise BadRequestError(f"output_type is a type, not {kind!r}")
        self._kind = kind
        self.name = kind.__name__
        self.schema: Mapping[str, Any] | None = None
        if kind is not str:
            self.schema = _closed(_schema_of(kind))

    def read(self, text: str) -> T:
        """Read an answer; a code fence around the JSON is taken off.

        Raises:
            OutputValidationError: It does not fit; the message says where.
        """
        if self.schema is None:
            return text  # type: ignore[return-value] # T is str where there is no schema
        fenced = _FENCE.match(text)
        plain = fenced[1] if fenced else text
        try:
            if isinstance(self._kind, SelfDescribing):
                read: T = self._kind.model_validate_json(plain)
                return read
            return msgspec.json.decode(plain, type=self._kind)
        except (ValueError, RecursionError) as error:  # msgspec's and pydantic's are ValueErrors
            raise OutputValidationError(
                f"the answer does not fit {self.name}: {' '.join(str(error).split())[:300]}"
            ) from error


def _schema_of(kind: type[Any]) -> dict[str, Any]:
    if isinstance(kind, SelfDescribing):
        return kind.model_json_schema()
    if not (dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)):
        raise BadRequestError(
            f"output_type {kind!r} has no schema; use a dataclass, a msgspec struct, or a "
            "pydantic model"
        )
    schema = msgspec.json.schema(kind)
    name = schema.pop("$ref").rpartition("/")[2]
    outer: dict[str, Any] = schema["$defs"].pop(name)
    return {**outer, **({"$defs": schema["$defs"]} if schema["$defs"] else {})}


def _closed(schema: Any) -> Any:  # noqa: ANN401 - JSON of any shape, walked
    """Say of every object in a schema that it has no further fields."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed
