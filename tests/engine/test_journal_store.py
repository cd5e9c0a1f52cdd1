"""The journal that lasts: batches, what is kept of a row, sums of hours, and forgetting."""

import asyncio
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from droveway.chat import Usage
from droveway.clock import StillClock
from droveway.engine.engine import Engine
from droveway.engine.journal_store import BATCH_MAX, FLUSH_AFTER_S, RETRY_AFTER_S, StoredJournal
from droveway.engine.journal_upkeep import forget, hours, roll_up
from droveway.engine.records import AttemptEntry, Row
from droveway.engine.written import as_json, drifts
from droveway.errors import StoreUnavailableError
from droveway.money import Money
from droveway.resilience.retry import RetryPolicy
from droveway.sandbox import Sandbox
from droveway.storage import Connection, Store
from lab import INSTANT, ask, converse, run, terms

AT = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "a.db") as made:
        yield made


def attempt(**fields: Any) -> AttemptEntry:
    return AttemptEntry(
        **{"provider": "p", "model": "m", "at": AT, "outcome": "completed", **fields}
    )


def row(number: int = 0, **fields: Any) -> Row:
    return Row(
        **{
            "id": f"req_{number}",
            "at": AT,
            "asked": "m",
            "outcome": "completed",
            "attempts": (attempt(),),
            **fields,
        }
    )


def keep(store: Store, *rows: Row) -> StoredJournal:
    """Write rows down and return the journal they are in."""

    async def work() -> StoredJournal:
        journal = StoredJournal(store)
        for each in rows:
            journal.append(each)
        await journal.aclose()
        return journal

    return run(work())


# Through the engine.


def test_a_request_of_the_engine_has_a_row_that_lasts(store: Store) -> None:
    async def work() -> None:
        journal = StoredJournal(store)
        async with Sandbox(profile=INSTANT) as box:
            provider = Engine.at(box.base_url).providers["remote"]
            async with Engine(providers=[provider], journal=journal) as engine:
                told = terms(tags={"role": "r"}, key_id="key_1")
                exchange, _ = await converse(engine, ask(), told)
        await journal.aclose()
        assert exchange.row is not None
        kept = journal.get(exchange.id)
        assert kept is not None
        assert (kept.asked, kept.sent, kept.served) == ("deepseek-flash",) * 3
        assert (kept.key_id, kept.tags, kept.outcome) == ("key_1", {"role": "r"}, "completed")
        assert (kept.usage, kept.cost) == (exchange.row.usage, exchange.row.cost)
        assert (kept.attempts, kept.each_attempt, kept.client_gone) == (1, (), False)

    run(work())


def test_attempts_have_rows_only_where_there_were_several(store: Store) -> None:
    async def work() -> None:
        journal = StoredJournal(store)
        async with Sandbox(profile=INSTANT) as box:
            provider = Engine.at(box.base_url).providers["remote"]
            async with Engine(providers=[provider], journal=journal) as engine:
                told = terms(RetryPolicy(max_attempts=2, base_s=0.01))
                exchange, _ = await converse(engine, ask(model="fault-500"), told)
        await journal.aclose()
        kept = journal.get(exchange.id)
        assert kept is not None
        assert exchange.row is not None
        assert kept.attempts == len(exchange.row.attempts)
        assert [each.status for each in kept.each_attempt] == [500, 500]

    run(work())


def test_a_caller_who_leaves_is_noted(store: Store) -> None:
    async def work() -> None:
        journal = StoredJournal(store)
        async with Sandbox(profile=INSTANT) as box:
            provider = Engine.at(box.base_url).providers["remote"]
            async with Engine(providers=[provider], journal=journal) as engine:
                exchange = await engine.begin(ask(model="fault-slow-headers"), terms())
                exchange.give_up()
                await asyncio.wait([exchange.task])
        await journal.aclose()
        kept = journal.get(exchange.id)
        assert kept is not None
        assert (kept.client_gone, kept.outcome, kept.code) == (True, "cancelled", "cancelled")

    run(work())


# Batches.


def test_rows_are_written_together_after_a_moment(store: Store) -> None:
    async def work() -> None:
        clock = StillClock()
        journal = StoredJournal(store, clock=clock)
        for number in range(50):
            journal.append(row(number))
        await clock.advance(FLUSH_AFTER_S * 0.9)
        assert store.commits == 0
        await clock.advance(FLUSH_AFTER_S * 0.1)
        await store.flush()
        assert [each.id for each in journal.recent(99)] == [f"req_{n}" for n in range(50)][::-1]
        # The batch, and the flush that may have come after it.
        assert store.commits <= 2
        assert clock.next_at is None

    run(work())


