"""`[journal] bodies`: what was said is kept where it is wanted, and nowhere else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from droveway.cli.main import commands
from droveway.engine.engine import Engine
from droveway.engine.exchange import BODY_KEPT_BYTES_MAX
from droveway.engine.journal_store import StoredJournal
from droveway.engine.journal_upkeep import forget, roll_up
from droveway.engine.records import Bodies
from droveway.errors import BadRequestError, StoreUnavailableError
from droveway.sandbox import Rule, Script
from droveway.settings import JournalSettings, ProviderSettings, Settings
from droveway.storage import Store
from lab import ask, converse, lab, run
from operator_door import OperatorDoor, operator_door, send

WORD = "the-word-that-nobody-else-says"
# As no writer of ours would put it.
REQUEST = b'{ "messages":[{"role":"user","content":"\\u0041 %s"}],\n "x":1.50,"model" : "%s"%s}'


def request(model: str = "deepseek-flash", *, stream: bool = False) -> bytes:
    return REQUEST % (WORD.encode(), model.encode(), b',"stream":true' if stream else b"")


@asynccontextmanager
async def keeping(
    folder: Path, *, bodies: bool = True, **sandbox: Any
) -> AsyncIterator[OperatorDoor]:
    async with operator_door(folder, **sandbox) as door:
        settings = msgspec.structs.replace(
            door.engine.settings, journal=JournalSettings(bodies=bodies)
        )
        door.engine.settings = settings
        yield door


async def shown(door: OperatorDoor, request_id: str) -> dict[str, Any]:
    """A request as the admin API shows it, which the command line shows likewise."""
    told: dict[str, Any] = (await send(door, f"GET /admin/v1/requests/{request_id}")).told
    config = door.store.path.with_name("droveway.toml")
    config.write_text(f"[storage]\nurl = 'sqlite:{door.store.path}'\n", encoding="utf-8")
    command = ["requests", "show", request_id, "--config", str(config)]
    assert json.loads(CliRunner().invoke(commands, [*command, "--json"]).output) == told
    plain = CliRunner().invoke(commands, command)
    assert plain.exit_code == 0
    assert WORD not in plain.output
    return told


def on_disk(folder: Path) -> bool:
    return any(WORD.encode() in each.read_bytes() for each in folder.glob("door.db*"))


@pytest.mark.parametrize("stream", [False, True])
def test_by_default_nothing_of_what_is_said_reaches_the_disk(
    tmp_path: Path, *, stream: bool
) -> None:
    async def check() -> None:
        script = Script(rules=(Rule(model="x", answer=f"And {WORD} again."),))
        async with keeping(tmp_path, bodies=False, script=script) as door:
            for model in ("x", "fault-400", "fault-cut-event:3"):
                said = await send(
                    door, "POST /v1/chat/completions", request(model, stream=stream),
                    token=door.secret,
                )  # fmt: skip
                told = await shown(door, said.headers["x-droveway-request-id"])
                assert "bodies" not in told
            assert (tmp_path / "door.db-wal").stat().st_size > 0
            assert not on_disk(tmp_path)
        assert not on_disk(tmp_path)

    run(check())


def test_a_whole_answer_is_kept_as_it_came_and_so_is_its_request(tmp_path: Path) -> None:
    async def check() -> None:
        async with keeping(tmp_path) as door:
            said = await send(door, "POST /v1/chat/completions", request(), token=door.secret)
            told = await shown(door, said.headers["x-droveway-request-id"])
            assert told["bodies"]["request"].encode() == request()
            assert told["bodies"]["answer"].encode() == said.body
            assert on_disk(tmp_path)
            listed = (await send(door, "GET /admin/v1/requests")).told["data"]
            assert "bodies" not in listed[0]

    run(check())


def test_of_a_stream_what_was_read_is_kept_as_one_answer(tmp_path: Path) -> None:
    async def check() -> None:
        script = Script(rules=(Rule(answer="All of this."),))
        async with keeping(tmp_path, script=script) as door:
            said = await send(
                door, "POST /v1/chat/completions", request(stream=True), token=door.secret
            )
            told = await shown(door, said.headers["x-droveway-request-id"])
            assert told["bodies"]["request"].encode() == request(stream=True)
            answer = json.loads(told["bodies"]["answer"])
            assert (answer["text"], answer["finish_reason"]) == ("All of this.", "stop")
            assert answer["usage"]["output"] == told["usage"]["output"]

    run(check())


@pytest.mark.parametrize(
    ("model", "stream", "read"),
    [
        ("fault-400", False, False),
        ("fault-400", True, False),
        ("fault-html-200", False, False),
        ("fault-cut-event:9", True, True),
        ("fault-error-event:9", True, True),
    ],
)
def test_of_a_failure_the_request_and_what_was_read_are_kept(
    tmp_path: Path, model: str, *, stream: bool, read: bool
) -> None:
    async def check() -> None:
        script = Script(
            rules=(Rule(fault=model.removeprefix("fault-"), answer="one two three " * 9),)
        )
        async with keeping(tmp_path, script=script) as door:
            sent = request("plain", stream=stream)
            said = await send(door, "POST /v1/chat/completions", sent, token=door.secret)
            told = await shown(door, said.headers["x-droveway-request-id"])
            assert told["outcome"] == "failed"
            assert told["bodies"]["request"].encode() == sent
            answer = json.loads(told["bodies"]["answer"])
            assert answer["finish_reason"] is None
            assert bool(answer["text"] or answer["reasoning"]) is read

    run(check())


@pytest.mark.parametrize("stream", [False, True])
def test_of_a_caller_who_goes_away_the_same_is_kept(tmp_path: Path, *, stream: bool) -> None:
    async def check() -> None:
        async with keeping(tmp_path) as door:
            fault = "fault-stall:9" if stream else "fault-slow-headers"
            sent = request(fault, stream=stream)
            host, port = door.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
                b"authorization: Bearer %s\r\n\r\n%s" % (len(sent), door.secret.encode(), sent)
            )
            async with asyncio.timeout(5):
                while not door.engine.on_their_way() or not door.box.open_connections:
                    await asyncio.sleep(0.005)
                (exchange,) = door.engine.on_their_way()
                while stream and not (exchange.attempts and exchange.attempts[-1][1].delivered):
                    await asyncio.sleep(0.005)
            writer.close()
            await asyncio.wait([exchange.task])
            told = await shown(door, exchange.id)
            assert (told["outcome"], told["client_gone"]) == ("cancelled", True)
            assert told["bodies"]["request"].encode() == sent

    run(check())


def test_embeddings_are_kept_too(tmp_path: Path) -> None:
    async def check() -> None:
        async with keeping(tmp_path) as door:
            sent = b'{"input":"%s","model":"deepseek-flash"}' % WORD.encode()
            said = await send(door, "POST /v1/embeddings", sent, token=door.secret)
            assert said.status == 200
            told = await shown(door, said.headers["x-droveway-request-id"])
            assert told["bodies"]["request"].encode() == sent
            assert told["bodies"]["answer"].encode() == said.body

    run(check())


def test_what_is_longer_than_a_mebibyte_is_cut(tmp_path: Path) -> None:
    async def check() -> None:
        long = "汉" * BODY_KEPT_BYTES_MAX
        script = Script(rules=(Rule(answer=long),))
        async with keeping(tmp_path, script=script) as door:
            sent = json.dumps(
                {"model": "plain", "messages": [{"role": "user", "content": long}]},
                ensure_ascii=False,
            ).encode()
            said = await send(door, "POST /v1/chat/completions", sent, token=door.secret)
            assert said.status == 200
            await door.journal.flush()
            kept = door.journal.get(said.headers["x-droveway-request-id"])
            assert kept is not None
            assert kept.bodies == Bodies(
                sent[:BODY_KEPT_BYTES_MAX], said.body[:BODY_KEPT_BYTES_MAX]
            )
            assert len(kept.bodies.answer) == BODY_KEPT_BYTES_MAX
            # The cut may go through a character.
            told = await shown(door, kept.id)
            assert told["bodies"]["request"].startswith('{"model": "plain"')

    run(check())


def test_bodies_are_forgotten_with_their_rows_and_not_before(tmp_path: Path) -> None:
    async def check() -> None:
        async with keeping(tmp_path) as door:
            said = await send(door, "POST /v1/chat/completions", request(), token=door.secret)
            await door.journal.flush()
            request_id = said.headers["x-droveway-request-id"]
            soon = door.engine.clock.now() + timedelta(seconds=60)
            count = "SELECT count(*) FROM body"
            assert await forget(door.store, soon) == 0, "its sums are not made yet"
            assert door.store.read(count) == [(1,)]
            await roll_up(door.store)
            assert await forget(door.store, soon - timedelta(days=1)) == 0
            assert door.store.read(count) == [(1,)]
            assert await forget(door.store, soon) == 1
            assert door.store.read(count) == [(0,)]
            assert door.journal.get(request_id) is None

    run(check())


def test_rows_that_wait_for_the_store_wait_without_bodies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ours: bodies of minutes would take the memory that the answers need."""

    async def check() -> None:
        store = Store(tmp_path / "a.db")
        journal = StoredJournal(store)
        store.close()
        async with lab() as (box, _):
            settings = Settings(
                providers={"box": ProviderSettings(base_url=box.base_url)},
                journal=JournalSettings(bodies=True),
            )
            async with Engine(settings, environ={}, journal=journal) as engine:
                exchange, _ = await converse(engine, ask(WORD))
                assert exchange.row is not None
                assert exchange.row.bodies is not None
                with pytest.raises(StoreUnavailableError):
                    await journal.flush()
                (waiting,) = journal._waiting
                assert (waiting.id, waiting.bodies) == (exchange.id, None)
        with pytest.raises(StoreUnavailableError):
            await journal.aclose()
        assert "rows of the journal wait" in caplog.messages[0]

    run(check())


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (ask(WORD), WORD.encode()),
        (ask(WORD, extra={"model": "other"}), WORD.encode()),
        (ask(WORD, extra={"thing": object()}), b""),
        (ask("\ud800"), b""),
    ],
    ids=["served", "refused", "no JSON", "no text"],
)
def test_a_request_that_we_compose_is_kept_as_it_would_be_sent_and_its_error_is_its_own(
    request_: Any, kept: bytes
) -> None:
    """Ours: one that could not be written lost its row, and its caller was told of our failure."""

    async def check() -> None:
        async with lab() as (box, _):
            settings = Settings(
                providers={"box": ProviderSettings(base_url=box.base_url)},
                journal=JournalSettings(bodies=True),
            )
            async with Engine(settings, environ={}) as engine:
                exchange, _ = await converse(engine, request_)
                row = exchange.row
                assert row is not None
                assert row.bodies is not None
                assert [each.bodies for each in engine.journal.rows] == [None], "memory is dear"
                assert kept in row.bodies.request
                assert bool(row.bodies.request) is bool(kept)
                assert exchange.error is None or type(exchange.error) is BadRequestError

    run(check())
