"""Phased roll-out through the gateway and the library: who answers, and what the journal says."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from door import SECRET, FakeKey
from droveway import AsyncAgent
from droveway.chat import ChatRequest
from droveway.clock import StillClock
from droveway.engine import placing
from droveway.engine.arms import arms
from droveway.engine.engine import Engine
from droveway.engine.journal import Journal
from droveway.engine.journal_store import StoredJournal
from droveway.engine.placing import REMEMBERED_S, Placing
from droveway.engine.records import Row
from droveway.engine.terms import Terms
from droveway.gateway.app import Gateway
from droveway.gateway.server import Served, listen
from droveway.sandbox import Sandbox
from droveway.settings import AliasSettings, ProviderSettings, RolloutSettings, Settings
from droveway.storage import Store
from lab import INSTANT, answered, ask, run, terms
from paying import MODEL, costs, dear, paid, spent

MANY = 30
CRITIC = FakeKey(tags={"role": "critic"})


def told(box: Sandbox, percent: int | str | None) -> Settings:
    rollout = {} if percent is None else {"critic": RolloutSettings(to="fast", percent=percent)}
    return Settings(
        providers={"vendor": ProviderSettings(base_url=box.base_url)},
        models={"fast": AliasSettings(candidates=("vendor/m-new",))},
        rollout=rollout,
    )


class Fleet:
    """A gateway whose callers speak for the role of their key."""

    def __init__(self, gateway: Gateway, box: Sandbox, url: str) -> None:
        self.gateway = gateway
        self.box = box
        self.sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=SECRET, max_retries=0)
        self.talks: dict[int, list[Any]] = {}

    @property
    def rows(self) -> list[Row]:
        return list(self.gateway.engine.journal.rows)

    def reload(self, percent: int | str | None) -> None:
        self.gateway.engine = self.gateway.engine.successor(told(self.box, percent))

    async def ask(
        self, messages: list[Any], headers: Mapping[str, str] | None = None
    ) -> tuple[str, str | None]:
        """Ask once; the vendor's name of the model that answered, and the arm in the journal."""
        await self.sdk.chat.completions.create(
            model="m-old", messages=messages, extra_headers=headers
        )
        row = self.rows[-1]
        assert row.asked == "m-old"
        return row.attempts[-1].model, row.tags.get("arm")

    async def begin(self, first: int, beyond: int) -> set[int]:
        """Let conversations take their first turn; those that have moved."""
        for each in range(first, beyond):
            self.talks[each] = [{"role": "system", "content": "Be brief."}]
        return await self.go_on(range(first, beyond))

    async def go_on(self, numbers: range) -> set[int]:
        """Let conversations take a further turn; those that are answered by the new model."""
        new = set()
        for each in numbers:
            talk = self.talks[each]
            talk.append({"role": "user", "content": f"turn {len(talk)} of {each}"})
            model, arm = await self.ask(talk)
            assert (model, arm) in {("m-new", "new"), ("m-old", "old")}
            talk.append({"role": "assistant", "content": "So it is."})
            if arm == "new":
                new.add(each)
        return new


@asynccontextmanager
async def fleet(percent: int | str | None, key: FakeKey = CRITIC) -> AsyncIterator[Fleet]:
    async with (
        Sandbox(profile=INSTANT, journal_bodies=True) as box,
        Engine(told(box, percent), environ={}) as engine,
    ):
        gateway = Gateway(engine, find_key=lambda _: key)
        async with Served(gateway, listen("127.0.0.1", 0), drain_s=5) as server:
            made = Fleet(gateway, box, server.url)
            async with made.sdk:
                yield made


def hi(text: str = "Say hi.") -> list[Any]:
    return [{"role": "user", "content": text}]


def went_on(text: str = "Say hi.") -> list[Any]:
    return [*hi(text), {"role": "assistant", "content": "Hi."}, *hi("And again?")]


# Shares.


def test_nobody_changes_the_model_within_five_turns_and_about_the_share_has_moved() -> None:
    async def check() -> None:
        async with fleet(50) as it:
            moved = await it.begin(0, MANY)
            assert MANY / 4 < len(moved) < MANY * 3 / 4
            for _ in range(4):
                assert await it.go_on(range(MANY)) == moved

    run(check())


def test_a_growing_percentage_moves_what_begins_then_and_nothing_that_goes_on() -> None:
    async def check() -> None:
        async with fleet(0) as it:
            moved, begun = set[int](), 0
            for percent in (0, 20, "55.5", 100):
                it.reload(percent)
                assert await it.go_on(range(begun)) == moved
                moved |= await it.begin(begun, begun + 30)
                begun += 30
            assert moved.issuperset(range(90, 120))
            assert moved.isdisjoint(range(30))
            shares = [len(moved & set(range(at, at + 30))) for at in range(0, 120, 30)]
            assert shares == sorted(shares)
            assert len(set(shares)) == 4

    run(check())


