"""This file knows the demo's provider: how it misbehaves, and what became of each misdeed."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from droveway.sandbox import Profile, Rule, Sandbox, Script, Seen
from droveway.settings import Timeout

# Short clocks, so that what hangs is noticed while somebody watches.
PATIENCE: Final = Timeout(connect_s=2.0, first_token_s=2.0, idle_s=1.5, total_s=25.0)

# What it does, in words, how often, and the sandbox's name for it.
_MISDEEDS: Final = (
    ("429, come back in 0.4 s", 0.02, "429-ms:400"),
    ("429, Retry-After: 1", 0.02, "429-seconds:1"),
    ("500 internal error", 0.03, "500"),
    ("503 overloaded, Retry-After: 1", 0.02, "503-seconds:1"),
    ("502 with a proxy's HTML page", 0.015, "502-html"),
    ("silence before the first token", 0.015, "slow-headers"),
    ("silence in mid-stream", 0.01, "stall:12"),
    ("comments only, in mid-stream", 0.01, "stall-keepalive:20"),
    ("hang-up before an answer", 0.01, "hang-up"),
    ("stream cut by the peer", 0.015, "cut-event:25"),
    ("stream reset by the peer", 0.01, "cut-event-rst:10"),
    ("end without a finish marker", 0.01, "end-without-finish"),
    ("lines that are no JSON", 0.02, "malformed:2"),
    ("keep-alive comments first", 0.03, "keepalive-first:6"),
    ("no usage told", 0.02, "usage-missing"),
    ("characters split in two", 0.02, "split-utf8"),
    ("no [DONE] at the end", 0.02, "end-without-done"),
)
# A refusal stops the whole line and lets it come back slowly; a demo has half a minute.
REFUSALS: Final = {"429-ms:400": 2, "429-seconds:1": 1, "503-seconds:1": 1}
_WORDS: Final = {fault: words for words, _, fault in _MISDEEDS}


class Misdeed(msgspec.Struct, kw_only=True):
    """One kind of misdeed and what became of the tasks it hit.

    Attributes:
        fault: The sandbox's name for it.
        words: What it is.
        times: How often it happened.
        answered: How many of these times the task has an answer in the end.
        asked_again: How many of these times the task had to be asked again as a whole.
    """

    fault: str
    words: str
    times: int = 0
    answered: int = 0
    asked_again: int = 0


def misbehaving(seed: int, *, faults: bool) -> Sandbox:
    """Make the provider.

    Args:
        seed: Seed of its answers, its pace and its misdeeds.
        faults: Whether it misbehaves at all.
    """
    rules = [
        Rule(fault=fault, probability=chance, times=REFUSALS.get(fault))
        for _, chance, fault in _MISDEEDS
    ]
    return Sandbox(
        seed=seed,
        script=Script(rules=tuple(rules) if faults else ()),
        profile=Profile(first_token_s=0.2, token_s=0.008, answer_tokens=120),
        journal_bodies=True,
    )


def misdeeds(
    journal: Sequence[Seen], tasks: Mapping[str, str], *, ok: set[str], again: set[str]
) -> list[Misdeed]:
    """Say what the provider did wrong, and what became of it.

    Args:
        journal: What the provider saw.
        tasks: The id of each task by its last user's message, whichever turn.
        ok: Ids of the tasks with an answer.
        again: Ids of the tasks that were asked again as a whole.
    """
    found = {fault: Misdeed(fault=fault, words=words) for fault, words in _WORDS.items()}
    for seen in journal:
        if seen.fault is None:
            continue
        misdeed = found[seen.fault]
        task = tasks.get(_question(seen.body or b""))
        misdeed.times += 1
        misdeed.answered += task in ok
        misdeed.asked_again += task in again
    return [misdeed for misdeed in found.values() if misdeed.times]


def _question(body: bytes) -> str:
    told: dict[str, Any] = msgspec.json.decode(body)
    return str(told["messages"][-1]["content"])
