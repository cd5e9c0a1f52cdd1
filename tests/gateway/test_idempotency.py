"""A request that its caller has named is served once and charged once, however often it comes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from door import HI, FakeKey
from droveway.ledger import claims
from lab import run
from paying import LONG, MODEL, Till, costs, paid, spent


def named(word: str) -> dict[str, str]:
    """The header that names a request."""
    return {"Idempotency-Key": word}


async def ask(till: Till, word: str, text: str = "hi", **terms: Any) -> Any:
    async with till.sdk as sdk:
        return await sdk.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": text}],
            extra_headers=named(word),
            **terms,
        )


async def refused(till: Till, word: str, text: str = "hi", **terms: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        await ask(till, word, text, **terms)
    return caught.value


def test_a_whole_answer_is_told_again_and_charged_once(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till:
            first = await ask(till, "one")
            charged = spent(till)
            again = await ask(till, "one")
            assert again.content == first.content
            assert again.headers["x-droveway-replayed"] == "true"
            assert "x-droveway-replayed" not in first.headers
            for name in ("x-droveway-request-id", "x-droveway-cost"):
                assert again.headers[name] == first.headers[name]
            assert spent(till) == charged == costs(till) > 0
            assert len(till.box.journal) == 1

    run(check())


def test_a_hundred_at_once_under_one_name_are_one_request(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till:
            ended = await asyncio.gather(
                *(ask(till, "one") for _ in range(100)), return_exceptions=True
            )
            refusals = [each for each in ended if isinstance(each, openai.APIStatusError)]
            assert {each.code for each in refusals} <= {"request_in_flight"}
            assert all(int(each.response.headers["retry-after"]) >= 1 for each in refusals)
            assert len(till.box.journal) == 1
            assert spent(till) == costs(till) > 0

    run(check())


def test_the_sdk_waits_for_the_one_that_is_on_its_way(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till:
            sdk = openai.AsyncOpenAI(
                base_url=f"{till.url}/v1", api_key=till.sdk.api_key, max_retries=2
            )

            async def once() -> str | None:
                got = await sdk.chat.completions.create(
                    model=MODEL, messages=HI, extra_headers=named("one")
                )
                return got.choices[0].message.content

            async with sdk:
                answers = await asyncio.gather(*(once() for _ in range(5)))
            assert len(set(answers)) == 1
            assert len(till.box.journal) == 1

    run(check())


def test_another_body_under_the_same_name_is_refused(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till:
            await ask(till, "one")
            error = await refused(till, "one", "something else")
            assert (error.status_code, error.code) == (422, "idempotency_mismatch")
            assert len(till.box.journal) == 1

    run(check())


def test_a_stream_is_never_told_again(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            stream = await sdk.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                extra_headers=named("one"),
            )
            assert [chunk async for chunk in stream]
            error = await refused(till, "one", stream=True)
            assert (error.status_code, error.code) == (409, "already_served")
            ((request_id, nano),) = till.store.read("SELECT id, cost_nano FROM request")
            assert request_id in error.message
            assert f"{nano / 10**9:.9f}".rstrip("0") in error.message
            assert error.response.headers["x-should-retry"] == "false"
            assert len(till.box.journal) == 1

    run(check())


def test_an_answer_that_is_too_long_to_keep_is_served_once_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        monkeypatch.setattr(claims, "ANSWER_BYTES_MAX", 10)
        async with paid(tmp_path) as till:
            await ask(till, "one")
            error = await refused(till, "one")
            assert error.code == "already_served"
            assert till.store.read("SELECT count(*) FROM answer") == [(0,)]

    run(check())


@pytest.mark.parametrize("fault", ["fault-hang-up", "fault-html-200"])
def test_what_failed_and_cost_nothing_may_be_asked_again(tmp_path: Path, fault: str) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            till.engine.book = till.engine.book.with_own(
                f"vendor/{fault}", input="1", output="2", currency="USD"
            )
            for _ in range(2):
                with pytest.raises(openai.APIStatusError) as caught:
                    await sdk.chat.completions.create(
                        model=fault, messages=HI, extra_headers=named("one")
                    )
                assert caught.value.status_code == 502
            assert spent(till) == 0
            assert till.account.available == till.account.posted

    run(check())


def test_names_of_two_keys_never_meet(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till:
            await ask(till, "one")
            mine = till.gateway.find_key("dw_test")
            other = FakeKey(id="key_2", account=mine.account)
            till.gateway.find_key = lambda _: other
            assert "x-droveway-replayed" not in (await ask(till, "one")).headers
            assert len(till.box.journal) == 2

    run(check())


def test_embeddings_are_told_again_too(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till, till.sdk as sdk:
            till.engine.book = till.engine.book.with_own(
                "vendor/embed", input="1", output="0", currency="USD"
            )
            got = [
                await sdk.embeddings.with_raw_response.create(
                    model="embed", input="hi", extra_headers=named("one"), encoding_format="float"
                )
                for _ in range(2)
            ]
            assert got[0].content == got[1].content
            assert json.loads(got[0].content)["data"]
            assert len(till.box.journal) == 1

    run(check())


@pytest.mark.parametrize("word", ["", "x" * 256, "a\tb"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, word: str) -> None:
    async def check() -> None:
        async with paid(tmp_path) as till:
            error = await refused(till, word)
            assert error.status_code == 400
            assert till.box.journal == []

    run(check())


def test_a_stream_on_its_way_is_in_flight(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path, profile=LONG) as till, till.sdk as sdk:
            stream = await sdk.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                extra_headers=named("one"),
            )
            await anext(aiter(stream))
            error = await refused(till, "one", stream=True)
            assert (error.status_code, error.code) == (409, "request_in_flight")
            assert int(error.response.headers["retry-after"]) >= 1
            await stream.close()

    run(check())
