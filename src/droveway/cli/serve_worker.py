"""This file knows what a worker of `droveway serve` is: a process of its own, told by its parent.

It is started as `python -m droveway.cli.serve_worker` and by nobody but the parent.
"""

import sys
from pathlib import Path

from droveway.cli.main import DONE, MISUSED, tell
from droveway.cli.running import run_async
from droveway.cli.serving import built
from droveway.errors import SettingsError
from droveway.gateway.lifeline import Lifeline, Refused, Start, leave_signals_to_the_parent
from droveway.telemetry import configure


def main() -> int:
    """Serve until the parent says that it is enough, or is no more.

    Returns:
        The exit code.
    """
    leave_signals_to_the_parent()
    lifeline = Lifeline()
    try:
        start = lifeline.start()
        configure(start.settings.server.log, who=f"worker {start.index}")
        run_async(_serve(start, lifeline))
    except SettingsError as error:
        # The parent says it once, for all of them.
        lifeline.report(Refused(why=str(error)))
        return MISUSED
    except Exception as error:  # noqa: BLE001 - this is a door: it records
        return tell(error)
    return DONE


async def _serve(start: Start, lifeline: Lifeline) -> None:
    who, folder = f"worker {start.index}", Path(start.metrics_directory)
    async with built(
        start.settings,
        start.source,
        generation=start.generation,
        who=who,
        metrics_directory=folder,
    ) as parts:
        await lifeline.serve(parts.gateway, start)


if __name__ == "__main__":
    sys.exit(main())
