"""This file knows the way from a path to its handler, and who is let in there."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from droveway.errors import RouteNotFoundError
from droveway.gateway.caller import key_of
from droveway.gateway.chat import chat
from droveway.gateway.embeddings import embeddings
from droveway.gateway.health import health, ready
from droveway.gateway.metrics import metrics
from droveway.gateway.models import list_models, show_model
from droveway.gateway.openapi import describe
from droveway.gateway.visit import Visit

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway

Step = Callable[["Gateway", Visit], None]
ADMIN_CLOSED: Final = (
    "the admin API is closed; set server.admin_token to the name of a secret to open it"
)


class Route(NamedTuple):
    """What stands at a path.

    Attributes:
        methods: How it may be asked; None where the handler says so itself.
        guard: Lets a caller in by the head of the request, or raises.
        handler: Answers, now or later.
    """

    methods: tuple[str, ...] | None
    guard: Step
    handler: Step


def find(path: str) -> Route:
    """Return what stands at a path.

    Raises:
        RouteNotFoundError: Nothing does.
    """
    route = ROUTES.get(path)
    if route is None:
        for prefix, behind in PREFIXES.items():
            if path.startswith(prefix):
                return behind
        raise RouteNotFoundError(f"there is no {path!r} here; see /openapi.json")
    return route


def _anybody(gateway: "Gateway", visit: Visit) -> None:
    """Let everybody in."""


def _known_caller(gateway: "Gateway", visit: Visit) -> None:
    visit.key = gateway.find_key(key_of(visit.headers))


def _operator(gateway: "Gateway", visit: Visit) -> None:
    if gateway.let_operator_in is None:
        raise RouteNotFoundError(ADMIN_CLOSED)
    gateway.let_operator_in(visit)


def _administer(gateway: "Gateway", visit: Visit) -> None:
    assert gateway.admin is not None, "the guard lets nobody in where it is closed"
    gateway.later(visit, gateway.admin(visit))


GET: Final = ("GET", "HEAD")
POST: Final = ("POST",)
ROUTES: Final[Mapping[str, Route]] = {
    "/v1/chat/completions": Route(POST, _known_caller, chat),
    "/v1/embeddings": Route(POST, _known_caller, embeddings),
    "/v1/models": Route(GET, _known_caller, list_models),
    "/healthz": Route(GET, _anybody, health),
    "/readyz": Route(GET, _anybody, ready),
    "/metrics": Route(GET, _anybody, metrics),
    "/openapi.json": Route(GET, _anybody, describe),
}
PREFIXES: Final[Mapping[str, Route]] = {
    "/v1/models/": Route(GET, _known_caller, show_model),
    "/admin/": Route(None, _operator, _administer),
}
