"""This file knows the list of models a key may ask for."""

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import msgspec

from droveway.errors import NotFoundError
from droveway.gateway.visit import Visit

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway

# The dialect wants a date; a list of names has none.
CREATED_UNKNOWN: Final = 0


def list_models(gateway: "Gateway", visit: Visit) -> None:
    """Serve `GET /v1/models`."""
    models = _models(gateway, visit)
    visit.respond(200, msgspec.json.encode({"object": "list", "data": list(models.values())}))


def show_model(gateway: "Gateway", visit: Visit) -> None:
    """Serve `GET /v1/models/NAME`; the name may hold slashes."""
    name = unquote(visit.path.removeprefix("/v1/models/"))
    found = _models(gateway, visit).get(name)
    if found is None:
        raise NotFoundError(f"no model {name!r} for this key; see /v1/models")
    visit.respond(200, msgspec.json.encode(found))


def _models(gateway: "Gateway", visit: Visit) -> dict[str, dict[str, Any]]:
    key = visit.key
    assert key is not None, "the route needs a key"
    engine = gateway.engine
    names = dict.fromkeys((*engine.settings.models, "auto"), "droveway")
    for provider in engine.providers.values():
        for model in sorted(provider.offer.models):
            names.setdefault(model, provider.name)
            names[f"{provider.name}/{model}"] = provider.name
    return {
        name: {"id": name, "object": "model", "created": CREATED_UNKNOWN, "owned_by": owner}
        for name, owner in names.items()
        if key.models is None or name in key.models
    }
