"""Many callers at once through the gateway: a refusal is waited out by all of them, spread."""

import asyncio

from door import MODEL, door
from droveway.sandbox import Rule, Script
from lab import run

HERD = 17


def test_a_herd_that_is_refused_waits_in_the_gateway_and_comes_back_spread() -> None:
    """Measured of others: all seventeen return within 29 ms, and six of them die (2026-11)."""
    script = Script(rules=(Rule(times=HERD, fault="429-seconds:1"),))

    async def check() -> None:
        async with door(script=script) as it, it.sdk as sdk:
            answers = await asyncio.gather(
                *(
                    sdk.chat.completions.create(
                        model=MODEL, messages=[{"role": "user", "content": f"call {number}"}]
                    )
                    for number in range(HERD)
                )
            )
            assert all(answer.choices[0].finish_reason == "stop" for answer in answers)
            seen = it.box.journal
            refused = [each.began_at for each in seen if each.status == 429]
            back = sorted(each.began_at for each in seen if each.status == 200)
            assert len(refused) == len(back) == HERD
            # Nobody returns early, one goes first, and the others do not come all at once.
            assert back[0] >= max(refused) + 1.0 - 0.02
            assert back[-1] - back[1] > 0.2

    run(check())
