"""This file knows how to say that we live, and that we are ready."""

from typing import TYPE_CHECKING

from droveway.gateway.visit import Visit

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway


def health(gateway: "Gateway", visit: Visit) -> None:
    """Serve `GET /healthz`: the process answers."""
    del gateway
    visit.respond(200, b'{"status":"ok"}')


def ready(gateway: "Gateway", visit: Visit) -> None:
    """Serve `GET /readyz`: new requests are welcome; 503 first thing when we are going down."""
    if gateway.draining:
        visit.respond(503, b'{"status":"draining"}', headers=[(b"retry-after", b"1")])
    else:
        visit.respond(200, b'{"status":"ready"}')
