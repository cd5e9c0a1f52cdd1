"""This file knows the named points at which a real process is killed, and how it is made to die.

The product has no switches for this. Instead of `python -m droveway`, a test starts

    python tests/crashing.py POINT HIT -- serve --config droveway.toml

and the process is what it always is, but that a few of its functions are wrapped: when the point is
reached for the HIT-th time, the process sends SIGKILL to itself, from the thread that is there.
A point whose function is no longer there refuses to start, by its name.
"""

import functools
import importlib
import inspect
import itertools
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

Side = Literal["before", "after", "before COMMIT"]
# When it is reached: amid requests, at a start after a crash, on the way down, amid streams of
# some seconds, at a start after such were cut, or by a command.
Scene = Literal["load", "start", "stop", "progress", "resolve", "topup", "freeze", "key"]


class Point(NamedTuple):
    """A moment at which a process can be killed.

    Attributes:
        name: For people.
        module: Where its function is.
        attribute: The function, or the method of a class; a class where a statement is given.
        side: Before it is called, after it has returned, or in it before the COMMIT.
        most: For how many hits a load is surely long enough.
        scene: What a test must do so that it is reached.
        amid: Only in a transaction in which this function was called, `module:attribute`, or in
            which SQL was run that holds these words.
        statement: Only SQL that holds these words.
    """

    name: str
    module: str
    attribute: str
    side: Side
    most: int = 40
    scene: Scene = "load"
    amid: str = ""
    statement: str = ""

    @property
    def committed(self) -> bool:
        """For a command: whether what it does is done for good by then."""
        return self.side == "after" and not self.statement


TILL: Final = "droveway.engine.till"
ATTEMPT: Final = "droveway.engine.attempt"
ROWS: Final = "droveway.engine.journal_store"
EXCHANGE: Final = "droveway.engine.exchange"
APP: Final = "droveway.gateway.app"
SERVER: Final = "droveway.gateway.server"
VISIT: Final = "droveway.gateway.visit"
CLAIMS: Final = "droveway.ledger.claims"
HOLDS: Final = "droveway.ledger.holds"
EPOCH: Final = "droveway.ledger.epoch"
CHECKPOINTS: Final = "droveway.storage.checkpoints"
CONNECTION: Final = "droveway.storage.connection"
STORE: Final = "droveway.storage.store"
WRITER: Final = "droveway.storage.writer"
SOCKET: Final = "droveway.transport.connection"
TAKE: Final = f"{HOLDS}:take"
EXTEND: Final = f"{HOLDS}:extend"
CAPTURE: Final = f"{HOLDS}:capture"
RELEASE: Final = f"{HOLDS}:release"
NOTE: Final = f"{HOLDS}:note_progress"
END_HOLD: Final = "UPDATE hold SET state ="
END_EPOCH: Final = "UPDATE epoch SET ended_at_us ="
TRANSFER: Final = "INSERT INTO transfer"
ENTRY: Final = "INSERT INTO entry"
FREEZE: Final = "SET frozen_at_us = ?"
KEY: Final = "INSERT INTO key"

# What is called with SQL.
STATEMENTS: Final = tuple(
    (CONNECTION, f"Connection.{name}") for name in ("run", "rows", "run_many")
)


def around_commit(
    what: str, *, amid: str = "", most: int = 40, scene: Scene = "load"
) -> Sequence[Point]:
    """Make the points around a COMMIT."""
    rest = (most, scene, amid)
    return (
        Point(f"{what}: before COMMIT", WRITER, "Writer._together", "before COMMIT", *rest),
        Point(f"{what}: committed, nobody told", WRITER, "Writer._together", "after", *rest),
        Point(f"{what}: committed and told", WRITER, "_tell", "after", *rest),
    )


def at_sql(
    name: str, side: Side, statement: str, *, amid: str = "", most: int = 40, scene: Scene = "load"
) -> Point:
    """Make a point at a statement."""
    return Point(name, CONNECTION, "Connection", side, most, scene, amid, statement)