def test_many_rows_do_not_wait_for_the_moment(store: Store) -> None:
    async def work() -> None:
        clock = StillClock()
        journal = StoredJournal(store, clock=clock)
        for number in range(BATCH_MAX):
            journal.append(row(number))
        await asyncio.sleep(0)
        await store.flush()
        assert len(journal.recent(1_000)) == BATCH_MAX
        assert clock.next_at is None

    run(work())


def test_listeners_and_memory_work_as_in_every_journal(store: Store) -> None:
    async def work() -> None:
        journal = StoredJournal(store, rows_kept=2)
        heard: list[Row] = []
        journal.listeners.append(heard.append)
        rows = [row(number) for number in range(3)]
        for each in rows:
            journal.append(each)
        await journal.aclose()
        assert heard == rows
        assert list(journal.rows) == rows[1:]

    run(work())


def test_closing_writes_down_what_waits(store: Store) -> None:
    assert len(keep(store, *(row(number) for number in range(1_000))).recent(2_000)) == 1_000


def test_rows_wait_for_a_store_that_cannot_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        clock = StillClock()
        journal = StoredJournal(store, clock=clock)
        write = store.write

        async def fail(work: Any) -> Any:
            raise StoreUnavailableError("the store is full")

        monkeypatch.setattr(store, "write", fail)
        for number in range(3):
            journal.append(row(number))
        with pytest.raises(StoreUnavailableError):
            await journal.flush()
        journal.append(row(3))
        await clock.advance(RETRY_AFTER_S)
        monkeypatch.setattr(store, "write", write)
        assert journal.recent() == []
        await clock.advance(RETRY_AFTER_S)
        await store.flush()
        assert [each.id for each in journal.recent()] == ["req_3", "req_2", "req_1", "req_0"]
        await journal.aclose()

    run(work())
    assert "rows of the journal wait: the store is full" in caplog.text