def test_the_same_conversations_begun_anew_only_move_forward() -> None:
    async def check() -> None:
        async with fleet(0) as it:
            before = set[int]()
            for percent in (0, 20, 60, 100):
                it.reload(percent)
                now = await it.begin(0, 30)
                assert now >= before
                before = now
            assert before == set(range(30))

    run(check())


def test_a_reload_amid_traffic_moves_nobody_back() -> None:
    async def check() -> None:
        async with fleet(10) as it:

            async def converse(number: int) -> None:
                talk = hi(f"I am {number}.")
                for _ in range(5):
                    await it.sdk.chat.completions.create(model="m-old", messages=talk)
                    talk += [{"role": "assistant", "content": "Hi."}, *hi("And again?")]

            async def grow() -> None:
                for percent in (40, 60, 80, 100):
                    seen = len(it.rows)
                    while len(it.rows) < seen + 15:
                        await asyncio.sleep(0)
                    it.reload(percent)
                await converse(20)

            await asyncio.gather(grow(), *map(converse, range(20)))
            assert len(it.rows) == 105
            models = models_by_conversation(it)
            assert all(len(each) == 1 for each in models.values())
            assert {model for each in models.values() for model in each} == {"m-new", "m-old"}

    run(check())


def models_by_conversation(it: Fleet) -> dict[str, set[str]]:
    """What the vendor saw of each conversation, by its first message."""
    found: dict[str, set[str]] = {}
    for seen in it.box.journal:
        body = msgspec.json.decode(seen.body or b"")
        found.setdefault(body["messages"][0]["content"], set()).add(body["model"])
    return found


def test_a_smaller_percentage_is_a_brake_that_works_at_once() -> None:
    async def check() -> None:
        async with fleet(100) as it:
            assert await it.ask(hi()) == ("m-new", "new")
            it.reload(0)
            assert await it.ask(went_on()) == ("m-old", "old")

    run(check())


def test_what_went_on_with_the_old_model_is_forgotten_after_a_day() -> None:
    """Ours: prompts that never change would never move otherwise."""

    async def check() -> None:
        async with Sandbox(profile=INSTANT) as box:
            clock = StillClock()
            engine = Engine(told(box, 0), environ={}, clock=clock)
            given = terms(tags={"role": "critic"}, conversation="one")
            exchange = await engine.begin(ask(), given)
            inquiry = exchange._request
            exchange.give_up()
            await asyncio.wait([exchange.task])
            old = Placing(told(box, 0).rollout, clock=clock, journal=Journal())
            placed = old.place(inquiry, given)
            assert placed is not None
            assert placed[:2] == ("old", "deepseek-flash")
            new = Placing(told(box, 100).rollout, clock=clock, journal=Journal(), before=old)
            assert len(new.began_old) == 1
            await clock.advance(REMEMBERED_S)
            placed = new.place(inquiry, given)
            assert placed is not None
            assert placed[:2] == ("new", "fast")
            assert new.began_old == {}
            await engine.aclose()

    run(check())


def test_the_first_ones_are_forgotten_where_too_many_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check() -> None:
        monkeypatch.setattr(placing, "REMEMBERED_MAX", 3)
        async with fleet(0) as it:
            await it.begin(0, 5)
            it.reload(100)
            assert await it.go_on(range(5)) == set()  # the journal knows them all
            it.gateway.engine.journal.rows.clear()
            assert await it.go_on(range(5)) == {0, 1}

    run(check())


def test_a_conversation_keeps_its_model_in_every_process_of_a_store(tmp_path: Path) -> None:
    """Ours: each worker remembered its own, and the share grows while a conversation goes on."""

    async def check() -> None:
        given = terms(tags={"role": "critic"}, conversation="one")
        with closing(Store(tmp_path / "droveway.db")) as store:
            async with Sandbox(profile=INSTANT) as box:
                served = []
                for percent, messages in ((0, hi()), (100, went_on()), (100, hi())):
                    journal = StoredJournal(store, rows_kept=10)
                    async with Engine(told(box, percent), environ={}, journal=journal) as engine:
                        request = msgspec.convert(
                            {"model": "m-old", "messages": messages}, ChatRequest
                        )
                        _, row = await engine.chat(request, given)
                        served.append((row.attempts[-1].model, row.tags["arm"]))
                    await journal.aclose()
                assert served == [("m-old", "old"), ("m-old", "old"), ("m-new", "new")]

    run(check())


# By what a conversation is recognized.


def test_a_conversation_with_a_name_stays_together_whatever_it_says() -> None:
    async def check() -> None:
        async with fleet(50) as it:
            named = {"x-droveway-conversation": "chat-7"}
            first = await it.ask(hi("I am 0."), named)
            assert {await it.ask(hi(f"I am {n}."), named) for n in range(20)} == {first}
            assert len({await it.ask(hi(f"I am {n}.")) for n in range(20)}) == 2
            empty = {"x-droveway-conversation": ""}
            assert len({await it.ask(hi(f"I am {n}."), empty) for n in range(20)}) == 2
            names = [{"x-droveway-conversation": f"chat-{n}"} for n in range(20)]
            assert len({await it.ask(hi(), each) for each in names}) == 2

    run(check())