# fmt: off
POINTS: Final[tuple[Point, ...]] = (
    # Before anything is sent.
    Point("hold: asked for", TILL, "Till.hold", "before"),
    Point("hold: before money is set aside", HOLDS, "take", "before"),
    at_sql("hold: money set aside, hold not yet written", "before", "INSERT INTO hold ("),
    at_sql("hold: written", "after", "INSERT INTO hold ("),
    *around_commit("hold", amid=TAKE),
    Point("hold: taken, nothing sent", TILL, "Till.hold", "after"),
    Point("claim: staked", CLAIMS, "stake", "after", 6),
    # To the vendor and back.
    Point("dispatch: before the request is written", SOCKET, "Connection.start", "before"),
    Point("dispatch: the request is written", SOCKET, "Connection.start", "after"),
    Point("dispatch: on its way", ATTEMPT, "Attempt.sent", "after"),
    Point("answer: its head came", ATTEMPT, "Attempt.on_head", "before"),
    Point("answer: bytes came, unread", ATTEMPT, "Attempt.on_chunk", "before"),
    Point("answer: bytes came, read", ATTEMPT, "Attempt.on_chunk", "after"),
    Point("answer: the vendor has ended it", ATTEMPT, "Attempt.on_done", "after"),
    Point("stream: first event, not passed on", VISIT, "Visit.start", "before", 25),
    Point("stream: its head is passed on", VISIT, "Visit.start", "after", 25),
    Point("stream: amid it, before a piece", VISIT, "Visit.write", "before", 200),
    Point("stream: amid it, after a piece", VISIT, "Visit.write", "after", 200),
    # A stream that outgrows its hold.
    Point("extension: before money is set aside", HOLDS, "extend", "before", 8),
    at_sql("extension: money set aside, hold as it was", "before", "UPDATE hold SET amount_nano =", most=8),
    Point("extension: the hold has grown", HOLDS, "extend", "after", 8),
    *around_commit("extension", amid=EXTEND, most=8),
    # What an answer came to.
    Point("settlement: asked for", TILL, "Till.settle", "before"),
    Point("settlement: nothing done", HOLDS, "capture", "before"),
    at_sql("settlement: before the hold ends", "before", END_HOLD, amid=CAPTURE),
    at_sql("settlement: the hold has ended", "after", END_HOLD, amid=CAPTURE),
    at_sql("settlement: before the transfer", "before", TRANSFER),
    at_sql("settlement: a transfer without entries", "after", TRANSFER),
    at_sql("settlement: before an entry", "before", ENTRY),
    at_sql("settlement: after an entry", "after", ENTRY),
    at_sql("settlement: a balance is changed", "after", "SET posted_nano = posted_nano", amid=CAPTURE),
    Point("settlement: posted", HOLDS, "capture", "after"),
    Point("claim: its answer is kept", CLAIMS, "keep_answer", "after", 6),
    Point("settlement: before the journal's row", ROWS, "add_rows", "before"),
    at_sql("settlement: a row without its attempts", "after", "INSERT INTO request"),
    Point("settlement: after the journal's row", ROWS, "add_rows", "after"),
    *around_commit("settlement", amid=CAPTURE),
    Point("settlement: done, the last frame not written", TILL, "Till.settle", "after"),
    Point("last frame of a stream: before", VISIT, "Visit.end", "before", 25),
    Point("last frame of a stream: after", VISIT, "Visit.end", "after", 25),
    Point("whole answer: before", VISIT, "Visit.respond", "before"),
    Point("whole answer: after", VISIT, "Visit.respond", "after"),
    # What streams have come to so far, and what becomes of that.
    Point("progress: before it is noted", HOLDS, "note_progress", "before", 4, "progress"),
    Point("progress: noted", HOLDS, "note_progress", "after", 4, "progress"),
    *around_commit("progress", amid=NOTE, most=1, scene="progress"),
    at_sql("cut stream: before its transfer", "before", TRANSFER, most=4, scene="resolve"),
    at_sql("cut stream: a transfer without entries", "after", TRANSFER, most=4, scene="resolve"),
    at_sql("cut stream: after an entry", "after", ENTRY, most=4, scene="resolve"),
    *around_commit("cut stream", amid=TRANSFER, most=1, scene="resolve"),
    # What produced nothing, or was given up.
    Point("hang-up: nobody waits any more", EXCHANGE, "Exchange.give_up", "after", 10),
    Point("release: asked for", TILL, "Till.release", "before", 8),
    Point("release: nothing done", HOLDS, "release", "before", 8),
    at_sql("release: the hold has ended", "after", END_HOLD, amid=RELEASE, most=8),
    Point("release: the money is given back", HOLDS, "release", "after", 8),
    *around_commit("release", amid=RELEASE, most=8),
    Point("release: done, nobody answered", TILL, "Till.release", "after", 8),
    # A start after a crash: several holds of the dead are open.
    Point("epoch: not begun", EPOCH, "Epoch.begin", "before", 1, "start"),
    at_sql("epoch: locked, no row", "before", "INSERT INTO epoch", most=1, scene="start"),
    at_sql("epoch: its row is written", "after", "INSERT INTO epoch", most=1, scene="start"),
    Point("epoch: before the dead are resolved", EPOCH, "Epoch.resolve_the_dead", "before", 1, "start"),
    at_sql("epoch: before a hold of the dead ends", "before", END_HOLD, most=4, scene="start"),
    at_sql("epoch: one hold of several has ended", "after", END_HOLD, most=4, scene="start"),
    at_sql("epoch: the dead one has ended", "after", END_EPOCH, most=1, scene="start"),
    *around_commit("epoch", most=2, scene="start"),
    Point("epoch: resolved, before the unlink", "pathlib", "Path.unlink", "before", 1, "start"),
    Point("epoch: resolved, after the unlink", "pathlib", "Path.unlink", "after", 1, "start"),
    Point("epoch: the dead are resolved", EPOCH, "Epoch.resolve_the_dead", "after", 1, "start"),
    Point("epoch: begun", EPOCH, "Epoch.begin", "after", 1, "start"),
    # On the way down.
    Point("shutdown: the drain begins", SERVER, "Served.go_down", "after", 1, "stop"),
    Point("shutdown: what is left is cut", APP, "Gateway.cut_all", "after", 1, "stop"),
    Point("shutdown: before the journal closes", ROWS, "StoredJournal.aclose", "before", 1, "stop"),
    Point("shutdown: before the epoch ends", EPOCH, "Epoch.end", "before", 1, "stop"),
    at_sql("shutdown: the epoch has ended", "after", END_EPOCH, most=1, scene="stop"),
    Point("shutdown: before the unlink", "pathlib", "Path.unlink", "before", 1, "stop"),
    Point("shutdown: the epoch is gone", EPOCH, "Epoch.end", "after", 1, "stop"),
    Point("shutdown: the store is closed", STORE, "Store.close", "after", 1, "stop"),
    # Beside everything else.
    Point("log: before it is moved into the file", CHECKPOINTS, "Checkpoints._move", "before", 4),
    Point("log: moved into the file", CHECKPOINTS, "Checkpoints._move", "after", 4),
    # Commands, while a server serves.
    at_sql("top-up: before the transfer", "before", TRANSFER, most=1, scene="topup"),
    at_sql("top-up: a transfer without entries", "after", TRANSFER, most=1, scene="topup"),
    at_sql("top-up: after an entry", "after", ENTRY, most=1, scene="topup"),
    *around_commit("top-up", amid=TRANSFER, most=1, scene="topup"),
    Point("top-up: booked, not printed", STORE, "Store.write", "after", 1, "topup"),
    Point("top-up: printed", "click", "echo", "after", 1, "topup"),
    at_sql("freeze: before", "before", FREEZE, most=1, scene="freeze"),
    *around_commit("freeze", amid=FREEZE, most=1, scene="freeze"),
    at_sql("key: written", "after", KEY, most=1, scene="key"),
    *around_commit("key", amid=KEY, most=1, scene="key"),
    Point("key: printed", "click", "echo", "after", 1, "key"),
)
# fmt: on
BY_NAME: Final[Mapping[str, Point]] = {point.name: point for point in POINTS}


