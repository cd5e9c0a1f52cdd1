"""This file knows a crowd of requests that suffer seeded faults, and how their books are checked."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from droveway.sandbox import Rule, Sandbox, Script
from droveway.settings import StreamsSettings
from faults.caller import Told, call, hang_up
from faults.matrix import FAULTS
from faults.stand import PRICE, SPEECH, Stand, settings, standing

AT_ONCE: Final = 96
# A refusal stops the line of its model: with one line alone, the crowd would wait for itself.
MODELS: Final = tuple(f"model-{number}" for number in range(200))
CLOCKS: Final = StreamsSettings(connect_s=2, first_token_s=0.8, idle_s=0.8, total_s=2)
# Slow enough that a caller can hang up amid it.
SLOW: Final = "slow-tokens:0.01"
# A megabyte each, and waits of a second and more: a few of them are enough.
DEAR: Final = frozenset({"huge-event", "429", "429-negative", "429-garbage", "429-seconds:5",
                         "429-date:5", SLOW})  # fmt: skip
# What requests cost beyond what their account had: the operator's loss.
UNPAID: Final = "SELECT coalesce(sum(posted_nano), 0) FROM account WHERE kind = 'loss'"
# Attempts whose time was over, or whose caller was gone, before they were sent: no vendor saw them,
# so they have no cost of ours. What the one attempt of a request says is said by its row.
UNSENT: Final = """
SELECT
  (SELECT count(*) FROM request WHERE attempts = 1 AND own_cost_nano IS NULL
    AND code IN ('upstream_timeout', 'cancelled'))
  + (SELECT count(*) FROM attempt WHERE cost_nano IS NULL
    AND code IN ('upstream_timeout', 'cancelled'))
"""
# A caller who hangs up before the head has no id to be found by.
ENDS: Final = "SELECT id, outcome, code, client_gone, attempts, cost_nano FROM request ORDER BY id"


class Wish(NamedTuple):
    """One request of the crowd.

    Attributes:
        model: Whom it asks.
        fault: What it suffers; None for nothing.
        stream: Whether it asks for a stream.
        leaves: After how many bytes of the answer its caller hangs up; None for not at all.
    """

    model: str
    fault: str | None
    stream: bool
    leaves: int | None


def wishes(count: int, *, seed: int) -> list[Wish]:
    """Draw a crowd: two in three suffer a fault, one in twenty hangs up."""
    chance = random.Random(seed)
    names, weights = list(FAULTS), [1 if name in DEAR else 20 for name in FAULTS]

    def drawn() -> Wish:
        model, stream = chance.choice(MODELS), chance.random() < 0.6
        if chance.random() < 0.05:
            return Wish(model, SLOW, stream=True, leaves=chance.randrange(3_000))
        fault = chance.choices(names, weights)[0] if chance.random() < 2 / 3 else None
        return Wish(model, fault, stream=stream, leaves=None)

    return [drawn() for _ in range(count)]


async def let_in(crowd: list[Wish], folder: Path) -> None:
    """Let them all ask, and check that each has exactly one end and one settlement."""
    script = Script(rules=tuple(Rule(contains=f"<{name}>", fault=name) for name in FAULTS))
    turns = asyncio.Semaphore(AT_ONCE)
    async with Sandbox(profile=SPEECH, script=script) as box:
        told = settings(box.base_url, streams=CLOCKS)
        prices = {f"vendor/{model}": PRICE for model in MODELS}
        told = msgspec.structs.replace(told, prices=prices)
        async with standing(folder, told, balance="1000.00") as stand:

            async def one(number: int, wish: Wish) -> Told | None:
                async with turns:
                    return await _ask(stand.url, number, wish)

            asking = [one(number, wish) for number, wish in enumerate(crowd)]
            answers = await asyncio.gather(*asking)
            while stand.engine.open_exchanges:
                await asyncio.sleep(0.01)
            check(stand, answers, seen=len(box.journal))


async def _ask(url: str, number: int, wish: Wish) -> Told | None:
    """Ask, and read to the end; None where the caller hangs up before it."""
    words = f"request {number} <{wish.fault}>"
    fields = {
        "model": wish.model,
        "messages": [{"role": "user", "content": words}],
        "stream": wish.stream,
    }
    if wish.leaves is not None:
        await hang_up(url, fields, after=wish.leaves)
        return None
    return await call(url, fields)


def check(stand: Stand, answers: Sequence[Told | None], *, seen: int) -> None:
    """Check that each request has one row, one end of its hold, and was told how it ended."""
    rows = {str(row[0]): row[1:] for row in stand.store.read(ENDS)}
    assert len(rows) == len(answers)
    held = stand.store.read("SELECT id, state, charged_nano FROM hold")
    holds = {str(id_): (state, charged or 0) for id_, state, charged in held}
    assert holds.keys() == rows.keys()
    # A crowd without one of these proves nothing of it.
    assert {row[0] for row in rows.values()} == {"completed", "failed", "cancelled"}
    for id_, (outcome, _, _, _, cost) in rows.items():
        state, charged = holds[id_]
        assert state == ("captured" if cost is not None else "released"), id_
        assert charged == (cost or 0), id_
        assert cost is not None or outcome != "completed", id_
    for told in answers:
        if told is not None:
            outcome, code, gone, *_ = rows.pop(told.headers["x-request-id"])
            assert not gone
            _check_told(told, outcome=str(outcome), code=code)
    # Who is left has hung up: before the end, or just behind it.
    assert len(rows) == answers.count(None)
    paid = sorted(cost for _, cost in holds.values() if cost)
    assert sorted(stand.spent()) == paid
    ((sent,),) = stand.store.read("SELECT sum(attempts) FROM request")
    ((unsent,),) = stand.store.read(UNSENT)
    assert sent - unsent == seen, f"{sent} attempts, {unsent} of them unsent, {seen} seen"
    assert stand.store.read(UNPAID) == [(0,)]


def _check_told(told: Told, *, outcome: str, code: object) -> None:
    """What the caller was told is what the journal says, and only a whole answer looks whole."""
    assert told.whole
    error = told.error
    if error is None:
        assert (told.status, outcome) == (200, "completed")
        assert told.done == told.headers["content-type"].startswith("text/event-stream")
        return
    # What the vendor says of our account is ours: its caller hears of a failed vendor.
    assert (outcome, error["code"]) == ("failed", code)
    assert not told.done
