"""A caller who hangs up pays for what was produced: cut at once, or drained within bounds."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from door import HI, SECRET
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
