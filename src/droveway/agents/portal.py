"""This file knows the portal: one background event loop through which all synchronous calls go.

There is one for the whole process, so that synchronous agents in many threads share connections
and lines, and it works where a loop is running already, as in a notebook.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from droveway.agents.shared import close_all

T = TypeVar("T")
CLOSE_S: Final = 5.0


class Portal:
    """Runs coroutines on a loop in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end and return the result; an interrupt cancels the work and is raised.

        Raises:
            RuntimeError: Called from the portal's own loop, where it would wait for itself.
        """
        loop = self._running_loop()
        if _running() is loop:
            work.close()
            raise RuntimeError("a synchronous agent was called inside a tool; use AsyncAgent there")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # harmless when it has ended; an interrupted caller wants no more
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            # A forked child has the object but not the thread.
            if self._loop is None or self._process != os.getpid():
                self._loop = new_loop()
                self._process = os.getpid()
                threading.Thread(
                    target=self._loop.run_forever, name="droveway-portal", daemon=True
                ).start()
                atexit.register(self._close)
            return self._loop

    def _close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None or self._process != os.getpid():
            return
        try:
            asyncio.run_coroutine_threadsafe(close_all(), loop).result(CLOSE_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)


def new_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop: uvloop's where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


PORTAL: Final = Portal()
