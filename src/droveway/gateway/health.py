"""This file knows how to say that we live, and that we are ready."""

from typing import TYPE_CHECKING

from droveway.gateway.asgi import Visit, respond

if TYPE_CHECKING:
    from droveway.gateway.app import Gateway


async def health(gateway: "Gateway", visit: Visit) -> None:
    """Serve `GET /healthz`: the process answers."""
    del gateway
    await respond(visit.send, 200, b'{"status":"ok"}')


async def ready(gateway: "Gateway", visit: Visit) -> None:
    """Serve `GET /readyz`: new requests are welcome; 503 first thing when we are going down."""
    if gateway.draining:
        await respond(visit.send, 503, b'{"status":"draining"}', headers=[(b"retry-after", b"1")])
    else:
        await respond(visit.send, 200, b'{"status":"ready"}')
