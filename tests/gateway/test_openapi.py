"""The description of what is served: it is true, it is whole, and it is OpenAPI 3.1."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import schemathesis

from droveway.gateway import admin, routes
from droveway.gateway.openapi import document
from droveway.gateway.wanted import HoursWanted, RequestsWanted
from lab import run
from operator_door import operator_door, send

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def described() -> set[str]:
    return {
        f"{method.upper()} {path}"
        for path, told in document()["paths"].items()
        for method in told.keys() & METHODS
    }


def served() -> set[str]:
    plain = {f"{(route.methods or ())[0]} {path}" for path, route in routes.ROUTES.items()}
    managed = {f"{method} {path}" for path, told in admin.ROUTES.items() for method in told}
    # Served by a prefix: names may hold slashes.
    return plain | managed | {"GET /v1/models/{name}"}


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node:
        if isinstance(inner, dict | list):
            yield from walk(inner)


def test_what_is_served_is_described_and_what_is_described_is_served() -> None:
    assert described() == served()


def test_the_description_is_openapi_3_1() -> None:
    schemathesis.openapi.from_dict(document()).validate()
    broken = document()
    broken["paths"]["/healthz"]["get"]["responses"] = []
    with pytest.raises(jsonschema_rs.ValidationError):
        schemathesis.openapi.from_dict(broken).validate()


def test_every_schema_is_a_json_schema_and_fits_its_own_example() -> None:
    components = document()["components"]
    examples = 0
    for schema in components["schemas"].values():
        jsonschema_rs.meta.validate(schema)
        if "example" in schema:
            whole = {**schema, "components": components}
            jsonschema_rs.Draft202012Validator(whole).validate(schema["example"])
            examples += 1
    assert examples >= 2


def test_every_reference_leads_somewhere_and_no_schema_is_forgotten() -> None:
    told = document()
    refs = {node["$ref"] for node in walk(told) if "$ref" in node}
    for ref in refs:
        found: Any = told
        for part in ref.removeprefix("#/").split("/"):
            found = found[part]
    named = {f"#/components/schemas/{name}" for name in told["components"]["schemas"]}
    assert {name for name in named - refs if "Embeddings" not in name} == set()


def test_every_route_says_who_may_ask_and_what_a_refusal_looks_like() -> None:
    told = document()
    for line in described():
        method, path = line.split(" ")
        operation = told["paths"][path][method.lower()]
        schemes = {name for each in operation["security"] for name in each}
        if path.startswith("/admin/"):
            assert schemes == {"admin_token", "admin_token_header"}
        elif path.startswith("/v1/"):
            assert schemes == {"key", "key_header"}
        else:
            assert schemes == set()
        refusals = {status for status in operation["responses"] if status[0] in "45"}
        assert refusals >= ({"400", "401", "405"} if schemes else {"400", "405"}), line
        assert schemes or "401" not in refusals, line


def test_parameters_are_those_that_are_read() -> None:
    paths = document()["paths"]
    for path, kind in (("requests", RequestsWanted), ("hours", HoursWanted)):
        told = {each["name"] for each in paths[f"/admin/v1/{path}"]["get"]["parameters"]}
        assert told == set(kind.__struct_fields__)
    for path, item in paths.items():
        named = [each["name"] for each in item.get("parameters", [])]
        assert named == re.findall(r"\{(.*?)\}", path)


def test_every_error_code_of_the_page_is_among_the_described_ones() -> None:
    page = Path(__file__).parents[2] / "docs/reference/errors.md"
    told = document()["components"]["schemas"]["Error"]["properties"]["error"]
    headings = re.findall(r"^## (\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(told["properties"]["code"]["enum"]) == set(headings)


def test_the_description_is_served_to_everybody(tmp_path: Path) -> None:
    async def check() -> None:
        async with operator_door(tmp_path) as door:
            said = await send(door, "GET /openapi.json", token=None)
            assert said.status == 200
            assert said.headers["content-type"] == "application/json"
            assert said.told == msgspec.to_builtins(document())

    run(check())