def test_a_named_conversation_that_began_old_stays_old_until_it_begins_anew() -> None:
    async def check() -> None:
        async with fleet(0) as it:
            named = {"x-droveway-conversation": "chat-7"}
            assert await it.ask(hi(), named) == ("m-old", "old")
            it.reload(100)
            assert await it.ask(went_on(), named) == ("m-old", "old")
            assert await it.ask(hi(), named) == ("m-new", "new")
            assert await it.ask(went_on(), named) == ("m-new", "new")

    run(check())


# Who moves.


@pytest.mark.parametrize("tags", [{}, {"role": "writer"}, {"team": "critic"}])
def test_other_roles_stay_and_carry_no_arm(tags: dict[str, str]) -> None:
    async def check() -> None:
        async with fleet(100, FakeKey(tags=tags)) as it:
            assert await it.ask(hi()) == ("m-old", None)
            assert it.rows[-1].tags == tags

    run(check())


def test_without_a_rollout_nothing_is_read_for_it() -> None:
    async def check() -> None:
        async with fleet(None) as it:
            assert await it.ask(hi(), {"x-droveway-conversation": "a"}) == ("m-old", None)

    run(check())


def test_embeddings_never_move() -> None:
    async def check() -> None:
        async with fleet(100) as it:
            await it.sdk.embeddings.create(model="m-old", input="Some text.")
            row = it.rows[-1]
            assert (row.attempts[-1].model, row.tags) == ("m-old", {"role": "critic"})

    run(check())


def test_a_stream_moves_too() -> None:
    async def check() -> None:
        async with fleet(100) as it:
            stream = await it.sdk.chat.completions.create(model="m-old", messages=hi(), stream=True)
            assert {chunk.model async for chunk in stream} == {"m-new"}
            assert it.rows[-1].tags["arm"] == "new"

    run(check())


def test_a_failure_carries_its_arm() -> None:
    async def check() -> None:
        async with Sandbox(profile=INSTANT) as box:
            bad = RolloutSettings(to="vendor/fault-400", percent=100)
            settings = msgspec.structs.replace(told(box, None), rollout={"critic": bad})
            async with Engine(settings, environ={}) as engine:
                with pytest.raises(Exception, match="400"):
                    await answered(engine, ask(), Terms(tags={"role": "critic"}))
                row = engine.journal.rows[-1]
                assert (row.outcome, row.tags) == ("failed", {"role": "critic", "arm": "new"})

    run(check())


def test_who_has_moved_pays_the_price_of_the_model_that_answers(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path, tags={"role": "critic"}) as till, till.sdk as sdk:
            model = dear(till, "7")
            move = {"critic": RolloutSettings(to=model, percent=100)}
            till.engine.placing = Placing(
                move, clock=till.engine.clock, journal=till.engine.journal
            )
            answer = await sdk.chat.completions.create(model=MODEL, messages=hi(), max_tokens=16)
            assert answer.usage is not None
            assert spent(till) == costs(till) == answer.usage.completion_tokens * 7_000
            assert [(each.role, each.arm, each.requests) for each in arms(till.store)] == [
                ("critic", "new", 1)
            ]

    run(check())


def test_messages_that_cannot_be_read_are_the_callers_fault() -> None:
    async def check() -> None:
        async with fleet(50) as it:
            with pytest.raises(openai.BadRequestError, match="'messages' of the request"):
                await it.ask([{"role": "user", "content": 7}])
            assert it.rows[-1].tags == {"role": "critic"}

    run(check())


@pytest.mark.parametrize("role", [7, {"a": []}, ["user"], "human", None])
def test_a_role_that_is_none_is_the_vendors_to_refuse(role: object) -> None:
    async def check() -> None:
        async with fleet(100) as it:
            with pytest.raises(openai.BadRequestError, match="vendor answered 400"):
                await it.ask([{"role": role, "content": "hi"}])
            assert it.rows[-1].tags["arm"] == "new"

    run(check())


def test_an_agents_role_moves_in_the_library_and_a_tier_may_be_the_aim() -> None:
    async def check() -> None:
        async with Sandbox(profile=INSTANT) as box:
            to_tier = RolloutSettings(to="complex", percent=100)
            settings = msgspec.structs.replace(told(box, None), rollout={"critic": to_tier})
            async with Engine(settings, environ={}) as engine:
                for role, model in (("critic", "deepseek-flash"), ("writer", "m-old")):
                    agent = AsyncAgent(name="a", role=role, model="m-old", engine=engine)
                    await agent.chat("Say hi.")
                    row = engine.journal.rows[-1]
                    assert row.attempts[-1].model == model
                    assert row.tags.get("arm") == ("new" if role == "critic" else None)

    run(check())
