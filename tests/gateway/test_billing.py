"""Requests are paid from prepaid accounts: held before they are sent, charged once, to the nano."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import msgspec
import openai
import pytest

from door import HI, SECRET, FakeKey
from droveway.money import Money
from lab import run
from paying import LONG, MODEL, Till, costs, dear, paid, spent

# Another process, because locks of one process do not keep each other out.
LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_what_is_paid_is_what_the_vendor_counted_times_the_price_row(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            got = await sdk.chat.completions.with_raw_response.create(model=MODEL, messages=HI)
            told = Money.parse(got.headers["x-droveway-cost"], "USD")
            stream = await sdk.chat.completions.create(model=MODEL, messages=HI, stream=True)
            assert [chunk async for chunk in stream]
            assert spent(till) == costs(till) == told.nano * 2
            assert till.account.posted == Money.parse("1.00", "USD") - Money(spent(till), "USD")
            # Once for the head of the whole answer: the balance that is left covers less.
            assert int(got.headers["x-droveway-output-cap"]) > 1_024

    run(check())


def test_five_hundred_at_once_on_a_balance_for_ten(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path, "0.000001") as till:
            bounds = await one_bound(till)
        async with paid(second(tmp_path), Money(10 * bounds, "USD").decimal()) as till:
            async with till.sdk as sdk:

                async def ask() -> str:
                    try:
                        await sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=16)
                    except openai.APIStatusError as error:
                        assert error.status_code == 402
                        assert error.code == "insufficient_balance"
                        return "refused"
                    return "served"

                ended = await asyncio.gather(*(ask() for _ in range(500)))
            served = ended.count("served")
            assert served >= 10, "what was given back pays for more"
            assert len(till.box.journal) == served, "nothing is sent that is not paid"
            assert till.account.posted.nano >= 0
            assert spent(till) == costs(till)

    run(check(), within_s=60)


async def one_bound(till: Till) -> int:
    """What one of those requests may cost at most, by the refusal's own words, in nano-units."""
    async with till.sdk as sdk:
        with pytest.raises(openai.APIStatusError) as caught:
            await sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=16)
    words = caught.value.message
    assert "0.000001 USD available" in words
    assert till.box.journal == []
    return Money.parse(words.partition("may cost ")[2].partition(" USD")[0], "USD").nano


def second(folder: Path) -> Path:
    """A folder for another store."""
    made = folder / "second"
    made.mkdir()
    return made


def test_seventeen_uncapped_calls_on_one_dollar_are_all_served(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:

            async def ask(number: int) -> None:
                if number % 2:
                    got = await sdk.chat.completions.create(model=MODEL, messages=HI, stream=True)
                    assert [chunk async for chunk in got]
                else:
                    await sdk.chat.completions.create(model=MODEL, messages=HI)

            await asyncio.gather(*(ask(number) for number in range(17)))
            assert len(till.box.journal) == 17
            assert spent(till) == costs(till) > 0

    run(check())


REFUSALS = {
    "no account": (402, "insufficient_balance"),
    "frozen": (403, "account_frozen"),
    "unpriced": (404, "model_unpriced"),
}


@pytest.mark.parametrize("change", REFUSALS)
def test_who_cannot_pay_is_refused_before_anything_is_sent(tmp_path: Path, change: str) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            if change == "no account":
                till.gateway.find_key = lambda _: FakeKey()
            elif change == "frozen":
                await till.book.freeze("alice")
            model = "nobody-prices-this" if change == "unpriced" else MODEL
            with pytest.raises(openai.APIStatusError) as caught:
                await sdk.chat.completions.create(model=model, messages=HI)
            assert (caught.value.status_code, caught.value.code) == REFUSALS[change]
            assert till.box.journal == []
            assert spent(till) == 0

    run(check())


@pytest.mark.parametrize("kind", ["whole", "stream"])
@pytest.mark.parametrize("fault", ["fault-500", "fault-401", "fault-refuse", "fault-hang-up"])
def test_what_produced_nothing_costs_nothing(tmp_path: Path, fault: str, kind: str) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            streams = msgspec.structs.replace(
                till.engine.settings.streams, first_token_s=0.2, idle_s=0.2, total_s=0.5
            )
            till.engine.settings = msgspec.structs.replace(till.engine.settings, streams=streams)
            # The price list has no such names; the settings may price any.
            till.engine.book = till.engine.book.with_own(
                f"vendor/{fault}", input="1", output="2", currency="USD"
            )
            with pytest.raises(openai.APIError):
                if kind == "stream":
                    got = await sdk.chat.completions.create(model=fault, messages=HI, stream=True)
                    assert [chunk async for chunk in got]
                else:
                    await sdk.chat.completions.create(model=fault, messages=HI)
            assert till.account.posted == Money.parse("1.00", "USD")

    run(check())


def test_a_ledger_that_cannot_be_written_stops_everything_before_it_is_sent(
    tmp_path: Path,
) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            other = await asyncio.create_subprocess_exec(
                sys.executable, "-c", LOCK, str(tmp_path / "money.db"), stdin=PIPE, stdout=PIPE
            )
            assert other.stdout is not None
            assert await other.stdout.readline() == b"locked\n"
            with pytest.raises(openai.APIStatusError) as caught:
                await sdk.chat.completions.create(model=MODEL, messages=HI)
            await other.communicate(b"")
            assert caught.value.status_code == 503
            assert caught.value.code == "unavailable"
            assert till.box.journal == []
            await sdk.chat.completions.create(model=MODEL, messages=HI)

    run(check())


def test_a_caller_who_hangs_up_amid_a_stream_pays_for_what_came(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till:
            host, port = till.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            body = json.dumps({"model": "fault-stall@4", "stream": True, "messages": HI}).encode()
            till.engine.book = till.engine.book.with_own(
                "vendor/fault-stall@4", input="1", output="2", currency="USD"
            )
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
                % (SECRET.encode(), len(body), body)
            )
            while b'"content"' not in await reader.readline():
                pass
            writer.close()
            while till.engine.open_exchanges:
                await asyncio.sleep(0.01)
            assert 0 < spent(till) == costs(till)
            ((outcome, gone),) = till.store.read("SELECT outcome, client_gone FROM request")
            assert (outcome, gone) == ("cancelled", 1)

    run(check())


def test_an_uncapped_stream_holds_a_little_and_grows(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path, "2.00", profile=LONG) as till, till.sdk as sdk:
            held: set[int] = set()
            stream = await sdk.chat.completions.create(
                model=dear(till, "100"), messages=HI, stream=True
            )
            async for _ in stream:
                held.add(till.account.held.nano)
            # 4,096 tokens at a ten-thousandth of a dollar, and as much again each time.
            assert min(held - {0}) == 409_600_000
            assert max(held) > 409_600_000
            assert spent(till) == costs(till) > 819_200_000

    run(check(), within_s=60)


def test_a_stream_that_outgrows_the_balance_ends_with_a_word_and_an_exact_bill(
    tmp_path: Path,
) -> None:
    async def check() -> None:
        async with paid(tmp_path, "0.50", profile=LONG) as till, till.sdk as sdk:
            stream = await sdk.chat.completions.create(
                model=dear(till, "100"), messages=HI, stream=True
            )
            text = ""
            with pytest.raises(openai.APIError) as caught:
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
            assert caught.value.code == "insufficient_balance"
            assert text, "what was paid for has come"
            assert 0 < spent(till) == costs(till)
            assert till.account.posted.nano >= 0
            ((outcome, code),) = till.store.read("SELECT outcome, code FROM request")
            assert (outcome, code) == ("failed", "insufficient_balance")

    run(check(), within_s=60)
