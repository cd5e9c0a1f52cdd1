"""This file knows the task file: how a line is read, and what is wrong with one that is not."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import cycle
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from droveway.agents.workflow import Task
from droveway.chat import Message
from droveway.errors import BadRequestError, SettingsError

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# Counting lines is quick, but nobody waits for it on a file that takes seconds to read.
COUNTED_BYTES_MAX: Final = 256 * 1024 * 1024


class TaskLine(Task, frozen=True, kw_only=True):
    """A task of a file.

    Attributes:
        name: Its id as it was written: text or a number.
    """

    name: int | str


class BadLine(msgspec.Struct, frozen=True):
    """A line that is no task.

    Attributes:
        line: Its number, from 1.
        reason: What is wrong with it.
    """

    line: int
    reason: str


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    """A line as it is written; further keys are the user's own business."""

    id: int | str | None = None
    question_id: int | str | None = None
    query: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    turns: tuple[str, ...] | None = None
    role: str | None = None
    model: str | None = None
    metadata: dict[str, Any] = {}


_DECODER: Final = msgspec.json.Decoder(_Written)


def open_tasks(path: Path) -> IO[bytes]:
    """Open a task file.

    Raises:
        SettingsError: It cannot be read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise SettingsError(f"cannot read the tasks {str(path)!r}: {error.strerror}") from error


def count_lines(file: IO[bytes]) -> int | None:
    """Count the lines that are not blank; None of a file that is no plain file, or is huge."""
    if not file.seekable() or os.fstat(file.fileno()).st_size > COUNTED_BYTES_MAX:
        return None
    count = sum(bool(line.strip()) for line in file)
    file.seek(0)
    return count


def read_tasks(
    file: IO[bytes], roles: Sequence[str], *, bad: Callable[[BadLine], None]
) -> Iterator[TaskLine]:
    """Read a task file line by line, as there is room for the tasks.

    A task without a role takes the next in turn. The turn is a matter of the file alone, so that
    a run that goes on gives each task the role it had before.

    Args:
        file: The file; a blank line is no line.
        roles: The roles there are.
        bad: Told of each line that is no task.
    """
    lines: dict[str, int] = {}
    turns = cycle(roles)
    for number, line in enumerate(file, 1):
        text = (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).strip()
        if not text:
            continue
        try:
            task = _task(text, number)
            if task.role is None:
                task = msgspec.structs.replace(task, role=next(turns))
            _check(task, roles, lines)
        except BadRequestError:
            bad(BadLine(number, "write exactly one of query, messages and turns, not an empty one"))
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            bad(BadLine(number, _reason(error)))
        else:
            lines[task.id] = number
            yield task


def _task(text: bytes, number: int) -> TaskLine:
    written = _DECODER.decode(text)
    name = next((each for each in (written.id, written.question_id) if each is not None), number)
    return TaskLine(
        id=str(name),
        name=name,
        role=written.role,
        query=written.query,
        messages=None if written.messages is None else tuple(map(_message, written.messages)),
        turns=written.turns,
        model=written.model,
        metadata=written.metadata,
    )


def _message(written: Mapping[str, Any]) -> Message:
    """Read a turn; what we have no name for goes to the vendor as it is."""
    extra = {key: value for key, value in written.items() if key not in {"role", "content"}}
    told = {key: written[key] for key in ("role", "content") if key in written}
    return msgspec.convert({**told, "extra": extra}, Message)


def _check(task: TaskLine, roles: Sequence[str], lines: Mapping[str, int]) -> None:
    if not task.id.strip():
        raise ValueError("its id is empty")
    if task.id in lines:
        raise ValueError(f"its id {task.name!r} is on line {lines[task.id]} already")
    if task.role is not None and task.role not in roles:
        near = get_close_matches(task.role, roles, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(roles)}"
        raise ValueError(f"there is no role {task.role!r}; {hint}")
    if not all(text.strip() for text in (task.query or "x", *(task.turns or ()))):
        raise ValueError("a text of it is blank")


def _reason(error: Exception) -> str:
    said = str(error).replace("`", "'")
    no_json = isinstance(error, msgspec.DecodeError | UnicodeDecodeError | RecursionError)
    if no_json and not isinstance(error, msgspec.ValidationError):
        return f"it is no JSON ({said})"
    return said
