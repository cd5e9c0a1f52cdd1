"""This file knows the way from a path to its handler, and is the door of the gateway."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from droveway.engine.engine import Engine
from droveway.errors import (
    BadRequestError,
    CancelledCallError,
    DrovewayError,
    GoingDownError,
    RouteNotFoundError,
)
from droveway.gateway.asgi import Message, Receive, Scope, Send, Visit
from droveway.gateway.caller import Allotments, Find
from droveway.gateway.chat import chat
from droveway.gateway.health import health, ready
from droveway.gateway.models import list_models, show_model
from droveway.gateway.refusal import refuse

LOG: Final = logging.getLogger("droveway.gateway")
Handler = Callable[["Gateway", Visit], Awaitable[None]]
HEADERS_MAX: Final = 100
HEADER_BYTES_MAX: Final = 32 * 1024

ROUTES: Final[Mapping[str, tuple[str, Handler]]] = {
    "/v1/chat/completions": ("POST", chat),
    "/v1/models": ("GET", list_models),
    "/healthz": ("GET", health),
    "/readyz": ("GET", ready),
}


class Gateway:
    """The ASGI application: no framework stands between the server and the hot route.

    Args:
        engine: The engine that all requests go through.
        find_key: Finds a key by its secret.
        body_bytes_max: What a request body may have.
        keepalive_s: After how long a silence a stream gets a comment.

    Attributes:
        draining: Whether the server is going down; `/readyz` says so first.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        find_key: Find,
        body_bytes_max: int = 32 * 2**20,
        keepalive_s: float = 15.0,
    ) -> None:
        self.engine = engine
        self.find_key = find_key
        self.body_bytes_max = body_bytes_max
        self.keepalive_s = keepalive_s
        self.allotments = Allotments(engine.clock)
        self.draining = False

    def cut_all(self) -> None:
        """End what is still on its way, each with an error event or a 503 that says so."""
        for exchange in self.engine.on_their_way():
            exchange.give_up(
                GoingDownError("the server is going down; ask again, another one may answer")
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whatever goes wrong is a JSON error, never a trace."""
        if scope["type"] != "http":
            return
        started = _Started(send)
        try:
            _guard(scope)
            await self._handler(scope)(self, Visit(scope, receive, started))
        except CancelledCallError:
            return
        except DrovewayError as error:
            await self._refuse(started, error)
        except Exception as error:  # the gateway is a door: it records
            LOG.exception("%s failed inside", scope["path"])
            told = DrovewayError(f"the gateway failed inside ({type(error).__name__})")
            await self._refuse(started, told)

    async def _refuse(self, started: "_Started", error: DrovewayError) -> None:
        if not started.head_sent:
            await refuse(started, error)

    def _handler(self, scope: Scope) -> Handler:
        path = scope["path"]
        found = ROUTES.get(path)
        if found is None and path.startswith("/v1/models/"):
            found = ("GET", show_model)
        if found is None:
            raise RouteNotFoundError(f"there is no {path!r} here; see /v1/models and /healthz")
        method, handler = found
        if scope["method"] != method:
            raise BadRequestError(f"{path} takes {method}, not {scope['method']}")
        return handler


class _Started:
    """Notes whether a head was sent: after it an error cannot become a status any more."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.head_sent = False

    async def __call__(self, message: Message) -> None:
        self.head_sent = True
        await self._send(message)


def _guard(scope: Scope) -> None:
    hosts = sum(name == b"host" for name, _ in scope["headers"])
    if hosts != 1:
        raise BadRequestError(f"a request has exactly one Host header, not {hosts}")
    if len(scope["headers"]) > HEADERS_MAX:
        raise BadRequestError(f"more than {HEADERS_MAX} headers; send fewer")
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size > HEADER_BYTES_MAX:
        raise BadRequestError(f"the headers have more than {HEADER_BYTES_MAX} bytes; send fewer")
