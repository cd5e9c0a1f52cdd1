"""This file knows how one operation is written in the description of what is served."""

from typing import Any, Final

from droveway.gateway.schemas import TEXT, Schema, ref

_JSON: Final = "application/json"
CALLER: Final[list[Schema]] = [{"key": []}, {"key_header": []}]
OPERATOR: Final[list[Schema]] = [{"admin_token": []}, {"admin_token_header": []}]
MEANINGS: Final = {
    400: "The request cannot be used, or the vendor refused it as such.",
    401: "The key or token is missing, or opens nothing here.",
    402: "A limit of money is reached.",
    403: "The key may not ask for this model.",
    404: "There is no such thing.",
    405: "The path takes other methods; `allow` names them.",
    409: "The request with this Idempotency-Key is on its way, or was served.",
    413: "The body is too large.",
    422: "The vendor cannot do it, or this Idempotency-Key was used for another body.",
    429: "The key's or the vendor's limit is reached, or the deadline passed; see `retry-after`.",
    500: "A fault of ours; it is in the log.",
    502: "The vendor failed.",
    503: "The server goes down, or its store cannot be used now.",
    504: "The vendor took too long; the message names the phase.",
}
_ERROR_HEADERS: Final[dict[int, dict[str, Schema]]] = {
    401: {"www-authenticate": {"required": True, "schema": {"const": "Bearer"}}},
    405: {"allow": {"required": True, "schema": TEXT}},
    429: {"retry-after": {"required": True, "schema": {"type": "integer", "minimum": 1}}},
}
TOLD_OF_A_CALL: Final = (400, 401, 402, 403, 404, 405, 409, 413, 422, 429, 500, 502, 503, 504)
TOLD_OF_A_LOOK: Final = (400, 401, 405, 500, 503)
TOLD_TO_ALL: Final = (400, 405, 500)


def call(summary: str, *, body: str, answer: Schema) -> Schema:
    """Write an operation of callers, which may be refused in every way."""
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in call_headers()}
    done = {"description": "Done.", "headers": headers, "content": answer}
    return operation(summary, {200: done}, refusals=TOLD_OF_A_CALL, security=CALLER, body=body)


def administer(summary: str, answers: dict[int, Schema], *further: int, **more: Any) -> Schema:  # noqa: ANN401 - as below
    """Write an operation of operators.

    Args:
        summary: What it does.
        answers: By status.
        further: Statuses with which it may be refused, beside those of every look.
        more: As for `operation`.
    """
    refusals = (*TOLD_OF_A_LOOK, *further)
    return operation(summary, answers, refusals=refusals, security=OPERATOR, **more)


def operation(
    summary: str,
    answers: dict[int, Schema],
    *,
    refusals: tuple[int, ...],
    security: list[Schema] | None = None,
    body: str | None = None,
    parameters: list[Schema] | None = None,
) -> Schema:
    """Write an operation.

    Args:
        summary: What it does.
        answers: By status.
        refusals: Statuses with which it may be refused.
        security: Who may ask; nobody is kept out without it.
        body: The schema of its body.
        parameters: What its query may hold.
    """
    refused = {each: {"$ref": f"#/components/responses/{named(each)}"} for each in refusals}
    responses = {**refused, **answers}
    told: Schema = {
        "summary": summary,
        "security": security or [],
        "responses": {str(status): responses[status] for status in sorted(responses)},
    }
    if parameters:
        told["parameters"] = parameters
    if body is not None:
        told["requestBody"] = {"required": True, "content": content(body)}
    return told


def content(name: str) -> Schema:
    """Write a body that is a JSON document of this schema."""
    return {_JSON: {"schema": ref(name)}}


def answer(schema: Schema) -> Schema:
    """Write an answer that is a JSON document."""
    return {"description": "Done.", "content": {_JSON: {"schema": schema}}}


def named(status: int) -> str:
    """Name the refusal with a status."""
    return f"Refused{status}"


def refusal(status: int) -> Schema:
    """Write the refusal with a status."""
    told = {"description": MEANINGS[status], "content": content("Error")}
    headers = _ERROR_HEADERS.get(status)
    return {**told, "headers": headers} if headers else told


def call_headers() -> dict[str, Schema]:
    """Write the headers that tell of a call."""
    told = {
        "request-id": ("Our id of the request.", TEXT),
        "model": ("The model that was asked of the vendor last.", TEXT),
        "provider": ("The provider that was asked last.", TEXT),
        "attempts": ("Requests sent to vendors so far.", {"type": "integer", "minimum": 0}),
        "waited-ms": ("How long it waited, where it did.", {"type": "number", "minimum": 0}),
        "overhead-ms": ("The time of ours; on a whole answer.", {"type": "number", "minimum": 0}),
        "cost": ("A decimal string; on a whole answer of a priced model.", TEXT),
    }
    return {
        f"x-droveway-{name}": {"description": text, "schema": schema}
        for name, (text, schema) in told.items()
    }


def in_path(name: str, text: str, **further: Any) -> Schema:  # noqa: ANN401 - of OpenAPI
    """Write a parameter in a path."""
    schema = {**TEXT, "minLength": 1}
    told = {"name": name, "in": "path", "required": True, "description": text, "schema": schema}
    return {**told, **further}


def in_query(name: str, schema: Schema, text: str, **further: Any) -> Schema:  # noqa: ANN401 - of OpenAPI
    """Write a parameter in a query."""
    return {"name": name, "in": "query", "description": text, "schema": schema, **further}