def test_rows_that_are_lost_are_counted_aloud(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        clock = StillClock()
        journal = StoredJournal(store, clock=clock)

        async def fail(work: Any) -> Any:
            raise StoreUnavailableError("the store is full")

        monkeypatch.setattr(store, "write", fail)
        monkeypatch.setattr("droveway.engine.journal_store.WAITING_MAX", 2)
        for number in range(3):
            journal.append(row(number))
        with pytest.raises(StoreUnavailableError):
            await journal.aclose()
        assert clock.next_at is None

    run(work())
    assert "1 rows of the journal are lost: too many wait" in caplog.text
    assert "2 rows of the journal are lost: the store is full" in caplog.text


def test_a_row_that_no_table_takes_does_not_take_its_batch_with_it(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    bad = row(1, usage=Usage(input=2**64))
    journal = keep(store, row(0), bad, row(2))
    assert {each.id for each in journal.recent()} == {"req_0", "req_2"}
    assert "request req_1 has no row in the journal" in caplog.text


# What is kept.

NUMBERS = itertools.count()
NAMES = st.text(max_size=20)
SPANS_MS = st.integers(0, 10**12).map(lambda micros: micros / 1e3)
TOKENS = st.integers(0, 2**63 - 1)
USAGES = st.builds(
    Usage,
    input=TOKENS,
    cached_read=TOKENS,
    cache_write=TOKENS,
    output=TOKENS,
    reasoning=TOKENS,
    source=st.sampled_from(["provider", "counted", "bound"]),
)
COSTS = st.builds(
    Money, st.integers(-(2**63) + 1, 2**63 - 1), st.sampled_from(["USD", "CNY", "EUR"])
)
MOMENTS = st.datetimes(timezones=st.just(UTC))
OUTCOMES = st.sampled_from(["completed", "failed", "cancelled"])
ATTEMPTS = st.builds(
    AttemptEntry,
    provider=NAMES,
    model=NAMES,
    at=MOMENTS,
    outcome=OUTCOMES,
    code=st.none() | NAMES,
    status=st.none() | st.integers(100, 599),
    usage=st.none() | USAGES,
    cost=st.none() | COSTS,
    price_row=st.none() | NAMES,
    first_token_ms=st.none() | SPANS_MS,
    total_ms=SPANS_MS,
)
ROWS = st.builds(
    Row,
    id=st.just("req"),
    at=MOMENTS,
    asked=NAMES,
    served=st.none() | NAMES,
    outcome=OUTCOMES,
    code=st.none() | NAMES,
    usage=st.none() | USAGES,
    cost=st.none() | COSTS,
    own_cost=st.none() | COSTS,
    price_row=st.none() | NAMES,
    attempts=st.lists(ATTEMPTS, max_size=4).map(tuple),
    first_token_ms=st.none() | SPANS_MS,
    total_ms=SPANS_MS,
    tags=st.dictionaries(NAMES, NAMES, max_size=3),
    key_id=st.none() | NAMES,
    client_gone=st.booleans(),
)
SAME = (
    *("id", "at", "asked", "served", "outcome", "code", "usage", "cost", "own_cost", "price_row"),
    *("first_token_ms", "total_ms", "tags", "key_id", "client_gone"),
)


@given(st.lists(ROWS, min_size=1, max_size=6))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_come_back_as_they_were(store: Store, rows: list[Row]) -> None:
    # One store for all examples: each gets names of its own.
    rows = [msgspec.structs.replace(each, id=f"req_{next(NUMBERS)}") for each in rows]
    journal = keep(store, *rows)
    for each in rows:
        kept = journal.get(each.id)
        assert kept is not None
        assert [getattr(kept, name) for name in SAME] == [getattr(each, name) for name in SAME]
        assert kept.attempts == len(each.attempts)
        assert kept.each_attempt == (each.attempts if len(each.attempts) > 1 else ())
        if each.attempts:
            last = each.attempts[-1]
            assert (kept.provider, kept.sent) == (last.provider, last.model)
        assert as_json(kept)["id"] == each.id


def test_no_float_is_kept(store: Store) -> None:
    keep(store, row(1, first_token_ms=1.5, total_ms=2.25, cost=Money(7, "USD")))
    kinds = store.read("SELECT DISTINCT type FROM pragma_table_info('request')")
    assert sorted(kind for (kind,) in kinds) == ["BLOB", "INTEGER", "TEXT"]


def test_money_is_a_decimal_string_for_programs(store: Store) -> None:
    costs = (attempt(cost=Money(1, "USD")), attempt(cost=None))
    journal = keep(store, row(1, cost=Money(1_500_000_000, "USD"), attempts=costs), row(2))
    kept = journal.get("req_1")
    assert kept is not None
    told = msgspec.json.decode(msgspec.json.encode(as_json(kept)))
    assert (told["cost"], told["currency"]) == ("1.50", "USD")
    assert [each["cost"] for each in told["each_attempt"]] == ["0.000000001", None]
    other = journal.get("req_2")
    assert other is not None
    assert as_json(other)["cost"] is None
    assert "each_attempt" not in as_json(other)


@pytest.mark.parametrize(
    ("sent", "served", "drift"),
    [
        ("gpt-4.1", "gpt-4.1", False),
        ("gpt-4.1", "gpt-4.1-2025-04-14", False),
        ("deepseek-flash", "deepseek-flash-1123", False),
        ("gpt-4.1", "gpt-4.1-mini", True),
        ("gpt-4.1", "gpt-4.1-mini-2025-04-14", True),
        ("gpt-4.1", "gpt-4", True),
        ("deepseek-flash", "deepseek-pro", True),
        ("deepseek-flash", None, False),
        (None, "deepseek-flash", False),
    ],
)
def test_another_model_than_the_one_sent_for_is_flagged(
    sent: str | None, served: str | None, *, drift: bool
) -> None:
    assert drifts(sent, served) is drift


# Looking back.


def test_recent_is_by_time_and_model_and_key(store: Store) -> None:
    journal = keep(
        store,
        row(1, at=AT + timedelta(hours=2), key_id="k"),
        row(2, at=AT, asked="alias"),
        row(3, at=AT + timedelta(hours=1), attempts=(attempt(model="other"),), served="third"),
    )
    assert [each.id for each in journal.recent()] == ["req_1", "req_3", "req_2"]
    assert [each.id for each in journal.recent(1)] == ["req_1"]
    since = AT + timedelta(hours=1)
    assert [each.id for each in journal.recent(since=since)] == ["req_1", "req_3"]
    for model, found in (("alias", "req_2"), ("other", "req_3"), ("third", "req_3")):
        assert [each.id for each in journal.recent(model=model)] == [found]
    assert [each.id for each in journal.recent(key_id="k")] == ["req_1"]
    assert journal.get("nobody") is None


def test_following_goes_on_in_the_order_of_writing(store: Store) -> None:
    journal = keep(store, *(row(number, at=AT - timedelta(hours=number)) for number in range(5)))
    first = journal.following(0, 2)
    assert [each.id for each in first] == ["req_0", "req_1"]
    rest = journal.following(first[-1].seq)
    assert [each.id for each in rest] == ["req_2", "req_3", "req_4"]
    assert journal.last_seq() == rest[-1].seq
    assert journal.following(0, model="x") == []


# Upkeep.


def test_every_row_is_summed_up_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("droveway.engine.journal_upkeep.ROWS_PER_STEP", 3)
    usage = Usage(input=1, cached_read=2, cache_write=3, output=4, reasoning=1)
    cost = Money(10, "USD")
    keep(
        store,
        *(row(number, usage=usage, cost=cost, total_ms=1.0) for number in range(7)),
        row(7, at=AT + timedelta(hours=1), served="x"),
        row(8, attempts=(), outcome="failed", key_id="k"),
    )
    assert run(roll_up(store)) == 9
    assert run(roll_up(store)) == 0
    keep(store, row(9, usage=usage, cost=cost, total_ms=1.0))
    assert run(roll_up(store)) == 1
    sums = {
        (each.hour, each.outcome, each.currency): each
        for each in hours(store, AT - timedelta(hours=1))
    }
    hour = AT.replace(minute=0)
    first = sums[hour, "completed", "USD"]
    assert (first.requests, first.cost_nano, first.total_us) == (8, 80, 8_000)
    assert (first.input, first.cached_read, first.cache_write) == (8, 16, 24)
    assert (first.output, first.reasoning, first.drifted) == (32, 8, 0)
    assert sums[hour + timedelta(hours=1), "completed", ""].drifted == 1
    failed = sums[hour, "failed", ""]
    assert (failed.key_id, failed.provider, failed.model) == ("k", "", "m")
    assert len(sums) == 3
    assert hours(store, hour + timedelta(hours=2)) == []


def test_old_rows_are_let_go_but_not_before_they_are_summed_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("droveway.engine.journal_upkeep.ROWS_PER_STEP", 2)
    two = (attempt(), attempt())
    old = [row(number, at=AT - timedelta(days=100), attempts=two) for number in range(5)]
    journal = keep(store, *old, row(9, attempts=two))
    before = AT - timedelta(days=90)
    assert run(forget(store, before)) == 0
    kept = journal.get("req_0")
    assert kept is not None
    assert kept.each_attempt == two
    run(roll_up(store))
    assert run(forget(store, before)) == 5
    assert [each.id for each in journal.recent()] == ["req_9"]
    assert store.read("SELECT DISTINCT request_id FROM attempt") == [("req_9",)]
    assert sum(each.requests for each in hours(store, AT - timedelta(days=200))) == 6


def test_what_is_written_after_everything_was_let_go_is_summed_up_too(store: Store) -> None:
    """Ours: SQLite uses a row number again unless it is told not to."""
    keep(store, row(1), row(2))
    run(roll_up(store))
    run(forget(store, AT + timedelta(days=1)))
    keep(store, row(3))
    assert run(roll_up(store)) == 1


def test_maintenance_goes_on_by_the_clock_and_through_failures(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class DoneClock(StillClock):
        async def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                raise asyncio.CancelledError
            await asyncio.sleep(0)

    slept: list[float] = []
    clock = DoneClock(AT)
    keep(store, row(1), row(2, at=AT - timedelta(days=8)))
    write = store.write
    calls = 0

    async def failing_once(work: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailableError("the store is locked")
        return await write(work)

    monkeypatch.setattr(store, "write", failing_once)
    with pytest.raises(asyncio.CancelledError):
        run(StoredJournal(store, clock=clock).maintain(keep_days=7))
    assert slept == [60.0] * 3
    assert [each.id for each in StoredJournal(store).recent()] == ["req_1"]
    assert "upkeep waits: the store is locked" in caplog.text


def test_two_processes_may_keep_it_up_at_once(store: Store) -> None:
    async def work(other: Store) -> None:
        done = await asyncio.gather(roll_up(store), roll_up(other), roll_up(store))
        assert sum(done) == 500

    keep(store, *(row(number) for number in range(500)))
    with Store(store.path) as other:
        run(work(other))
    assert sum(each.requests for each in hours(store, AT - timedelta(days=1))) == 500


def test_the_look_backs_use_an_index(store: Store) -> None:
    """Ours: millions of rows are looked through by time, by place or by id, never one by one."""

    def plan(db: Connection) -> list[str]:
        from droveway.engine import statements

        given: dict[str, tuple[Any, ...]] = {
            statements.RECENT: (0, None, None, 5),
            statements.FOLLOWING: (0, None, 5),
            statements.BY_ID: ("x",),
        }
        return [
            detail
            for sql, parameters in given.items()
            for *_, detail in db.rows(f"EXPLAIN QUERY PLAN {sql}", parameters)
        ]

    told = run(store.write(plan))
    assert [line.split(" ")[0] for line in told] == ["SEARCH"] * 3, told
