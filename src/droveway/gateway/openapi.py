"""This file knows the description of all that is served, in OpenAPI 3.1: `GET /openapi.json`."""

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from droveway.gateway.schemas import TEXT, Schema, component_schemas, page, ref
from droveway.gateway.visit import Visit

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway

_JSON: Final = "application/json"
_CALLER: Final[list[Schema]] = [{"key": []}, {"key_header": []}]
_OPERATOR: Final[list[Schema]] = [{"admin_token": []}, {"admin_token_header": []}]
_MEANINGS: Final = {
    400: "The request cannot be used, or the vendor refused it as such.",
    401: "The key or token is missing, or opens nothing here.",
    402: "A limit of money is reached.",
    403: "The key may not ask for this model.",
    404: "There is no such thing.",
    405: "The path takes other methods; `allow` names them.",
    413: "The body is too large.",
    422: "The vendor understood the request and cannot do it.",
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
_TOLD_OF_A_CALL: Final = (400, 401, 402, 403, 404, 405, 413, 422, 429, 500, 502, 503, 504)
_TOLD_OF_A_LOOK: Final = (400, 401, 405, 500, 503)
_TOLD_TO_ALL: Final = (400, 405, 500)


def describe(gateway: "Gateway", visit: Visit) -> None:
    """Serve `GET /openapi.json`."""
    del gateway
    visit.respond(200, _written())


@cache
def _written() -> bytes:
    return msgspec.json.encode(document())


def document() -> dict[str, Any]:
    """Return the description."""
    from droveway import __version__  # noqa: PLC0415 - the package imports its rooms

    paths = {**_calls(), **_looks(), **_watches(), **_keys(), **_reports()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Droveway",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": "One OpenAI-compatible door in front of every model vendor.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": component_schemas(),
            "responses": {_named(status): _refusal(status) for status in _MEANINGS},
            "headers": _call_headers(),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A key."},
                "key_header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "admin_token": {"type": "http", "scheme": "bearer",
                                "description": "What `server.admin_token` names."},
                "admin_token_header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }  # fmt: skip


def _calls() -> dict[str, Any]:
    # Without a schema: OpenAPI 3.1 has none for a sequence of events.
    events: Schema = {"text/event-stream": {}}
    return {
        "/v1/chat/completions": {
            "post": _call(
                "Answer a conversation, whole or as a stream.",
                body="ChatRequest",
                answer=_content("ChatAnswer") | events,
            )
        },
        "/v1/embeddings": {
            "post": _call(
                "Turn texts into vectors.",
                body="EmbeddingsRequest",
                answer=_content("EmbeddingsAnswer"),
            )
        },
    }


def _looks() -> dict[str, Any]:
    models = page("Model", object={"const": "list"})
    name = _in_path("name", "A model's name; it may hold slashes.")
    return {
        "/v1/models": {
            "get": _operation(
                "List the models that the key may ask for.",
                {200: _answer(models)},
                refusals=_TOLD_OF_A_LOOK,
                security=_CALLER,
            )
        },
        "/v1/models/{name}": {
            "parameters": [name],
            "get": _operation(
                "Show one of them.",
                {200: _answer(ref("Model"))},
                refusals=(404, *_TOLD_OF_A_LOOK),
                security=_CALLER,
            ),
        },
    }


def _watches() -> dict[str, Any]:
    def says(word: str) -> Schema:
        return _answer({"type": "object", "properties": {"status": {"const": word}}})

    anything = {200: _answer({"type": "object"})}
    text = {"description": "Done.", "content": {"text/plain": {"schema": TEXT}}}
    ready = {200: says("ready"), 503: says("draining")}
    told = {
        "/healthz": ("Say that the process lives.", {200: says("ok")}),
        "/readyz": ("Say whether new requests are welcome.", ready),
        "/metrics": ("Show the figures that Prometheus collects.", {200: text}),
        "/openapi.json": ("Show this description.", anything),
    }
    return {
        path: {"get": _operation(summary, answers, refusals=_TOLD_TO_ALL)}
        for path, (summary, answers) in told.items()
    }


def _keys() -> dict[str, Any]:
    one = {"parameters": [_in_path("key", "The name or id of a key.")]}
    key, secret = {200: _answer(ref("Key"))}, _answer(ref("KeyWithSecret"))
    return {
        "/admin/v1/keys": {
            "get": _administer("List all keys, oldest first.", {200: _answer(page("Key"))}),
            "post": _administer(
                "Make a key; its secret is shown this once.", {201: secret}, 413, body="NewKey"
            ),
        },
        "/admin/v1/keys/{key}": {
            **one,
            "get": _administer("Show a key.", key, 404),
            "delete": _administer("Take a key back; done twice, it is done.", key, 404),
        },
        "/admin/v1/keys/{key}/revoke": {
            **one,
            "post": _administer("Take a key back; as DELETE.", key, 404),
        },
        "/admin/v1/keys/{key}/rotate": {
            **one,
            "post": _administer("Give a key a new secret, shown this once.", {200: secret}, 404),
        },
    }


def _reports() -> dict[str, Any]:
    since = _in_query("since", {**TEXT, "format": "date-time"}, "Not those before this moment.")
    limit = {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100}
    seq = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    word = {**TEXT, "minLength": 1}
    requests = page("Request", last_seq=seq, more={"type": "boolean"})
    return {
        "/admin/v1/requests": {
            "get": _administer(
                "List the last requests, newest first; with `after`, what was written down "
                "after it, oldest first, a page at a time.",
                {200: _answer(requests)},
                404,
                parameters=[
                    _in_query("limit", limit, "How many at most."),
                    since,
                    _in_query("model", word, "Asked for, sent for or served by."),
                    _in_query("key", word, "The name or id of a key."),
                    _in_query("after", seq, "The `last_seq` of the page before, or 0."),
                ],
            )
        },
        "/admin/v1/requests/{id}": {
            "parameters": [_in_path("id", "As `x-droveway-request-id` told it.")],
            "get": _administer(
                "Show a request with its attempts.", {200: _answer(ref("Request"))}, 404
            ),
        },
        "/admin/v1/hours": {
            "get": _administer(
                "Sum up the hours of the last day, or since a moment.",
                {200: _answer(page("HourSum"))},
                parameters=[since],
            )
        },
        "/admin/v1/providers": {
            "get": _administer(
                "Show the providers and their lines.", {200: _answer(page("ProviderState"))}
            )
        },
        "/admin/v1/reload": {
            "post": _administer("Read the settings anew.", {200: _answer(ref("Reloaded"))})
        },
    }


def _call(summary: str, *, body: str, answer: Schema) -> Schema:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _call_headers()}
    done = {"description": "Done.", "headers": headers, "content": answer}
    return _operation(summary, {200: done}, refusals=_TOLD_OF_A_CALL, security=_CALLER, body=body)


