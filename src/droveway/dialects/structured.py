"""This file knows how a JSON schema is asked for: as a response format, or in words."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from droveway.chat import ChatRequest
from droveway.dialects.accents import Accent

# One of these says what kind of value a schema takes; strict decoding wants it said.
_KINDS: Final = frozenset({"type", "anyOf", "$ref", "enum", "const"})
# What strict decoding refuses (OpenAI, guides/structured-outputs, 2026-11).
_NOT_STRICT: Final = frozenset(
    {"allOf", "oneOf", "not", "if", "patternProperties", "prefixItems", "dependentRequired"}
)


def response_format(request: ChatRequest, accent: Accent) -> dict[str, Any]:
    """Return the `response_format` of a request that has an output schema."""
    if not accent.json_schema:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {
            "name": request.output_name,
            "schema": request.output_schema,
            "strict": is_closed(request.output_schema),
        },
    }


def schema_instruction(schema: Mapping[str, Any]) -> str:
    """Say a schema in words, for a vendor that takes none."""
    return (
        "Answer with one JSON object and nothing else. It must fit this JSON schema: "
        + msgspec.json.encode(schema).decode()
    )


def is_closed(schema: object) -> bool:
    """Whether a schema is of the closed kind that strict decoding takes.

    Every value has a kind, every object requires all its fields and allows no others; anything
    else with `strict` is a 400.
    """
    if not isinstance(schema, Mapping) or not _KINDS & schema.keys() or _NOT_STRICT & schema.keys():
        return False
    kind, fields = schema.get("type"), schema.get("properties", {})
    if kind == "object" or "properties" in schema or (isinstance(kind, list) and "object" in kind):
        closed = schema.get("additionalProperties") is False
        if not closed or set(fields) != set(schema.get("required", ())):
            return False
    inner = [*fields.values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    return all(map(is_closed, inner)) and ("items" not in schema or is_closed(schema["items"]))
