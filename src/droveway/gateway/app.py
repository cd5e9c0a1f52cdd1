"""This file knows the door of the gateway: who is let in, who answers, and what goes wrong."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final

from droveway.engine.engine import Engine
from droveway.engine.exchange import request_id
from droveway.engine.till import Tills
from droveway.errors import DrovewayError, GoingDownError, MethodNotAllowedError
from droveway.gateway.caller import Allotments, Find
from droveway.gateway.failures import tell_of_failure, tell_of_refusal
from droveway.gateway.metrics import Metrics
from droveway.gateway.present import present
from droveway.gateway.reading import unpacked
from droveway.gateway.refusal import refuse
from droveway.gateway.routes import Route, find
from droveway.gateway.visit import Visit

LOG: Final = logging.getLogger("droveway.gateway")
GOING_DOWN: Final = "the server is going down; ask again, another one may answer"


class Gateway:
    """Answers the requests that come in by the doorway; no framework stands between.

    Args:
        engine: The engine that all requests go through.
        find_key: Finds a key by its secret.
        body_bytes_max: What a request body may have.
        allotments: What keys have left of their limits; by default kept in this process alone.
        tills: Where requests are paid; None where billing is off.
        metrics_directory: Where several processes share what they count; None for one alone.

    Attributes:
        metrics: What it has counted.
        admin: The admin API; None where it is closed.
        draining: Whether the server is going down; `/readyz` says so first.
        is_cut: Whether what was on its way was cut, so that nothing is begun any more.
        keepalive_s: After how long a silence a stream gets a comment.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        find_key: Find,
        body_bytes_max: int = 32 * 2**20,
        allotments: Allotments | None = None,
        tills: Tills | None = None,
        metrics_directory: Path | None = None,
    ) -> None:
        self.engine = engine
        self.find_key = find_key
        self.body_bytes_max = body_bytes_max
        self.allotments = allotments or Allotments(engine.clock)
        self.tills = tills
        self.admin: Callable[[Visit], Coroutine[None, None, None]] | None = None
        self.let_operator_in: Callable[[Visit], None] | None = None
        self.draining = False
        self.is_cut = False
        self.metrics = Metrics(
            directory=metrics_directory,
            present=lambda: present(self.engine),
        )
        self._at_work: set[asyncio.Task[None]] = set()
        engine.journal.listeners.extend((self.metrics.note, tell_of_failure))

    @property
    def keepalive_s(self) -> float:
        """After how long a silence a stream gets a comment."""
        return self.engine.settings.streams.keepalive_s

    def cut_all(self) -> None:
        """End what is still on its way, each with an error event or a 503 that says so."""
        self.is_cut = True
        for exchange in self.engine.on_their_way():
            exchange.give_up(GoingDownError(GOING_DOWN))

    def admit(self) -> None:
        """Let a request begin that will take its time.

        Raises:
            GoingDownError: It stood behind one that was cut, or came late on a connection.
        """
        if self.is_cut:
            raise GoingDownError(GOING_DOWN)

    def greet(self, visit: Visit) -> None:
        """Look at a request's head: is there such a route, and who asks?

        Raises:
            DrovewayError: It is refused, before its body is taken.
        """
        try:
            route = _route(visit)
            route.guard(self, visit)
            visit.handler = route.handler
        except DrovewayError:
            raise
        except Exception as error:  # the gateway is a door: it records
            raise _own_failure(visit, error) from error

    def serve(self, visit: Visit) -> None:
        """Answer a request; whatever goes wrong is a JSON error, never a trace."""
        self.guarded(visit, self._serve)

    def guarded(self, visit: Visit, step: Callable[[Visit], None]) -> None:
        """Take one step of an answer; what it raises becomes the answer, or ends it."""
        try:
            step(visit)
        except DrovewayError as error:
            self.refuse(visit, error)
        except Exception as error:  # noqa: BLE001 - the gateway is a door: it records
            self.refuse(visit, _own_failure(visit, error))

    def later(self, visit: Visit, work: Coroutine[None, None, None]) -> None:
        """Answer by work that waits; it is given up when its caller is gone."""

        async def guarded() -> None:
            try:
                await work
            except DrovewayError as error:
                self.refuse(visit, error)
            except Exception as error:  # noqa: BLE001 - as above
                self.refuse(visit, _own_failure(visit, error))

        task = asyncio.get_running_loop().create_task(guarded())
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    def refuse(self, visit: Visit, error: DrovewayError) -> None:
        """Answer with an error, or cut what has begun: nobody shall take it for whole."""
        if visit.gone:
            return
        if visit.head_sent:
            visit.cut()
            return
        self.metrics.refused(error.code)
        told = request_id(self.engine.clock.now())
        tell_of_refusal(error.code, visit.path, request_id=told)
        names = (b"x-droveway-request-id", b"x-request-id")
        refuse(visit, error, headers=[(name, told.encode()) for name in names])

    def _serve(self, visit: Visit) -> None:
        coding = visit.header(b"content-encoding")
        if coding is not None:
            visit.body = unpacked(visit.body, coding, bytes_max=self.body_bytes_max)
        visit.handler(self, visit)


def _route(visit: Visit) -> Route:
    route = find(visit.path)
    if route.methods is not None and visit.method not in route.methods:
        allowed = ", ".join(route.methods)
        raise MethodNotAllowedError(
            f"{visit.path} takes {allowed}, not {visit.method}", allow=allowed
        )
    return route


def _own_failure(visit: Visit, error: Exception) -> DrovewayError:
    LOG.error("%s %.100r failed inside", visit.method, visit.path, exc_info=error)
    return DrovewayError(f"the gateway failed inside ({type(error).__name__})")
