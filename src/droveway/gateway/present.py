"""This file knows how a gateway's processes stand at this moment: what is on its way, and waits.

Nothing is counted here: it is looked at when somebody reads the metrics, and costs no request time.
"""

import asyncio
from typing import Final, get_args

import msgspec

from droveway.engine.engine import Engine
from droveway.engine.line import Line
from droveway.resilience.gate import Cause

CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)
LineName = tuple[str, int, str]  # provider, account from 1 on, the vendor's name of the model


class LinePresent(msgspec.Struct, kw_only=True):
    """The line before one vendor account and model, of one process or of all.

    Attributes:
        in_flight: Requests that were sent and are not back.
        waiting: Requests that stand in line.
        window: Requests in flight at most, as of now.
        stopped: Processes in which requests do not flow, by cause.
    """

    in_flight: int = 0
    waiting: int = 0
    window: int = 0
    stopped: dict[Cause, int] = {}

    def add(self, more: "LinePresent") -> None:
        """Add what stands in another line, or in another process."""
        self.in_flight += more.in_flight
        self.waiting += more.waiting
        self.window += more.window
        for cause, processes in more.stopped.items():
            self.stopped[cause] = self.stopped.get(cause, 0) + processes


class Present(msgspec.Struct, kw_only=True):
    """How one process stands, or all of them together.

    Attributes:
        in_flight: Requests on their way.
        tasks: Tasks of the event loops.
        lines: The lines that came into being.
    """

    in_flight: int = 0
    tasks: int = 0
    lines: dict[LineName, LinePresent] = {}


def present(engine: Engine) -> Present:
    """Look at this process; to be called on its event loop."""
    return Present(
        in_flight=engine.open_exchanges,
        tasks=len(asyncio.all_tasks()),
        lines={
            (each.provider, each.account + 1, each.model): _line(line)
            for each, line in engine.lines.items()
        },
    )


def _line(line: Line) -> LinePresent:
    pacer, cause = line.pacer, line.pacer.gate.cause
    return LinePresent(
        in_flight=pacer.in_flight,
        waiting=pacer.waiting,
        window=pacer.concurrency,
        stopped={} if cause is None else {cause: 1},
    )
