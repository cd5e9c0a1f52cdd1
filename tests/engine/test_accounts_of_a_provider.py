"""Several accounts at one vendor: a conversation stays with one as long as that one can serve it."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from door import door, raw
from droveway.chat import Message
from droveway.engine.engine import Engine
from droveway.errors import AuthenticationError, SettingsError
from droveway.resilience.fair_queue import Ticket
from droveway.routing.plan import Candidate
from droveway.sandbox import Sandbox
from droveway.settings import AliasSettings, ProviderSettings, Settings
from lab import INSTANT, ask, converse, run, terms

KEYS = {"KEY_A": "sk-a-0000000000", "KEY_B": "sk-b-0000000000", "KEY_C": "sk-c-0000000000"}


@asynccontextmanager
async def vendor(count: int = 3, **limits: Any) -> AsyncIterator[tuple[Sandbox, Engine]]:
    async with Sandbox(profile=INSTANT) as box:
        names = tuple(f"env:{name}" for name in list(KEYS)[:count])
        told = ProviderSettings(base_url=box.base_url, api_keys=names, **limits)
        aliases = {"half": AliasSettings(candidates=("vendor/m-1", "vendor/m-2"), weights=(1, 1))}
        settings = Settings(providers={"vendor": told}, models=aliases)
        async with Engine(settings, environ=KEYS) as engine:
            yield box, engine


def turns(text: str, count: int) -> tuple[Message, ...]:
    begun = [Message(role="system", content="Be brief."), Message(role="user", content=text)]
    for number in range(count - 1):
        begun += [
            Message(role="assistant", content=f"answer {number}"),
            Message(role="user", content=f"and {number}?"),
        ]
    return tuple(begun)


async def served_by(engine: Engine, messages: Sequence[Message], model: str = "m") -> Candidate:
    """Ask once; who answered, as the lines before them have counted."""
    before = {each: line.pacer.turns for each, line in engine.lines.items()}
    exchange, _ = await converse(engine, ask(model=model, messages=tuple(messages)))
    assert exchange.error is None
    (found,) = (
        each for each, line in engine.lines.items() if line.pacer.turns > before.get(each, 0)
    )
    assert exchange.row is not None
    (entry,) = exchange.row.attempts
    assert (entry.provider, entry.account, entry.model) == (
        found.provider,
        found.account + 1,
        found.model,
    )
    return found


def test_a_conversation_stays_with_its_account_while_it_grows() -> None:
    async def check() -> None:
        async with vendor() as (_, engine):
            used = set()
            for talk in range(12):
                accounts = {await served_by(engine, turns(f"I am {talk}.", n)) for n in (1, 2, 3)}
                assert len(accounts) == 1
                used |= accounts
            assert {each.account for each in used} == {0, 1, 2}

    run(check())


def test_a_weighted_alias_keeps_a_conversation_with_its_model() -> None:
    async def check() -> None:
        async with vendor(1) as (_, engine):
            used = set()
            for talk in range(12):
                models = {
                    (await served_by(engine, turns(f"I am {talk}.", n), "half")).model
                    for n in (1, 2)
                }
                assert len(models) == 1
                used |= models
            assert used == {"m-1", "m-2"}

    run(check())


def test_where_its_account_has_no_room_another_one_answers() -> None:
    async def check() -> None:
        async with vendor(2, concurrency=1) as (_, engine):
            own = await served_by(engine, turns("I am one.", 1))
            blocking = Ticket(10**9, 1, 0.0)
            assert engine.line_of(own).enter_now(blocking)
            other = await served_by(engine, turns("I am one.", 2))
            assert (other.model, other.account) == (own.model, 1 - own.account)
            engine.line_of(own).returned(blocking)
            assert await served_by(engine, turns("I am one.", 3)) == own

    run(check())


def test_where_its_account_is_shut_out_another_one_answers() -> None:
    async def check() -> None:
        async with vendor(2) as (_, engine):
            own = await served_by(engine, turns("I am one.", 1))
            line, ticket = engine.line_of(own), Ticket(10**9, 1, 0.0)
            assert line.enter_now(ticket)
            line.shut_out(ticket, AuthenticationError("no such key", status_code=401))
            other = await served_by(engine, turns("I am one.", 2))
            assert other.account == 1 - own.account

    run(check())


@pytest.mark.parametrize("conversation", ["chat-7", None])
def test_a_name_of_the_callers_own_decides_before_the_opening(conversation: str | None) -> None:
    async def check() -> None:
        async with vendor() as (_, engine):
            used = set()
            for talk in range(12):
                given = terms(conversation=conversation)
                before = {each: line.pacer.turns for each, line in engine.lines.items()}
                request = ask(model="m", messages=turns(f"I am {talk}.", 1))
                await converse(engine, request, given)
                used |= {
                    each
                    for each, line in engine.lines.items()
                    if line.pacer.turns > before.get(each, 0)
                }
            assert len(used) == (1 if conversation else 3)

    run(check())


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"api_keys": ("env:KEY_A",), "api_key": "env:KEY_B"}, "exclude each other"),
        ({"api_keys": ("env:KEY_A",), "weights": (1, 2)}, "2 numbers for 1 api_keys"),
        ({"api_keys": ("env:KEY_A",), "weights": (0,)}, "from 1 to 1000"),
        ({"weights": (1,)}, "1 numbers for 0 api_keys"),
    ],
)
def test_keys_and_weights_that_do_not_fit_are_refused(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ProviderSettings(base_url="http://x", **told)


def test_a_key_that_is_not_set_is_named() -> None:
    told = ProviderSettings(base_url="http://x", api_keys=("env:KEY_A", "env:KEY_Z"))
    with pytest.raises(SettingsError, match="KEY_Z"):
        Engine(Settings(providers={"vendor": told}), environ=KEYS)


def test_what_vendors_cache_by_passes_through() -> None:
    """Spec: DeepSeek's `user_id` and OpenAI's `prompt_cache_key` reach the vendor as they came."""

    async def check() -> None:
        async with door() as it:
            own = {"user_id": "u-1", "prompt_cache_key": "k-1"}
            body = {"model": "plain", "messages": [{"role": "user", "content": "Hi."}], **own}
            await raw(it, json.dumps(body).encode())
            seen = json.loads(it.box.journal[-1].body or b"")
            assert {name: seen[name] for name in own} == own

    run(check())
