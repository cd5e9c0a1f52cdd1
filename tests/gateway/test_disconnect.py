"""A caller who hangs up pays for what was produced: cut at once, or drained within bounds."""

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from door import HI, SECRET
from droveway.engine.line import Line
from droveway.resilience.fair_queue import Ticket
from droveway.resilience.pacing import Pacer
from droveway.sandbox import Profile
from droveway.settings import BillingSettings
from lab import run
from paying import LONG, Till, costs, dear, paid, spent

# The first piece of a stream may be empty.
SEEN = 2
SLOW = Profile(first_token_s=0.3, token_s=0.005, answer_tokens=60, answer_sigma=0.0)


def drain(**given: Any) -> BillingSettings:
    return BillingSettings(enabled=True, disconnect="drain", **given)


async def hang_up(till: Till, document: dict[str, Any], *, after: bytes) -> None:
    """Send a request, hang up when so much of its answer has come, and wait for its row."""
    host, port = till.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    path = document.pop("path", "/v1/chat/completions")
    body = json.dumps(document).encode()
    writer.write(
        b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (path.encode(), SECRET.encode(), len(body), body)
    )
    for _ in range(SEEN if after else 0):
        while after not in await reader.readline():
            pass
    while not (after or till.box.journal):
        await asyncio.sleep(0.005)
    writer.close()
    while till.engine.open_exchanges:
        await asyncio.sleep(0.01)


def row_of(till: Till) -> tuple[str, int, int]:
    ((outcome, gone, output),) = till.store.read("SELECT outcome, client_gone, output FROM request")
    return outcome, gone, output


@pytest.mark.parametrize("after", [b"", b'"content"'], ids=["before a token", "amid tokens"])
def test_a_drained_stream_is_answered_to_its_end_and_paid_as_a_whole(
    tmp_path: Path, after: bytes
) -> None:
    async def check() -> None:
        async with paid(tmp_path, billing=drain(), profile=SLOW) as till:
            document = {"model": dear(till, "100"), "stream": True, "messages": HI}
            await hang_up(till, document, after=after)
            assert row_of(till)[:2] == ("completed", 1)
            (seen,) = till.box.journal
            assert row_of(till)[2] == seen.completion_tokens
            assert spent(till) == costs(till) == seen.completion_tokens * 100_000

    run(check())


def test_a_drained_whole_answer_is_paid_as_a_whole(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path, billing=drain(), profile=SLOW) as till:
            document = {"model": dear(till, "100"), "messages": HI, "max_tokens": 90}
            await hang_up(till, document, after=b"")
            assert row_of(till)[:2] == ("completed", 1)
            assert spent(till) == costs(till) > 0

    run(check())


def test_draining_ends_at_its_bound_of_tokens(tmp_path: Path) -> None:
    async def check() -> None:
        billing = drain(drain_tokens=200)
        async with paid(tmp_path, "5.00", billing=billing, profile=LONG) as till:
            document = {"model": dear(till, "100"), "stream": True, "messages": HI}
            await hang_up(till, document, after=b'"content"')
            outcome, gone, output = row_of(till)
            assert (outcome, gone) == ("cancelled", 1)
            assert 200 <= output < 4_000, "some more than the bound may be in one read"
            assert spent(till) == costs(till) == output * 100_000

    run(check())


def test_draining_ends_at_its_bound_of_seconds(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path, billing=drain(drain_s=1)) as till:
            till.engine.book = till.engine.book.with_own(
                "vendor/fault-stall@3", input="1", output="2", currency="USD"
            )
            document = {"model": "fault-stall@3", "stream": True, "messages": HI}
            await hang_up(till, document, after=b'"content"')
            assert row_of(till)[:2] == ("cancelled", 1)
            assert spent(till) == costs(till) > 0

    run(check())


def test_nothing_is_sent_again_for_a_caller_who_is_gone(tmp_path: Path) -> None:
    async def check() -> None:
        async with paid(tmp_path, billing=drain()) as till:
            streams = msgspec.structs.replace(till.engine.settings.streams, first_token_s=0.3)
            till.engine.settings = msgspec.structs.replace(till.engine.settings, streams=streams)
            till.engine.book = till.engine.book.with_own(
                "vendor/fault-silent", input="1", output="2", currency="USD"
            )
            document = {"model": "fault-silent", "stream": True, "messages": HI}
            await hang_up(till, document, after=b"")
            assert len(till.box.journal) == 1
            assert spent(till) == 0

    run(check())


