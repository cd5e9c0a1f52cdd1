"""This file knows how what we take and tell is written as JSON Schema, for the description."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, get_args

import msgspec

from droveway.accounts import Key
from droveway.chat import Usage
from droveway.engine.records import AttemptEntry
from droveway.engine.written import Written
from droveway.errors import DrovewayError
from droveway.gateway.account_telling import (
    AccountForecast,
    AccountState,
    BudgetState,
    StatementLine,
)
from droveway.gateway.money_telling import (
    BookedRefund,
    BookedTopUp,
    GivenCredit,
    IssuedVoucher,
    RedeemedVoucher,
    VoucherState,
)
from droveway.gateway.reloading import Reloaded
from droveway.gateway.telling import HourSum, LineState, ProviderState
from droveway.gateway.wanted import (
    LINE,
    BudgetNamed,
    NewAccount,
    NewBudget,
    NewCredit,
    NewKey,
    NewRefund,
    NewTopUp,
    NewVouchers,
    Redemption,
)

Schema = dict[str, Any]

REF: Final = "#/components/schemas/"
TEXT: Final[Schema] = {"type": "string"}
TOKENS_MAX: Final = 2**31
_CAP: Final[Schema] = {"type": ["integer", "null"], "minimum": 1, "maximum": TOKENS_MAX}
_DECIMAL: Final[Schema] = {
    "type": ["string", "null"],
    "pattern": r"^-?[0-9]+(\.[0-9]+)?$",
    "description": "A decimal string; null where it is not known, never 0 for that.",
}
_CURRENCY: Final[Schema] = {"type": ["string", "null"], "pattern": "^[A-Z]{3}$"}
_TOLD: Final = (
    Key, Usage, HourSum, LineState, ProviderState, Reloaded, AccountState, AccountForecast,
    StatementLine, BookedTopUp, BookedRefund, GivenCredit, VoucherState, IssuedVoucher,
    RedeemedVoucher, BudgetState, BudgetNamed,
)  # fmt: skip
_WORTH: Final = {"amount": "25.00", "currency": "USD"}
# What is taken in a body, with an example.
_TAKEN: Final[Mapping[type[msgspec.Struct], Schema]] = {
    NewAccount: {"name": "umbrella"},
    NewTopUp: {**_WORTH, "reference": "wire-2026-118"},
    NewRefund: {"reference": "refund-2026-4", "amount": "0.50", "currency": "USD"},
    NewCredit: {**_WORTH, "reference": "welcome-acme", "days": 30},
    NewVouchers: {**_WORTH, "count": 3, "credit_days": 90},
    Redemption: {"code": "23456-789AB-CDEFG-HJKMN"},
    NewBudget: {**_WORTH, "subject": "tag:team=blue", "period": "day"},
}
_MONEYED: Final[Mapping[str, type[msgspec.Struct]]] = {"Request": Written, "Attempt": AttemptEntry}
_ATTRIBUTE: Final = re.compile(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", re.MULTILINE)


def ref(name: str) -> Schema:
    """Point at a schema of the description."""
    return {"$ref": REF + name}


def record(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    """Write an object with these fields and no others.

    Args:
        required: Fields that are always there.
        optional: Fields that may be.
    """
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
        "additionalProperties": False,
    }


def page(name: str, **further: Schema) -> Schema:
    """Write an answer that lists things."""
    return record({"data": {"type": "array", "items": ref(name)}, **further})


def component_schemas() -> dict[str, Schema]:
    """Return every schema that the description names."""
    told = {kind.__name__: _told(kind) for kind in _TOLD}
    taken = {kind.__name__: _taken(kind, example) for kind, example in _TAKEN.items()}
    moneyed = {name: _moneyed(kind) for name, kind in _MONEYED.items()}
    request = moneyed["Request"]
    request["properties"]["each_attempt"] = {"type": "array", "items": ref("Attempt")}
    request["properties"]["bodies"] = record({"request": TEXT, "answer": TEXT})
    return {
        **told,
        **moneyed,
        **taken,
        "NewKey": _new_key(),
        "KeyWithSecret": _with_secret(told["Key"]),
        "Error": _error(),
        "Model": _model(),
        "ChatRequest": _chat_request(),
        "ChatAnswer": _chat_answer(),
        "EmbeddingsRequest": _embeddings_request(),
        "EmbeddingsAnswer": _embeddings_answer(),
    }


def _told(kind: type[msgspec.Struct]) -> Schema:
    """Write a struct as it is told: with all its fields, moments as such, and what they mean."""
    (_, schemas) = msgspec.json.schema_components([kind], ref_template=REF + "{name}")
    schema: Schema = schemas[kind.__name__]
    about = "\n\n".join(each.__doc__ or "" for each in kind.__mro__ if each is not object)
    meanings = {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(about)}
    for field in msgspec.structs.fields(kind):
        told = schema["properties"][field.encode_name]
        told.pop("default", None)
        _date(told, field.type)
        if field.encode_name in meanings:
            told["description"] = meanings[field.encode_name]
    schema |= {
        "description": about.partition("\n")[0],
        "required": list(schema["properties"]),
        "additionalProperties": False,
    }
    return schema


def _taken(kind: type[msgspec.Struct], example: Schema) -> Schema:
    """Write a struct as it is taken: what has a default may be left out."""
    schema = _told(kind)
    needed = [
        each.encode_name
        for each in msgspec.structs.fields(kind)
        if each.default is msgspec.NODEFAULT
    ]
    return {**schema, "required": needed, "example": example}


def _date(schema: Schema, kind: object) -> None:
    if kind is datetime:
        schema["format"] = "date-time"
    elif datetime in get_args(kind):
        schema["anyOf"][0]["format"] = "date-time"


def _moneyed(kind: type[msgspec.Struct]) -> Schema:
    """Write a row of the journal as `as_json` does: amounts as decimal strings."""
    schema = _told(kind)
    fields = schema["properties"]
    for untold in ("each_attempt", "bodies", "charge", "vendor_id"):
        fields.pop(untold, None)
    fields |= {name: _DECIMAL for name in ("cost", "own_cost") if name in fields}
    fields["currency"] = _CURRENCY
    schema["required"] = list(fields)
    return schema


def _new_key() -> Schema:
    word, count = {**TEXT, "pattern": LINE}, {"type": ["integer", "null"], "minimum": 1,
                                               "maximum": 2**63 - 1}  # fmt: skip
    name = {**word, "minLength": 1, "maxLength": 100, "description": "No key in use has it."}
    named = {**word, "minLength": 1}
    payer = {"type": ["string", "null"], "minLength": 1, "description": "Who pays: name or id."}
    until = {"type": ["string", "null"], "format": "date-time", "description": "In the future."}
    schema = record(
        {"name": name},
        account=payer,
        models={"type": ["array", "null"], "items": named, "minItems": 1},
        expires_at=until,
        rpm=count,
        tpm=count,
        concurrency=count,
        weight={"type": "integer", "minimum": 1, "maximum": 1_000, "default": 1},
        tags={"type": "object", "propertyNames": word, "additionalProperties": word},
    )
    assert set(schema["properties"]) == set(NewKey.__struct_fields__), "as the code takes it"
    return {**schema, "example": {"name": "search", "models": ["deepseek-flash"], "rpm": 600}}


def _with_secret(key: Schema) -> Schema:
    secret = {**TEXT, "description": "The secret; nobody can show it again."}
    return record({"key": secret, **key["properties"]})


def _error() -> Schema:
    codes = sorted({kind.code for kind in _kinds(DrovewayError)})
    return record(
        {
            "error": record(
                {
                    "message": {**TEXT, "description": "What happened, and what to do."},
                    "type": TEXT,
                    "param": {"type": ["string", "null"]},
                    "code": {**TEXT, "enum": codes, "description": "Stable, for programs."},
                }
            )
        }
    )


def _kinds(kind: type[DrovewayError]) -> list[type[DrovewayError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _kinds(child))]


def _model() -> Schema:
    return record(
        {
            "id": TEXT,
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": TEXT,
        }
    )


def _chat_request() -> Schema:
    return {
        "type": "object",
        "description": "What is not named here passes to the vendor as it came; what the messages "
        "say is for the vendor to judge.",
        "required": ["model", "messages"],
        "properties": {
            "model": {**TEXT, "minLength": 1},
            "messages": {"type": "array", "items": {"type": "object"}},
            "stream": {"type": ["boolean", "null"]},
            "stream_options": {"type": ["object", "null"]},
            "max_tokens": _CAP,
            "max_completion_tokens": _CAP,
        },
        "example": {
            "model": "deepseek-flash",
            "messages": [{"role": "user", "content": "Say something short."}],
        },
    }


def _chat_answer() -> Schema:
    return {
        "type": "object",
        "description": "The vendor's answer, as it came.",
        "required": ["choices"],
        "properties": {
            "id": TEXT,
            "choices": {"type": "array", "items": {"type": "object"}, "minItems": 1},
            "usage": {"type": ["object", "null"]},
        },
    }


def _embeddings_request() -> Schema:
    tokens = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    texts = {"type": "array", "items": TEXT}
    return {
        "type": "object",
        "description": "What is not named here passes to the vendor as it came.",
        "required": ["model", "input"],
        "properties": {
            "model": {**TEXT, "minLength": 1},
            "input": {"anyOf": [TEXT, texts, tokens, {"type": "array", "items": tokens}]},
        },
        "example": {"model": "text-embedding-3-small", "input": "Say something short."},
    }


def _embeddings_answer() -> Schema:
    return {
        "type": "object",
        "description": "The vendor's answer, as it came.",
        "required": ["data"],
        "properties": {
            "data": {"type": "array", "items": {"type": "object"}},
            "usage": {"type": ["object", "null"]},
        },
    }
