"""This file knows how to make a value that fits a JSON schema, out of what a prompt says."""

import random
import re
from collections.abc import Mapping
from typing import Any, Final

from droveway.sandbox.words import topics

_DEPTH_MAX: Final = 6
_VALUES_MAX: Final = 500  # a recursive schema branches; from here on it is filled sparsely
_LENGTH_MAX: Final = 10_000
_NUMBER = re.compile(r"(?<![\w.])-?\d{1,15}(?:\.\d{1,6})?(?!\d)")
_QUOTED = re.compile(r"[\"“「']([^\"”」']{1,80})[\"”」']")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-zA-Z]+")
_FORMATS: Final = {
    "date": "2026-11-23",
    "date-time": "2026-11-23T12:00:00Z",
    "time": "12:00:00",
    "duration": "PT1H",
    "email": "drover@example.com",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
    "uri": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}


class SchemaError(ValueError):
    """A schema is not one that the sandbox can fill."""


def fitting(schema: Mapping[str, Any], text: str, chance: random.Random) -> Any:  # noqa: ANN401 JSON
    """Make a value that fits a JSON schema.

    Args:
        schema: As a caller sent it; it may be anything.
        text: Where numbers and words are taken from.
        chance: Decides where the text does not.

    Raises:
        SchemaError: The schema is malformed.
    """
    try:
        return _Filler(text, chance, schema).fill(schema)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise SchemaError(f"the schema is malformed: {error}") from error
    except RecursionError:
        raise SchemaError("the schema has no finite value") from None


class _Filler:
    """Fills schemas with the numbers and words of one text, in the order they stand there.

    Args:
        text: What the prompt says.
        chance: Decides where the text does not.
        root: The schema that `$ref` points into.
    """

    def __init__(self, text: str, chance: random.Random, root: Mapping[str, Any]) -> None:
        self._text = text
        self._chance = chance
        self._root = root
        self._made = 0
        self._numbers = _NUMBER.findall(text)
        self._words = _QUOTED.findall(text) + _NAME.findall(text) or topics(text)

    def fill(self, schema: object, *, name: str = "", depth: int = 0) -> Any:  # noqa: ANN401 JSON
        """Make a value that fits a schema; what a schema does not say is free."""
        if not isinstance(schema, Mapping):
            return self._word()
        self._made += 1
        if self._made > _VALUES_MAX:
            depth = max(depth, _DEPTH_MAX + 1)
        schema = self._resolve(schema)
        if "const" in schema or schema.get("enum"):
            return self._choice(schema.get("enum") or [schema["const"]])
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            # Deep down the last option ends a recursion: by custom it is null.
            option = options[-1 if depth > _DEPTH_MAX else 0]
            return self.fill(option, name=name, depth=depth + 1)
        return self._of_type(schema, name, depth)

    def _of_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:  # noqa: ANN401 JSON
        match _kind(schema, deep=depth > _DEPTH_MAX):
            case "object":
                value: Any = self._object(schema, depth)
            case "array":
                value = self._array(schema, name, depth)
            case "integer" | "number" as kind:
                value = self._number(schema, name, whole=kind == "integer")
            case "boolean":
                value = self._chance.random() < 0.5
            case "null":
                value = None
            case _:
                value = self._string(schema)
        return value

    def _resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow `$ref` inside the document and merge `allOf`."""
        merged = dict(schema)
        for _ in range(_DEPTH_MAX):
            if "$ref" in merged:
                target: Any = self._root
                for step in merged.pop("$ref").removeprefix("#").strip("/").split("/"):
                    target = target.get(step, {}) if step else target
                merged = {**target, **merged}
            for part in merged.pop("allOf", ()):
                own = merged.get("properties", {})
                part = self._resolve(part)  # noqa: PLW2901 the resolved part is the part
                merged = {**merged, **part, "properties": {**own, **part.get("properties", {})}}
            if "$ref" not in merged:
                break
        return merged

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        needed = schema.get("required", [])
        names = [n for n in properties if depth <= _DEPTH_MAX or n in needed]
        names += [n for n in needed if n not in properties]
        return {n: self.fill(properties.get(n, {}), name=n, depth=depth + 1) for n in names}

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        least, most = _length(schema, "minItems"), schema.get("maxItems")
        wish = 0 if depth > _DEPTH_MAX else 2
        count = max(least, wish if most is None else min(wish, most))
        tuples = schema.get("prefixItems", [])
        kinds = [*tuples, *([schema.get("items", {})] * max(0, count - len(tuples)))]
        return [self.fill(kind, name=name, depth=depth + 1) for kind in kinds]

    def _number(self, schema: Mapping[str, Any], name: str, *, whole: bool) -> int | float:
        said = re.search(rf"\b{re.escape(name)}\b\s*(?:is|=|:)?\s*({_NUMBER.pattern})", self._text)
        if said:
            value = float(said[1])
        else:
            value = float(self._numbers.pop(0)) if self._numbers else self._chance.randint(1, 100)
        step = schema.get("multipleOf") or (1 if whole else None)
        low, high = schema.get("minimum"), schema.get("maximum")
        margin = step or 0.5
        if isinstance(over := schema.get("exclusiveMinimum"), int | float):
            low = over + margin
        if isinstance(under := schema.get("exclusiveMaximum"), int | float):
            high = under - margin
        value = min(max(value, value if low is None else low), value if high is None else high)
        if step:
            value = value // step * step
            value = value + step if low is not None and value < low else value
        return int(value) if whole or value.is_integer() else value

    def _string(self, schema: Mapping[str, Any]) -> str:
        text: str = _FORMATS.get(schema.get("format", "")) or self._word()
        text += "." * (_length(schema, "minLength") - len(text))
        most: int | None = schema.get("maxLength")
        return text[:most]

    def _word(self) -> str:
        """The next word of the text; the last one is used again and again."""
        return self._words.pop(0) if len(self._words) > 1 else self._words[0]

    def _choice(self, values: list[Any]) -> Any:  # noqa: ANN401 JSON
        """The value that the text names, or any."""
        text = self._text.lower()
        named = [value for value in values if isinstance(value, str) and value.lower() in text]
        return named[0] if named else self._chance.choice(values)


def _length(schema: Mapping[str, Any], name: str) -> int:
    """The least length that is asked for."""
    value = schema.get(name, 0)
    if not isinstance(value, int) or value > _LENGTH_MAX:
        raise ValueError(f"{name} is not a number up to {_LENGTH_MAX}")
    return value


def _kind(schema: Mapping[str, Any], *, deep: bool) -> str:
    """The type to fill in; deep down, null where it is allowed."""
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return "null" if deep and "null" in kinds else str(kinds[0])
    if kinds is None:
        return "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kinds)