def find(module: str, attribute: str) -> tuple[Any, str, Any]:
    """Return whose attribute it is, its name there, and what stands there.

    Raises:
        LookupError: It is not there.
    """
    *path, leaf = attribute.split(".")
    try:
        owner: Any = functools.reduce(getattr, path, importlib.import_module(module))
        return owner, leaf, inspect.getattr_static(owner, leaf)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"there is no {attribute!r} in {module!r} any more") from error


def wrap(module: str, attribute: str, around: Callable[[Callable[..., Any]], Any]) -> None:
    """Replace a function wherever a module of the product knows it, by whatever name."""
    owner, leaf, found = find(module, attribute)
    if isinstance(found, classmethod | staticmethod):
        setattr(owner, leaf, type(found)(around(found.__func__)))
        return
    wrapped = functools.wraps(found)(around(found))
    setattr(owner, leaf, wrapped)
    for name, other in tuple(sys.modules.items()):
        if name.partition(".")[0] == "droveway":
            for known, what in tuple(vars(other).items()):
                if what is found:
                    setattr(other, known, wrapped)


class Committing:
    """A driver that tells before it commits."""

    def __init__(self, driver: Any, tell: Callable[[], None]) -> None:
        self._driver = driver
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def execute(self, sql: str, *rest: Any) -> Any:
        if sql == "COMMIT":
            self._tell()
        return self._driver.execute(sql, *rest)


