"""New settings for a gateway that serves: real processes, one and several."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lab import run
from processes import TOKEN, Gateway, Said, Vendor, command, serving, until, vendor

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at /proc")

HI = [{"role": "user", "content": "hi"}]
FAST = {"model": "fast", "messages": HI}
HELD = {"model": "held", "messages": HI}
ONE_AND_TWO = pytest.mark.parametrize("workers", [1, 2])


def write(box: Vendor, *, server: str = "", more: str = "") -> None:
    Path("droveway.toml").write_text(
        f'[server]\nadmin_token = "env:ADMIN"\n{server}\n'
        f'[providers.{box.name}]\nbase_url = "{box.url}"\n'
        f'[models.fast]\ncandidates = ["{box.name}/m"]\n{more}\n',
        encoding="utf-8",
    )


def check(workers: int, work: Callable[[Gateway, Vendor, Vendor], Awaitable[None]]) -> None:
    async def checked() -> None:
        async with vendor("one") as one, vendor("two") as two:
            write(one)
            async with serving("--workers", str(workers)) as gateway:
                await work(gateway, one, two)

    run(checked())


@asynccontextmanager
async def fifty_at_once(gateway: Gateway) -> AsyncIterator[set[str]]:
    """Fifty callers who ask and ask again; each of their answers is whole, or the test fails."""
    found: set[str] = set()
    over = asyncio.Event()

    async def ask_on() -> None:
        while not over.is_set():
            found.add((await gateway.ask(FAST)).text)

    callers = [asyncio.create_task(ask_on()) for _ in range(50)]
    try:
        yield found
    finally:
        over.set()
        await asyncio.gather(*callers)


@ONE_AND_TWO
def test_new_settings_hold_in_every_process_and_nothing_on_its_way_is_lost(workers: int) -> None:
    async def work(gateway: Gateway, one: Vendor, two: Vendor) -> None:
        before = await gateway.ask(FAST)
        assert (before.text, before.headers.get("x-droveway-cost")) == ("one", None)
        on_their_way = [
            asyncio.create_task(gateway.ask({**HELD, "stream": n % 2 == 0})) for n in range(8)
        ]
        await until(lambda: one.holds == 8, "all of them are on their way")
        async with fifty_at_once(gateway) as answers:
            await until(lambda: "one" in answers, "the old settings hold")
            write(two, more='[prices."two/m"]\ninput = "0.15"\noutput = "0.60"')
            told = await gateway.hang_up("generation")
            assert told == "settings of generation 2 are in force\n"
            await until(lambda: _all_answer(gateway, "two"), "every worker has the new settings")
        assert answers == {"one", "two"}
        assert all(each.text == "two" for each in await gateway.everywhere(FAST))
        costs = {each.headers["x-droveway-cost"] for each in await gateway.everywhere(FAST)}
        assert costs == {"0.15"}

        assert not any(each.done() for each in on_their_way)
        one.may_end.set()
        for n, each in enumerate(await asyncio.gather(*on_their_way)):
            assert each.status == 200
            assert b"one" in each.body
            assert n % 2 or b"data: [DONE]" in each.body

    check(workers, work)


@ONE_AND_TWO
def test_settings_that_cannot_be_used_change_nothing_and_are_told_in_one_line(
    workers: int,
) -> None:
    async def work(gateway: Gateway, one: Vendor, two: Vendor) -> None:
        unknown_key, no_toml = "[sever]\nport = 1\n", "this is no TOML"
        no_secret = f'[providers.two]\nbase_url = "{two.url}"\napi_key = "env:NOT_THERE"\n'
        no_provider = "[routing]\nsimple = 'x'\n"
        for bad, why in (
            (unknown_key, "unknown key 'sever'; did you mean 'server'?"),
            (no_toml, "is no TOML: "),
            (no_secret, "but NOT_THERE is not set; export NOT_THERE="),
            (no_provider, "they name no provider"),
        ):
            Path("droveway.toml").write_text(bad, encoding="utf-8")
            told = await gateway.hang_up("the old ones stay")
            assert why in told
            said = await gateway.reload()
            assert said.status == 400
            assert said.told["error"]["code"] == "invalid_request"
            assert "and the old ones stay: " in said.told["error"]["message"]
            assert why in said.told["error"]["message"]
            assert await _all_answer(gateway, "one")
        assert len(gateway.said) == 4, gateway.said
        write(two)
        assert (await gateway.reload()).told == {"generation": 2, "restart_needed": []}
        await until(lambda: _all_answer(gateway, "two"), "every worker has the new settings")

    check(workers, work)


@ONE_AND_TWO
def test_keys_that_wait_for_a_restart_are_named_and_stay_as_they_are(workers: int) -> None:
    async def work(gateway: Gateway, one: Vendor, two: Vendor) -> None:
        fixed = 'host = "0.0.0.0"\nworkers = 7\ndrain_s = 1'
        write(two, server=fixed, more='[storage]\nurl = "sqlite:other.db"\n[journal]\nkeep_days=1')
        names = ["server.host", "server.drain_s", "storage.url", "journal.keep_days"]
        if workers == 1:
            # `--workers` was typed, and stays what it is.
            told = await gateway.hang_up("generation")
            assert told.endswith(f"are in force; a restart is needed for {', '.join(names)}\n")
        else:
            assert (await gateway.reload()).told["restart_needed"] == names
            # Whoever is started again has the new settings, and the old store with its keys;
            # even where its parent does not know yet that there are new ones.
            await _kill_all(gateway)
        await until(lambda: _all_answer(gateway, "two"), "every worker has the new settings")
        assert not Path("other.db").exists()
        if workers == 2:
            # What stands in the file since does not matter before the next reload.
            await gateway.hang_up("generation 3")
            Path("droveway.toml").write_text("not yet finished", encoding="utf-8")
            await _kill_all(gateway)
            assert await _all_answer(gateway, "two")

    check(workers, work)


async def _kill_all(gateway: Gateway) -> None:
    """Kill every worker, and wait until as many serve again."""
    for victim in gateway.workers():
        os.kill(victim, signal.SIGKILL)
    await gateway.told("is started again")
    await gateway.told("is started again")
    await until(lambda: _serve(gateway, 2), "they are there again")


def _serve(gateway: Gateway, count: int) -> bool:
    listening = [
        line.split()
        for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    return sum(row[1].endswith(f":{gateway.port:04X}") for row in listening) == count


@ONE_AND_TWO
def test_without_a_file_there_is_nothing_to_reload_and_the_line_says_so(workers: int) -> None:
    async def checked() -> None:
        async with serving("--workers", str(workers)) as gateway:
            told = await gateway.hang_up("old ones stay")
            assert "there is no settings file to read; start with --config FILE" in told
            assert (await gateway.ask({**FAST, "max_tokens": 5})).status == 200

    run(checked())


@ONE_AND_TWO
def test_a_server_that_began_with_the_sandbox_may_get_providers_and_then_keeps_some(
    workers: int,
) -> None:
    async def checked() -> None:
        async with vendor("one") as one:
            file = Path("droveway.toml")
            file.write_text("[routing]\nsimple = 'x'\n", encoding="utf-8")
            async with serving("--workers", str(workers)) as gateway:
                assert await _all_ask(gateway, "sandbox")
                file.write_text("[routing]\nsimple = 'y'\n", encoding="utf-8")
                await gateway.hang_up("generation 2")
                assert await _all_ask(gateway, "sandbox")
                write(one)
                await gateway.hang_up("generation 3")
                await until(lambda: _all_ask(gateway, "one"), "every worker asks the provider")
                file.write_text("[routing]\nsimple = 'y'\n", encoding="utf-8")
                assert "they name no provider" in await gateway.hang_up("old ones stay")
                assert await _all_answer(gateway, "one")

    run(checked())


@ONE_AND_TWO
def test_a_key_revoked_while_100_requests_run_is_refused_on_the_next_one(workers: int) -> None:
    """Spec: revocation holds at once, in every process, and cuts nobody who was let in."""

    async def work(gateway: Gateway, one: Vendor, two: Vendor) -> None:
        del two
        on_their_way = [
            asyncio.create_task(gateway.ask({**HELD, "stream": n % 2 == 0})) for n in range(100)
        ]
        await until(lambda: one.holds == 100, "all of them are on their way")
        await command("keys", "revoke", "first")
        refused = await gateway.everywhere(FAST)
        assert {each.status for each in refused} == {401}
        assert {each.told["error"]["code"] for each in refused} == {"invalid_api_key"}
        assert one.holds == 100
        one.may_end.set()
        for n, each in enumerate(await asyncio.gather(*on_their_way)):
            assert each.status == 200
            assert b"one" in each.body
            assert n % 2 or b"data: [DONE]" in each.body
        assert len(one.bodies) == 100

    check(workers, work)


@ONE_AND_TWO
def test_bodies_are_kept_from_a_reload_on_and_no_longer_after_the_next(workers: int) -> None:
    async def work(gateway: Gateway, one: Vendor, two: Vendor) -> None:
        async def ask(word: str) -> Said:
            """Ask in every worker, and return one answer when all rows are written."""
            body = {"model": "fast", "messages": [{"role": "user", "content": word}]}
            answers = await gateway.everywhere(body)
            for each in answers:
                line = f"GET /admin/v1/requests/{each.headers['x-droveway-request-id']}"

                async def is_written(line: str = line) -> bool:
                    return (await gateway.ask(None, token=TOKEN, line=line)).status == 200

                await until(is_written, "its row is written by whoever has served it")
            return answers[0]

        await ask("unkept-before")
        assert not _on_disk("unkept-before")
        write(two, more="[journal]\nbodies = true")
        await gateway.hang_up("generation 2")
        await until(lambda: _all_answer(gateway, "two"), "every worker has the new settings")
        answer = await ask("kept-between")
        assert _on_disk("kept-between")
        request_id = answer.headers["x-droveway-request-id"]
        row = json.loads(await command("requests", "show", request_id, "--json"))
        sent = '{"model":"fast","messages":[{"role":"user","content":"kept-between"}]}'
        assert row["bodies"] == {"request": sent, "answer": answer.body.decode()}
        shown = await gateway.ask(None, token=TOKEN, line=f"GET /admin/v1/requests/{request_id}")
        assert shown.told["bodies"] == row["bodies"]
        assert "kept-between" not in await command("requests", "show", request_id)
        write(one)
        await gateway.hang_up("generation 3")
        await until(lambda: _all_answer(gateway, "one"), "every worker has the new settings")
        await ask("unkept-after")
        assert not _on_disk("unkept-after")

    check(workers, work)


async def _all_ask(gateway: Gateway, provider: str) -> bool:
    answers = await gateway.everywhere({**FAST, "max_tokens": 5})
    return {each.headers["x-droveway-provider"] for each in answers} == {provider}


async def _all_answer(gateway: Gateway, name: str) -> bool:
    return {each.text for each in await gateway.everywhere(FAST)} == {name}


def _on_disk(word: str) -> bool:
    files = [each for each in Path().glob("droveway.db*") if each.is_file()]
    assert any(each.name.endswith("-wal") for each in files)
    return any(word.encode() in each.read_bytes() for each in files)
