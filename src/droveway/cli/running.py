"""This file knows how a command runs on an event loop, and how it is asked to stop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from droveway.agents.portal import new_loop

T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end; Ctrl-C cancels it, and is raised when it has cleaned up.

    Raises:
        KeyboardInterrupt: It was interrupted.
    """
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)


@contextmanager
def stopping(stop: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM call a function instead of cutting the work off.

    Only the first is for the function: a second Ctrl-C interrupts at once. Where a loop cannot
    watch signals (Windows, another thread than the main one) nothing changes.
    """
    loop = asyncio.get_running_loop()
    watched: list[signal.Signals] = []

    def unwatch() -> None:
        while watched:
            loop.remove_signal_handler(watched.pop())

    def stop_once(number: signal.Signals) -> None:
        unwatch()
        stop(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop_once, number)
        except (NotImplementedError, ValueError, RuntimeError):
            break
        watched.append(number)
    try:
        yield
    finally:
        unwatch()