class Trap:
    """Kills this process when a point is reached for the so-manieth time."""

    def __init__(self, point: Point, hit: int) -> None:
        self._point = point
        self._hit = hit
        self._hits = itertools.count(1)
        self._is_amid = not point.amid

    def lay(self) -> None:
        """Wrap what has to be."""
        point = self._point
        if point.amid:
            wrap(WRITER, "Writer._together", lambda original: _first(self._forget, original))
            module, _, attribute = point.amid.partition(":")
            wrapped = ((module, attribute),) if attribute else STATEMENTS
            for where in wrapped:
                wrap(*where, lambda original: _first(self._note, original))
        wrapped = STATEMENTS if point.statement else ((point.module, point.attribute),)
        for where in wrapped:
            wrap(*where, self._around)

    def _forget(self, _: tuple[Any, ...]) -> None:
        self._is_amid = False

    def _note(self, given: tuple[Any, ...]) -> None:
        amid = self._point.amid
        self._is_amid = self._is_amid or ":" in amid or _holds(given, amid)

    def _reached(self) -> None:
        if self._is_amid and next(self._hits) == self._hit:
            os.kill(os.getpid(), signal.SIGKILL)

    def _step(self, side: Side, given: tuple[Any, ...]) -> None:
        words = self._point.statement
        if side == self._point.side and (not words or _holds(given, words)):
            self._reached()

    def _around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(original):

            async def waiting(*given: Any, **named: Any) -> Any:
                self._step("before", given)
                result = await original(*given, **named)
                self._step("after", given)
                return result

            return waiting

        def wrapped(*given: Any, **named: Any) -> Any:
            self._step("before", given)
            if self._point.side == "before COMMIT":
                own, driver, *rest = given
                given = (own, Committing(driver, self._reached), *rest)
            result = original(*given, **named)
            self._step("after", given)
            return result

        return wrapped


def _first(
    step: Callable[[tuple[Any, ...]], None], original: Callable[..., Any]
) -> Callable[..., Any]:
    def stepping(*given: Any, **named: Any) -> Any:
        step(given)
        return original(*given, **named)

    return stepping


def _holds(given: tuple[Any, ...], words: str) -> bool:
    """Whether the SQL that a connection was given holds some words."""
    return words in " ".join(given[1].split())


def launch(name: str, hit: int, arguments: Sequence[str]) -> None:
    """Be the command line, until the point is reached.

    Raises:
        LookupError: The point is not there any more.
    """
    main = importlib.import_module("droveway.cli.main").main
    importlib.import_module(f"droveway.cli.{arguments[0]}")
    try:
        Trap(BY_NAME[name], hit).lay()
    except LookupError as error:
        raise LookupError(f"the crash point {name!r} cannot be reached: {error}") from error
    sys.argv = ["droveway", *arguments]
    main()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: what stands in it is no part of the process
    launch(sys.argv[1], int(sys.argv[2]), sys.argv[4:])
