"""This file knows the one line that a failed or refused request gets in the log.

What succeeds gets none: the journal has it. What a caller wrote is in no line, but for the path.
"""

import logging
from typing import Final

from droveway.engine.records import Row

LOG: Final = logging.getLogger("droveway.gateway")


def tell_of_failure(row: Row) -> None:
    """Log a request if it has failed; a listener of the journal."""
    if row.outcome != "failed":
        return
    provider = row.attempts[-1].provider if row.attempts else None
    LOG.warning(
        "request %s failed: %s%s",
        row.id,
        row.code,
        "" if provider is None else f", {provider} was asked last",
        extra={"request_id": row.id, "code": row.code, "provider": provider},
    )


def tell_of_refusal(code: str, path: str, *, request_id: str) -> None:
    """Log a request that was refused at the door, before the engine saw it.

    At INFO, which is not shown by default: it is the caller's mistake, a stranger can make any
    number of them, and `/metrics` counts them.

    Args:
        code: The error's code.
        path: What was asked for; a stranger may have chosen it.
        request_id: The id that its caller was told.
    """
    LOG.info(
        "request %s for %.100r was refused at the door: %s",
        request_id,
        path,
        code,
        extra={"request_id": request_id, "code": code},
    )
