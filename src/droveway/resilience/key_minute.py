"""This file knows what a key may still use of its own limits: its last minute as a ring of seconds.

Theory of operation
-------------------
A minute is a row of 125 whole numbers that somebody else keeps, perhaps for several processes:

    newest second | all requests | all tokens | requests of 61 seconds | tokens of 61 seconds

The counts of a second stand at its number modulo 61, and count in full until the last moment of
that second is sixty seconds ago. So no sixty seconds ever hold more than the limit, wherever they
begin, and nobody waits more than one second longer than with every moment kept exactly.

A process may be killed between any two writes. So the sums are made anew with every new second, a
second is forgotten with its minute, and what is past is emptied before the newest second moves on.
What is half written then is a request that was never sent, or a correction.

Tokens are reserved by estimate when a request goes. When it is back, what it did not use leaves the
second in which it went; what it used beyond counts from now on, for it was used only just.

Nothing here waits or reads a clock: `now` is in seconds of a monotonic clock, read by whoever holds
the row alone, so that it never goes back. A newest second that is yet to come was left behind by
another boot of the machine, and the row counts as empty.
"""

from typing import Final, Literal, Protocol, TypeAlias

import msgspec

# In quotes: before Python 3.14 it cannot be subscripted when it runs.
Numbers: TypeAlias = "memoryview[int]"
Reached = Literal["concurrency", "rpm", "tpm"]

BUCKETS: Final = 61
_NEWEST: Final = 0
_ALL_REQUESTS: Final = 1
_ALL_TOKENS: Final = 2
_REQUESTS: Final = 3
_TOKENS: Final = _REQUESTS + BUCKETS
NUMBERS: Final = _TOKENS + BUCKETS
# A place comes free when some answer ends, and nobody knows when that is.
PLACE_WAIT_S: Final = 1.0
_EMPTY: Final = memoryview(bytes(8 * 2 * BUCKETS)).cast("q")
# A caller may ask for any number of tokens; eight million of these fit into a number of the row.
_TOKENS_MAX: Final = 2**40


class Limits(Protocol):
    """What a key may use."""

    @property
    def rpm(self) -> int | None:
        """Requests in any 60 seconds at most; None for no limit, as for the others."""

    @property
    def tpm(self) -> int | None:
        """Tokens in any 60 seconds at most; a request that is larger than that goes alone."""

    @property
    def concurrency(self) -> int | None:
        """Requests in flight at most."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether one request goes, and what its key has used with it.

    Attributes:
        reached: The limit that holds it up the longest; None when it goes.
        wait_s: After how long to ask again, if nothing else happens; 0 when it goes.
        second: The second in which it was judged.
        reserved: Tokens that were counted for it; 0 when it does not go.
        requests: Requests of the last minute.
        tokens: Tokens of the last minute, by what is known.
    """

    reached: Reached | None
    wait_s: float
    second: int
    reserved: int
    requests: int
    tokens: int


def judge(minute: Numbers, now: float, limits: Limits, *, tokens: int, in_flight: int) -> Verdict:
    """Let one request go and count it, or count nothing.

    Args:
        minute: The key's row; changed in place.
        now: The moment, in seconds of a monotonic clock.
        limits: What the key may use.
        tokens: What the request may use, by estimate.
        in_flight: Requests of the key that are not back.

    Returns:
        Whether it goes, and when to come again if not.
    """
    second = int(now)
    if minute[_NEWEST] != second:
        _turn(minute, second)
    if not 0 <= tokens <= _TOKENS_MAX:
        tokens = max(0, min(tokens, _TOKENS_MAX))
    requests, counted = minute[_ALL_REQUESTS], minute[_ALL_TOKENS]
    rpm, tpm, concurrency = limits.rpm, limits.tpm, limits.concurrency
    if (
        (concurrency is not None and in_flight >= concurrency)
        or (rpm is not None and requests >= rpm)
        # What is larger than the limit asks for all of it: it goes alone.
        or (tpm is not None and counted + min(tokens, tpm) > tpm)
    ):
        reached, free_at = _held_up(minute, now, limits, tokens=tokens, in_flight=in_flight)
        return Verdict(reached, free_at - now, second, 0, requests, counted)
    place = second % BUCKETS
    minute[_ALL_REQUESTS] = requests + 1
    minute[_ALL_TOKENS] = counted + tokens
    minute[_REQUESTS + place] += 1
    minute[_TOKENS + place] += tokens
    return Verdict(None, 0.0, second, tokens, requests + 1, counted + tokens)


def correct(minute: Numbers, now: float, went: Verdict, *, used: int) -> None:
    """Count what a request used in truth in place of its estimate.

    Args:
        minute: The key's row; changed in place.
        now: The moment at which it is back.
        went: What it went with.
        used: Tokens that it used.
    """
    second = int(now)
    if minute[_NEWEST] != second:
        _turn(minute, second)
    beyond = min(used, _TOKENS_MAX) - went.reserved
    if beyond > 0:
        at = _TOKENS + second % BUCKETS
    elif second - went.second < BUCKETS:
        at = _TOKENS + went.second % BUCKETS
    else:
        return
    minute[at] += beyond
    minute[_ALL_TOKENS] += beyond


def is_over(minute: Numbers, now: float) -> bool:
    """Whether nothing in a row counts any more, so that another key may have it."""
    return not 0 <= int(now) - minute[_NEWEST] < BUCKETS


def _held_up(
    minute: Numbers, now: float, limits: Limits, *, tokens: int, in_flight: int
) -> tuple[Reached, float]:
    """Return the limit that holds a request up the longest, and until when; one of them does."""
    held: list[tuple[float, Reached]] = []
    if limits.concurrency is not None and in_flight >= limits.concurrency:
        held.append((now + PLACE_WAIT_S, "concurrency"))
    if limits.rpm is not None:
        excess = minute[_ALL_REQUESTS] + 1 - limits.rpm
        if excess > 0:
            held.append((_sinks_at(minute, _REQUESTS, excess=excess), "rpm"))
    if limits.tpm is not None:
        excess = minute[_ALL_TOKENS] + min(tokens, limits.tpm) - limits.tpm
        if excess > 0:
            held.append((_sinks_at(minute, _TOKENS, excess=excess), "tpm"))
    free_at, reached = max(held)
    return reached, free_at


def _sinks_at(minute: Numbers, counts: int, *, excess: int) -> float:
    """Return when the oldest seconds that hold so much between them have left the minute."""
    second = minute[_NEWEST] - BUCKETS + 1
    while second < minute[_NEWEST]:
        excess -= minute[counts + second % BUCKETS]
        if excess <= 0:
            break
        second += 1
    return float(second + BUCKETS)


def _turn(minute: Numbers, second: int) -> None:
    """Begin a new second: empty those that are no part of the minute any more, and sum it up."""
    newest = minute[_NEWEST]
    if 0 < second - newest < BUCKETS:
        for passed in range(newest + 1, second + 1):
            place = passed % BUCKETS
            minute[_REQUESTS + place] = minute[_TOKENS + place] = 0
    else:
        minute[_REQUESTS:NUMBERS] = _EMPTY
    minute[_ALL_REQUESTS] = sum(minute[_REQUESTS:_TOKENS])
    minute[_ALL_TOKENS] = sum(minute[_TOKENS:NUMBERS])
    minute[_NEWEST] = second
