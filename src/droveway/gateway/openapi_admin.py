"""This file knows the description of keys, of what was served, and of what serves."""

from typing import Any

from droveway.gateway.operations import administer, answer, in_path, in_query
from droveway.gateway.schemas import TEXT, page, ref


def keys() -> dict[str, Any]:
    """Return the paths of keys."""
    one = {"parameters": [in_path("key", "The name or id of a key.")]}
    key, secret = {200: answer(ref("Key"))}, answer(ref("KeyWithSecret"))
    return {
        "/admin/v1/keys": {
            "get": administer("List all keys, oldest first.", {200: answer(page("Key"))}),
            "post": administer(
                "Make a key; its secret is shown this once.", {201: secret}, 413, body="NewKey"
            ),
        },
        "/admin/v1/keys/{key}": {
            **one,
            "get": administer("Show a key.", key, 404),
            "delete": administer("Take a key back; done twice, it is done.", key, 404),
        },
        "/admin/v1/keys/{key}/revoke": {
            **one,
            "post": administer("Take a key back; as DELETE.", key, 404),
        },
        "/admin/v1/keys/{key}/rotate": {
            **one,
            "post": administer("Give a key a new secret, shown this once.", {200: secret}, 404),
        },
    }


def reports() -> dict[str, Any]:
    """Return the paths of what was served, and of what serves."""
    since = in_query("since", {**TEXT, "format": "date-time"}, "Not those before this moment.")
    limit = {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100}
    seq = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    word = {**TEXT, "minLength": 1}
    requests = page("Request", last_seq=seq, more={"type": "boolean"})
    return {
        "/admin/v1/requests": {
            "get": administer(
                "List the last requests, newest first; with `after`, what was written down "
                "after it, oldest first, a page at a time.",
                {200: answer(requests)},
                404,
                parameters=[
                    in_query("limit", limit, "How many at most."),
                    since,
                    in_query("model", word, "Asked for, sent for or served by."),
                    in_query("key", word, "The name or id of a key."),
                    in_query("after", seq, "The `last_seq` of the page before, or 0."),
                ],
            )
        },
        "/admin/v1/requests/{id}": {
            "parameters": [in_path("id", "As `x-droveway-request-id` told it.")],
            "get": administer(
                "Show a request with its attempts.", {200: answer(ref("Request"))}, 404
            ),
        },
        "/admin/v1/hours": {
            "get": administer(
                "Sum up the hours of the last day, or since a moment.",
                {200: answer(page("HourSum"))},
                parameters=[since],
            )
        },
        "/admin/v1/providers": {
            "get": administer(
                "Show the providers and their lines.", {200: answer(page("ProviderState"))}
            )
        },
        "/admin/v1/reload": {
            "post": administer("Read the settings anew.", {200: answer(ref("Reloaded"))})
        },
    }
