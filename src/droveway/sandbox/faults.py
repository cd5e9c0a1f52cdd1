"""This file knows every fault by name, and how one is asked for: `NAME:ARG@TIMES`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from droveway.sandbox.fault import Fault
from droveway.sandbox.fault_bytes import BYTE_FAULTS
from droveway.sandbox.fault_ending import ENDING_FAULTS
from droveway.sandbox.fault_events import EVENT_FAULTS
from droveway.sandbox.fault_status import STATUS_FAULTS
from droveway.sandbox.fault_usage import USAGE_FAULTS

_ALL: Final = (*STATUS_FAULTS, *ENDING_FAULTS, *EVENT_FAULTS, *USAGE_FAULTS, *BYTE_FAULTS)
_BY_NAME: Final = {fault.name: fault for fault in _ALL}

FAULTS: Final[Mapping[str, str]] = MappingProxyType({f.name: f.says for f in _ALL})
"""Every fault: its name and one sentence on what it does."""

MODEL_PREFIX: Final = "fault-"
_NUMBER_MAX: Final = 1e9


@dataclass(frozen=True, slots=True)
class Wish:
    """A fault that was asked for.

    Attributes:
        text: How it was asked for.
        fault: Which one it is.
        number: Its argument, or its usual one.
        times: Only so many requests of the same body suffer it; None is all.
    """

    text: str
    fault: Fault
    number: float
    times: int | None


def read_wish(text: str) -> Wish:
    """Read `NAME`, `NAME:ARG`, `NAME@TIMES` or `NAME:ARG@TIMES`.

    Raises:
        ValueError: There is no such fault, or the numbers are none.
    """
    rest, _, times = text.partition("@")
    name, _, argument = rest.partition(":")
    fault = _BY_NAME.get(name)
    if fault is None:
        near = get_close_matches(name, _BY_NAME, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"the sandbox has no fault {name!r}{hint}")
    if argument and fault.default is None:
        raise ValueError(f"fault {name!r} takes no argument")
    number = _number(argument, text) if argument else (fault.default or 0.0)
    limit = _number(times, text) if "@" in text else None
    return Wish(text, fault, number, None if limit is None else int(limit))


def _number(text: str, wish: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _NUMBER_MAX:
        raise ValueError(f"{text!r} in fault {wish!r} must be a number from 0 to 10^9")
    return value