@pytest.mark.parametrize("after", [b"", b'"content"'], ids=["before a token", "amid tokens"])
def test_a_cancelled_stream_is_paid_as_far_as_it_came(tmp_path: Path, after: bytes) -> None:
    async def check() -> None:
        billing = BillingSettings(enabled=True, disconnect="cancel")
        async with paid(tmp_path, billing=billing, profile=SLOW) as till:
            document = {"model": dear(till, "100"), "stream": True, "messages": HI}
            await hang_up(till, document, after=after)
            assert row_of(till)[:2] == ("cancelled", 1)
            assert spent(till) == costs(till)
            assert (spent(till) > 0) == bool(after)

    run(check())


# Wherever a request is when its caller goes.


PLACES = {
    "before the head": "fault-slow-headers:20",
    "after the first token": "fault-stall:3",
    "in line": "in-line",
    "in a cool-down": "fault-429-seconds:20",
    "amid a back-off": "fault-500",
}
AT_THE_VENDOR = {"before the head", "after the first token"}


def make_ready(till: Till, place: str) -> Line:
    """Price the model of a place, and have its line or its back-off take its time."""
    model = PLACES[place]
    till.engine.book = till.engine.book.with_own(
        f"vendor/{model}", input="1", output="2", currency="USD"
    )
    candidate = till.engine.plan(model)[0]
    line = Line(Pacer(concurrency=1, rpm=None, tpm=None), till.engine.clock, candidate)
    till.engine._lines._lines[candidate] = line
    if place == "in line":
        assert line.enter_now(Ticket(0, 1, 0.0))
    till.engine.dispatch._backoff_s = lambda _: 20.0  # type: ignore[method-assign,assignment]
    return line


async def is_there(till: Till, line: Line, *, place: str, reader: asyncio.StreamReader) -> None:
    """Wait until a request is where it is meant to be."""
    if place == "after the first token":
        await reader.readuntil(b'"content"')
    while not (line.pacer.waiting if place in {"in line", "in a cool-down"} else till.box.journal):
        await asyncio.sleep(0.005)
    if place == "amid a back-off":
        while not till.box.journal[0].status or line.pacer.in_flight:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("disconnect", ["cancel", "drain"])
@pytest.mark.parametrize(
    ("place", "stream"),
    [(place, True) for place in PLACES]
    + [(place, False) for place in PLACES if place != "after the first token"],
)
def test_a_caller_who_goes_leaves_nothing_behind(
    tmp_path: Path, place: str, disconnect: Literal["cancel", "drain"], *, stream: bool
) -> None:
    async def check() -> None:
        billing = BillingSettings(enabled=True, disconnect=disconnect, drain_s=1)
        async with paid(tmp_path, billing=billing) as till:
            line = make_ready(till, place)
            host, port = till.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            document = {"model": PLACES[place], "stream": stream, "messages": HI}
            body = json.dumps(document).encode()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
                b"content-length: %d\r\n\r\n%b" % (SECRET.encode(), len(body), body)
            )
            await is_there(till, line, place=place, reader=reader)
            asked = len(till.box.journal)
            writer.close()
            gone_at = till.engine.clock.monotonic()
            while till.engine.open_exchanges:
                await asyncio.sleep(0.002)
            while place in AT_THE_VENDOR and till.box.open_connections:
                await asyncio.sleep(0.002)
            took_s = till.engine.clock.monotonic() - gone_at
            is_drained = disconnect == "drain" and place in AT_THE_VENDOR
            assert took_s < (3.0 if is_drained else 0.9), "a drain would take a second"
            assert row_of(till)[:2] == ("cancelled", 1)
            assert len(till.box.journal) == asked, "nothing more is sent for nobody"
            assert spent(till) == costs(till)
            assert (line.pacer.in_flight, line.pacer.waiting) == (int(place == "in line"), 0)

    run(check())
