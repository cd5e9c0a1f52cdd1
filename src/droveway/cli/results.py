"""This file knows the results file: one line for each task, and how a run goes on after a stop.

Lines are appended as tasks end, so a crash costs at most the last one, torn, which the next run
drops. A task that is done again gets a further line; the newest counts, and when a run ends the
file is rewritten with one line for each task.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import msgspec

try:
    import fcntl
except ImportError:  # Windows has no such lock; two runs on one file are the user's to avoid
    fcntl = None  # type: ignore[assignment]

from droveway.agents.outcomes import Outcome
from droveway.cli.tasks import TaskLine
from droveway.errors import DrovewayError, SettingsError, StreamTruncatedError

_BEGINNING: Final = b'{"id":'


class _Head(msgspec.Struct, frozen=True):
    """What must be known of a line to go on."""

    id: int | str
    outcome: str
    task: str | None = None


_HEADS: Final = msgspec.json.Decoder(_Head)


class Results:
    """A results file that is being written.

    Args:
        path: Where it is; what it holds already is kept.

    Attributes:
        ok: The ids of the tasks that are answered, as text.

    Raises:
        SettingsError: It cannot be written, or holds something else than results; it is unchanged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # The file behind a link is what is replaced at the end, not the link.
        self._real = path.resolve()
        self._plain = not self._real.exists() or self._real.is_file()
        self._again = False
        self.ok: set[str] = set()
        self._prints: dict[str, str | None] = {}
        self._known: set[str] = set()
        try:
            # Without a buffer: what was written is with the system, whatever happens to us.
            self._file = self._real.open("ab", buffering=0)
        except OSError as error:
            raise SettingsError(self._cannot(error)) from error
        try:
            if self._plain:
                self._lock()
                self._read()
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        """Keep a second run away: both would ask, and pay for, the same tasks."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"another run is writing {str(self.path)!r}; wait for it, or choose another file"
            ) from error

    def answered(self, task: TaskLine) -> bool:
        """Whether this very task is answered; one that was changed since is not."""
        return task.id in self.ok and self._prints.get(task.id) in {None, fingerprint(task)}

    def _read(self) -> None:
        end = 0
        with self._real.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    head = _HEADS.decode(line)
                except (msgspec.MsgspecError, ValueError):
                    if not _torn(line):
                        raise SettingsError(
                            f"line {number} of {str(self.path)!r} is no result; choose another "
                            "file for the results, or move this one away"
                        ) from None
                    self._file.truncate(end)
                    return
                end += len(line)
                self._note(str(head.id), ok=head.outcome == "ok")
                self._prints[str(head.id)] = head.task
                if not line.endswith(b"\n"):
                    self._file.write(b"\n")
                    return

    def _note(self, name: str, *, ok: bool) -> None:
        self._again = self._again or name in self._known
        self._known.add(name)
        (self.ok.add if ok else self.ok.discard)(name)

    def add(self, line: dict[str, Any]) -> None:
        """Write a result down, at once.

        Raises:
            DrovewayError: The disk does not take it.
        """
        left = memoryview(msgspec.json.encode(line) + b"\n")
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise DrovewayError(self._cannot(error)) from error
        self._note(str(line["id"]), ok=line["outcome"] == "ok")

    def _cannot(self, error: OSError) -> str:
        return (
            f"cannot write the results {str(self.path)!r}: {error.strerror}; make room or choose "
            "another file"
        )

    def close(self) -> None:
        """Finish: the file is on the disk, with one line for each task."""
        if self._plain:
            os.fsync(self._file.fileno())
        self._file.close()
        if self._plain and self._again:
            self._compact()
            self._again = False

    def _compact(self) -> None:
        fresh = self._real.with_name(f".{self._real.name}.{os.getpid()}")
        try:
            with self._real.open("rb") as old, fresh.open("xb") as new:
                for line in _newest(old):
                    new.write(line)
                new.flush()
                os.fsync(new.fileno())
            shutil.copymode(self._real, fresh)
            fresh.replace(self._real)
        finally:
            with suppress(FileNotFoundError):
                fresh.unlink()


def fingerprint(task: TaskLine) -> str:
    """Return a short name of what a task asks; the same for the same words, whoever works on it."""
    asked = (task.query, task.messages, task.turns, task.model)
    return hashlib.blake2b(msgspec.json.encode(asked), digest_size=8).hexdigest()


def _torn(line: bytes) -> bool:
    """Tell whether a line is the beginning of a result whose writer was killed."""
    return not line.endswith(b"\n") and _BEGINNING.startswith(line[: len(_BEGINNING)])


def _newest(file: IO[bytes]) -> Iterator[bytes]:
    """Give out the newest line of each task, in the order of the file."""
    last = {str(_HEADS.decode(line).id): number for number, line in enumerate(file)}
    file.seek(0)
    wanted = set(last.values())
    return (line for number, line in enumerate(file) if number in wanted)


def result_line(
    task: TaskLine, outcome: Outcome, *, at: datetime, wall_ms: float, model: str
) -> dict[str, Any]:
    """Write a task's outcome as the line it gets.

    Args:
        task: The task.
        outcome: How it ended.
        at: When it was begun.
        wall_ms: From then to its end.
        model: What was asked for.
    """
    spending, replies = outcome.spending, outcome.replies
    texts = [reply.text for reply in replies]
    ok = outcome.status == "ok"
    # A cost that leaves something out would be wrong; then it is not known.
    cost = None if spending.unpriced else spending.cost
    line: dict[str, Any] = {"id": task.name, "role": outcome.role, "outcome": outcome.status}
    if task.turns:
        line["turns"] = texts
    else:
        line["text"] = texts[0] if texts else None
    line |= {
        "model": (replies[-1].model if replies else None) or task.model or model,
        "finish_reason": replies[-1].finish_reason if replies else None,
        "usage": msgspec.to_builtins(spending.usage),
        "cost": None if cost is None else cost.decimal(),
        "currency": None if cost is None else cost.currency,
        "attempts": spending.attempts,
        "latency_ms": round(sum(each.latency_ms for each in replies) if ok else wall_ms, 3),
        "first_token_ms": _rounded(replies[0].first_token_ms if replies else None),
        "at": at.isoformat(),
        "task": fingerprint(task),
    }
    if task.metadata:
        line["metadata"] = task.metadata
    if outcome.error is not None:
        line["error"] = error_json(outcome.error)
    return line


def error_json(error: DrovewayError) -> dict[str, str]:
    """Write an error down; of a cut stream with what had come until then."""
    told = {"code": error.code, "message": str(error)}
    if isinstance(error, StreamTruncatedError) and error.partial.text:
        told["partial"] = error.partial.text
    return told


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)
