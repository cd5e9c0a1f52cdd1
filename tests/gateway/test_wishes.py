"""What a caller may wish for beside the body: urgency, time, attempts, and whose role speaks."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import pytest

from door import MODEL, SECRET, VENDOR_KEY, Door, FakeKey, door, raw
from droveway.engine.assembly import provider_at
from droveway.engine.engine import Engine
from droveway.errors import DrovewayError
from droveway.resilience.retry import RetryPolicy
from droveway.sandbox import Rule, Script
from droveway.settings import ProviderSettings, Secret, Timeout
from lab import ask, run, terms


@dataclass
class Told:
    """An answer."""

    status: int
    headers: dict[str, str]
    error: dict[str, Any]


async def post(it: Door, **wishes: str) -> Told:
    """Ask for a whole answer, with headers `x-droveway-…`."""
    lines = [f"x-droveway-{name.replace('_', '-')}: {value}" for name, value in wishes.items()]
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Say hi."}]})
    head, _, said = (await raw(it, body.encode(), *lines)).partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    return Told(int(first.split()[1]), headers, json.loads(said).get("error", {}))


def narrow(it: Door, *, concurrency: int) -> None:
    """Let so few requests of each model go at once."""
    limits = ProviderSettings(concurrency=concurrency)
    it.engine.providers["remote"] = provider_at(it.box.base_url, Secret(VENDOR_KEY), limits=limits)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", "urgent"),
        ("deadline-s", "soon"),
        ("deadline-s", "0"),
        ("deadline-s", "-1"),
        ("deadline-s", "nan"),
        ("deadline-s", "inf"),
        ("deadline-s", "86401"),
        ("attempts-max", "0"),
        ("attempts-max", "1e3"),
        ("attempts-max", "1000"),
        ("role", "x" * 101),
    ],
)
def test_a_wish_that_cannot_be_read_is_refused_and_named(name: str, value: str) -> None:
    async def check() -> None:
        async with door() as it:
            answer = await post(it, **{name: value})
            assert answer.status == 400
            assert f"x-droveway-{name}" in answer.error["message"]
            assert not it.box.journal

    run(check())


def test_a_request_that_waits_past_its_deadline_is_told_so_and_when_to_come_again() -> None:
    async def check() -> None:
        async with door(script=Script(rules=(Rule(times=9, fault="slow-headers:2"),))) as it:
            narrow(it, concurrency=1)
            long = asyncio.create_task(post(it))
            while not it.box.journal and not it.engine.on_their_way():
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            since = time.monotonic()
            answer = await post(it, deadline_s="0.3")
            assert time.monotonic() - since < 2.5
            assert (answer.status, answer.error["code"]) == (
                429,
                "deadline_exceeded",
            )
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["x-droveway-attempts"] == "0"
            assert float(answer.headers["x-droveway-waited-ms"]) >= 290
            row = it.engine.journal.rows[-1]
            assert (row.code, len(row.attempts)) == ("deadline_exceeded", 0)
            assert 290 <= row.waited_ms <= row.total_ms
            await long

    run(check())


def test_a_deadline_in_a_cool_down_that_lasts_longer_is_told_at_once() -> None:
    async def check() -> None:
        async with door(script=Script(rules=(Rule(times=1, fault="429-ms:60000"),))) as it:
            async with asyncio.TaskGroup() as group:
                stopped = group.create_task(post(it))
                while not any(line.pacer.state == "open" for line in it.engine.lines.values()):
                    await asyncio.sleep(0.005)
                answer = await post(it, deadline_s="5")
                assert answer.error["code"] == "deadline_exceeded"
                assert 50 <= int(answer.headers["retry-after"]) <= 61
                assert it.engine.journal.rows[-1].total_ms < 2_000
                it.gateway.cut_all()
                assert (await stopped).status in {429, 503}

    run(check())


@pytest.mark.parametrize(("wished", "sent"), [("1", 1), ("2", 2), ("9", 5)])
def test_vendors_are_asked_as_often_as_the_caller_allows(wished: str, sent: int) -> None:
    async def check() -> None:
        async with door(script=Script(rules=(Rule(times=99, fault="429-ms:50"),))) as it:
            answer = await post(it, attempts_max=wished)
            assert answer.status == 429
            assert answer.headers["x-droveway-attempts"] == str(sent)
            assert answer.headers["x-should-retry"] == "false"

    run(check())


def test_a_role_is_the_keys_own_or_else_the_requests() -> None:
    async def check(key: FakeKey, role: str) -> None:
        async with door(key) as it:
            await post(it, role="critic")
            assert it.engine.journal.rows[-1].tags["role"] == role

    run(check(FakeKey(), "critic"))
    run(check(FakeKey(tags={"role": "writer"}), "writer"))


def test_interactive_requests_overtake_a_batch() -> None:
    async def check() -> None:
        async with door(script=Script(rules=(Rule(times=1, fault="slow-headers:0.4"),))) as it:
            narrow(it, concurrency=1)
            order: list[str] = []

            async def one(priority: str) -> None:
                answer = await post(it, priority=priority)
                assert answer.status == 200
                order.append(priority)

            async with asyncio.TaskGroup() as group:
                group.create_task(one("batch"))
                while not it.engine.on_their_way():
                    await asyncio.sleep(0.005)
                for _ in range(4):
                    group.create_task(one("batch"))
                while sum(line.pacer.waiting for line in it.engine.lines.values()) < 4:
                    await asyncio.sleep(0.005)
                group.create_task(one("interactive"))
            assert order.index("interactive") <= 2

    run(check())


# Two layers: our SDK before our gateway.


def remote(it: Door) -> Engine:
    return Engine.at(f"{it.url}/v1", SECRET)


@pytest.mark.parametrize("fault", ["500", "503", "429-ms:30", "refuse"])
def test_two_layers_that_try_again_do_not_multiply(fault: str) -> None:
    """Ours: each of five attempts of an SDK became five of its gateway's."""

    async def check() -> None:
        async with door(script=Script(rules=(Rule(times=999, fault=fault),))) as it:
            async with remote(it) as sdk:
                patient = RetryPolicy(max_attempts=5, base_s=0.01)
                with pytest.raises(DrovewayError):
                    await sdk.chat(ask(model=MODEL), terms(patient, timeout=Timeout(total_s=20)))
            assert 1 <= len(it.box.journal) <= 5

    run(check())


def test_an_sdk_tells_its_gateway_how_long_and_how_often() -> None:
    async def check() -> None:
        async with door(script=Script(rules=(Rule(times=99, fault="429-ms:30"),))) as it:
            async with remote(it) as sdk:
                with pytest.raises(DrovewayError):
                    await sdk.chat(ask(model=MODEL), terms(RetryPolicy(max_attempts=2)))
            assert len(it.box.journal) == 2
            since = time.monotonic()
            async with remote(it) as sdk:
                it.box.direct(Script(rules=(Rule(times=99, fault="429-ms:60000"),)))
                with pytest.raises(DrovewayError):
                    await sdk.chat(ask(model="other"), terms(timeout=Timeout(total_s=0.5)))
            assert time.monotonic() - since < 10

    run(check())


def test_a_vendor_is_told_nothing_of_ours() -> None:
    vendor = provider_at("https://api.deepseek.com", Secret("sk-x"))
    assert not vendor.relays
    assert provider_at("http://127.0.0.1:4100/v1", None).relays
