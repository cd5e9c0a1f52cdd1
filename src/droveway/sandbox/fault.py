"""This file knows what a fault is: a named way to turn a good reply into a bad one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from droveway.sandbox.reply import Reply


@dataclass(frozen=True, slots=True)
class Case:
    """The circumstances in which a fault is played.

    Attributes:
        number: Its argument: a count, or seconds; infinite where none was given and none is usual.
        now: The wall clock, UTC.
        stream: Whether the reply is a stream of events.
    """

    number: float
    now: datetime
    stream: bool

    @property
    def count(self) -> int:
        """The argument as a count."""
        return int(self.number)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the registry.

    Attributes:
        name: What follows `fault-` in a model's name.
        says: One sentence for the docs.
        play: Turns the good reply into the bad one; it changes nothing else.
        default: The argument where none is given; None for a fault that takes no argument.
        only_chats: Whether it bends choices or events, so that embeddings cannot suffer it.
    """

    name: str
    says: str
    play: Callable[[Reply, Case], Reply]
    default: float | None = None
    only_chats: bool = False
