"""This file knows the description of all that is served, in OpenAPI 3.1: `GET /openapi.json`."""

from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from droveway.gateway.openapi_accounts import accounts
from droveway.gateway.openapi_admin import keys, reports
from droveway.gateway.operations import (
    CALLER,
    MEANINGS,
    TOLD_OF_A_LOOK,
    TOLD_TO_ALL,
    answer,
    call,
    call_headers,
    content,
    in_path,
    named,
    operation,
    refusal,
)
from droveway.gateway.schemas import TEXT, Schema, component_schemas, page, ref
from droveway.gateway.visit import Visit

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway


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

    paths = {**_calls(), **_looks(), **_watches(), **keys(), **accounts(), **reports()}
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
            "responses": {named(status): refusal(status) for status in MEANINGS},
            "headers": call_headers(),
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
            "post": call(
                "Answer a conversation, whole or as a stream.",
                body="ChatRequest",
                answer=content("ChatAnswer") | events,
            )
        },
        "/v1/embeddings": {
            "post": call(
                "Turn texts into vectors.",
                body="EmbeddingsRequest",
                answer=content("EmbeddingsAnswer"),
            )
        },
    }


def _looks() -> dict[str, Any]:
    models = page("Model", object={"const": "list"})
    name = in_path("name", "A model's name; it may hold slashes.")
    return {
        "/v1/models": {
            "get": operation(
                "List the models that the key may ask for.",
                {200: answer(models)},
                refusals=TOLD_OF_A_LOOK,
                security=CALLER,
            )
        },
        "/v1/models/{name}": {
            "parameters": [name],
            "get": operation(
                "Show one of them.",
                {200: answer(ref("Model"))},
                refusals=(404, *TOLD_OF_A_LOOK),
                security=CALLER,
            ),
        },
    }


def _watches() -> dict[str, Any]:
    def says(word: str) -> Schema:
        return answer({"type": "object", "properties": {"status": {"const": word}}})

    anything = {200: answer({"type": "object"})}
    text = {"description": "Done.", "content": {"text/plain": {"schema": TEXT}}}
    ready = {200: says("ready"), 503: says("draining")}
    told = {
        "/healthz": ("Say that the process lives.", {200: says("ok")}),
        "/readyz": ("Say whether new requests are welcome.", ready),
        "/metrics": ("Show the figures that Prometheus collects.", {200: text}),
        "/openapi.json": ("Show this description.", anything),
    }
    return {
        path: {"get": operation(summary, answers, refusals=TOLD_TO_ALL)}
        for path, (summary, answers) in told.items()
    }
