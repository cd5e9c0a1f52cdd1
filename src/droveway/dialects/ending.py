"""This file knows how a stream ends: the one table that says completed, failed or cancelled.

Theory of operation
-------------------
A stream is a promise of an answer, and only one thing redeems it: the vendor's finish marker, a
`finish_reason` on a choice. Everything else that may happen at the end is evidence about the
carrier, not about the answer:

- `[DONE]` says that the vendor has no more to send. Without a finish marker before it the answer
  is still a fragment.
- A clean end of the body says that HTTP kept its word. Proxies end bodies cleanly when the
  vendor behind them dies, so it proves nothing about the answer.
- A broken connection or a silent one after the finish marker has lost at most the usage chunk;
  the answer is whole.

So the state of a stream is three facts (`finished`, `done`, `malformed` lines so far), and what
happens to it is one of seven signals. `end_of` maps both to exactly one ending. There is no
default branch: a signal or fact added to the types must be added to the table.

    signal, finish marker    seen          not seen
    done ([DONE] arrived)      completed     truncated
    body_end (clean)           completed     truncated
    broken (connection lost)   completed     truncated
    idle (silence)             completed     timed_out
    error_event (in band)      upstream_error, seen or not: the vendor took the answer back
    malformed (too many)       protocol, seen or not
    cancelled (caller gone)    cancelled, seen or not
"""

from typing import Final, Literal

Signal = Literal["done", "body_end", "broken", "idle", "error_event", "malformed", "cancelled"]
Ending = Literal["completed", "truncated", "timed_out", "upstream_error", "protocol", "cancelled"]
Outcome = Literal["completed", "failed", "cancelled"]

MALFORMED_LINES_MAX: Final = 5

TABLE: Final[dict[tuple[Signal, bool], Ending]] = {
    ("done", True): "completed",
    ("done", False): "truncated",
    ("body_end", True): "completed",
    ("body_end", False): "truncated",
    ("broken", True): "completed",
    ("broken", False): "truncated",
    ("idle", True): "completed",
    ("idle", False): "timed_out",
    ("error_event", True): "upstream_error",
    ("error_event", False): "upstream_error",
    ("malformed", True): "protocol",
    ("malformed", False): "protocol",
    ("cancelled", True): "cancelled",
    ("cancelled", False): "cancelled",
}

_OUTCOMES: Final[dict[Ending, Outcome]] = {
    "completed": "completed",
    "truncated": "failed",
    "timed_out": "failed",
    "upstream_error": "failed",
    "protocol": "failed",
    "cancelled": "cancelled",
}


def end_of(signal: Signal, *, finished: bool) -> Ending:
    """Say how a stream ended.

    Args:
        signal: What happened last.
        finished: Whether the vendor's finish marker had been seen.
    """
    return TABLE[signal, finished]


def outcome_of(ending: Ending) -> Outcome:
    """Say which of the three outcomes an ending is; exactly one."""
    return _OUTCOMES[ending]