def _administer(summary: str, answers: dict[int, Schema], *further: int, **more: Any) -> Schema:  # noqa: ANN401 - as below
    refusals = (*_TOLD_OF_A_LOOK, *further)
    return _operation(summary, answers, refusals=refusals, security=_OPERATOR, **more)


def _operation(
    summary: str,
    answers: dict[int, Schema],
    *,
    refusals: tuple[int, ...],
    security: list[Schema] | None = None,
    body: str | None = None,
    parameters: list[Schema] | None = None,
) -> Schema:
    refused = {each: {"$ref": f"#/components/responses/{_named(each)}"} for each in refusals}
    responses = {**refused, **answers}
    told: Schema = {
        "summary": summary,
        "security": security or [],
        "responses": {str(status): responses[status] for status in sorted(responses)},
    }
    if parameters:
        told["parameters"] = parameters
    if body is not None:
        told["requestBody"] = {"required": True, "content": _content(body)}
    return told


def _content(name: str) -> Schema:
    return {_JSON: {"schema": ref(name)}}


def _answer(schema: Schema) -> Schema:
    return {"description": "Done.", "content": {_JSON: {"schema": schema}}}


def _named(status: int) -> str:
    return f"Refused{status}"


def _refusal(status: int) -> Schema:
    told = {"description": _MEANINGS[status], "content": _content("Error")}
    headers = _ERROR_HEADERS.get(status)
    return {**told, "headers": headers} if headers else told


def _call_headers() -> dict[str, Schema]:
    told = {
        "request-id": ("Our id of the request.", TEXT),
        "model": ("The model that was asked of the vendor last.", TEXT),
        "provider": ("The provider that was asked last.", TEXT),
        "attempts": ("Requests sent to vendors so far.", {"type": "integer", "minimum": 0}),
        "overhead-ms": ("The time of ours; on a whole answer.", {"type": "number", "minimum": 0}),
        "cost": ("A decimal string; on a whole answer of a priced model.", TEXT),
    }
    return {
        f"x-droveway-{name}": {"description": text, "schema": schema}
        for name, (text, schema) in told.items()
    }


def _in_path(name: str, text: str) -> Schema:
    schema = {**TEXT, "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def _in_query(name: str, schema: Schema, text: str) -> Schema:
    return {"name": name, "in": "query", "description": text, "schema": schema}
