"""The metrics of several processes that share a port: added up, dead ones too."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.chat import Usage
from droveway.clock import StillClock
from droveway.engine.records import Row
from droveway.gateway.metrics import Metrics, mark_dead
from droveway.gateway.present import Present
from droveway.gateway.traffic import PAIRS_MAX, Sums, added_up
from droveway.money import Money
from lab import run
from scraping import number, numbers, row, text_of

WORKER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from droveway.engine.records import AttemptEntry, Row
from droveway.gateway.metrics import Metrics
from droveway.gateway.present import LinePresent, Present
from droveway.money import Money

at = datetime(2026, 11, 23, tzinfo=UTC)
sent = AttemptEntry(provider="p", model="m", at=at, outcome="completed", total_ms=90.0)
line = LinePresent(in_flight=3, waiting=2, window=5, stopped={"failing": 1})
metrics = Metrics(
    directory=Path(sys.argv[1]),
    present=lambda: Present(in_flight=3, tasks=4, lines={("p", 1, "m"): line}),
)
for _ in range(int(sys.argv[2])):
    metrics.note(Row(id="r", at=at, asked="m", served="m", outcome="completed", attempts=(sent,),
                     cost=Money(100_000_000, "USD"), total_ms=100.0))
metrics.refused("invalid_api_key")
metrics.publish()
metrics.publish()
assert "prometheus_client" not in sys.modules, "only a scrape pays for it"
print("published", flush=True)
sys.stdin.read()
"""


def worker(directory: Path, requests: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(directory), str(requests)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "published\n"
    return process


def test_whoever_is_scraped_tells_of_all_processes_dead_ones_too(tmp_path: Path) -> None:
    with worker(tmp_path, 2) as one, worker(tmp_path, 5) as two:
        mine = Metrics(directory=tmp_path, present=lambda: Present(in_flight=1, tasks=2))
        mine.note(row(cost=Money(200_000_000, "USD")))

        def requests_and_in_flight() -> tuple[float, float]:
            text = text_of(mine)
            assert number(text, "droveway_refused_total", code="invalid_api_key") == 2
            assert number(text, "droveway_cost_total", model="m") == 0.9
            in_flight = number(text, "droveway_requests_in_flight")
            # Four tasks of each other process for its three requests, two of this one for its one.
            others = (in_flight - 1) / 3
            assert number(text, "droveway_tasks") == 2 + 4 * others
            if others:
                place = {"provider": "p", "account": "1", "model": "m"}
                assert number(text, "droveway_line_in_flight", **place) == 3 * others
                assert number(text, "droveway_line_waiting", **place) == 2 * others
                assert number(text, "droveway_line_window", **place) == 5 * others
                assert number(text, "droveway_line_stopped", cause="failing") == others
                assert number(text, "droveway_line_stopped", cause="refused") == 0
            else:
                assert "droveway_line_window{" not in text
            return number(text, "droveway_requests_total", model="m"), in_flight

        try:
            assert requests_and_in_flight() == (8, 7)
            for process, left in ((one, 4), (two, 1)):
                process.send_signal(signal.SIGKILL)
                process.wait()
                mark_dead(tmp_path, process.pid)
                assert requests_and_in_flight() == (8, left)
                mark_dead(tmp_path, process.pid)
                assert requests_and_in_flight() == (8, left)
        finally:
            one.kill()
            two.kill()
    assert [file.name for file in tmp_path.iterdir()] == ["gone"]


def test_a_dead_process_that_is_taken_up_amid_a_scrape_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours: a counter that jumps up, or down, is a false alarm."""
    dead = Metrics(directory=tmp_path)
    dead.note(row())
    dead.publish()
    mine = Metrics(directory=tmp_path)
    read = Path.read_bytes
    for moment in ("before", "after"):

        def read_amid(file: Path, moment: str = moment) -> bytes:
            if file.suffix != ".sums":
                return read(file)
            monkeypatch.setattr(Path, "read_bytes", read)
            if moment == "before":
                mark_dead(tmp_path, os.getpid())
                return read(file)
            found = read(file)
            mark_dead(tmp_path, os.getpid())
            return found

        monkeypatch.setattr(Path, "read_bytes", read_amid)
        assert number(text_of(mine), "droveway_requests_total") == 1
        assert not list(tmp_path.glob("*.sums"))
        assert number(text_of(mine), "droveway_requests_total") == 1
        (tmp_path / "gone").unlink()
        dead._published = b""
        dead.publish()


def test_what_was_published_is_not_counted_beside_what_is_known_better(tmp_path: Path) -> None:
    mine = Metrics(directory=tmp_path)
    for count in (1, 2):
        mine.note(row())
        assert number(text_of(mine), "droveway_requests_total") == count
        mine.publish()
        assert number(text_of(mine), "droveway_requests_total") == count


def test_all_processes_together_keep_the_bound_of_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [Metrics(directory=tmp_path) for _ in range(3)]
    for index, each in enumerate(several):
        for name in range(100):
            each.note(row(f"model-{index}-{name}"))
        each.publish()
    pages = {text_of(each) for each in several}
    plain = Path.glob
    monkeypatch.setattr(Path, "glob", lambda *given: reversed(list(plain(*given))))
    pages |= {text_of(each) for each in several}
    assert len(pages) == 1, "which models have a label depends on who is scraped"
    text = pages.pop()
    models = {dict(labels).get("model") for _, labels in numbers(text)} - {None}
    assert len(models) == PAIRS_MAX + 1
    assert number(text, "droveway_requests_total") == 300


ROWS = st.builds(
    row,
    model=st.sampled_from(["m", "n", "sk-0123456789abcdef0123"]),
    provider=st.sampled_from(["p", "q"]),
    outcome=st.sampled_from(["completed", "failed", "cancelled"]),
    code=st.sampled_from([None, "upstream_failed", "made_up"]),
    served=st.sampled_from(["m", "o", None]),
    usage=st.none() | st.builds(Usage, input=st.integers(0, 10**9), cached_read=st.integers(0, 9)),
    cost=st.none() | st.builds(Money, st.integers(0, 2**50), st.sampled_from(["USD", "CNY"])),
    first_token_ms=st.none() | st.integers(0, 10**6),
    total_ms=st.integers(0, 10**7),
)


@given(st.lists(st.tuples(st.integers(0, 2), ROWS), max_size=20))
def test_processes_together_say_what_one_would_have_said(rows: list[tuple[int, Row]]) -> None:
    parts, one = [Sums(), Sums(), Sums()], Sums()
    for index, each in rows:
        parts[index].note(each)
        one.note(each)
    kept = [msgspec.msgpack.decode(msgspec.msgpack.encode(part), type=Sums) for part in parts]
    assert added_up(kept) == one


def test_sums_are_published_each_second_and_once_more_at_the_end(tmp_path: Path) -> None:
    async def check() -> None:
        clock, busy = StillClock(), [0]
        other = Metrics(directory=tmp_path)
        mine = Metrics(directory=tmp_path, present=lambda: Present(in_flight=busy[0]))
        task = asyncio.create_task(mine.keep_published(clock))

        async def seen() -> tuple[int, int]:
            text = (await other.page())[0].decode()
            found = numbers(text)
            requests = [
                value for (name, _), value in found.items() if name == "droveway_requests_total"
            ]
            return int(sum(requests)), int(found["droveway_requests_in_flight", ()])

        await clock.advance(0)
        mine.note(row())
        busy[0] = 1
        assert await seen() == (0, 0)
        await clock.advance(1.0)
        assert await seen() == (1, 1)
        busy[0] = 0  # nothing has ended, and the gauge moves all the same
        await clock.advance(1.0)
        assert await seen() == (1, 0)
        mine.note(row())
        task.cancel()
        await asyncio.wait([task])
        assert await seen() == (2, 0)

    run(check())


def test_a_folder_that_cannot_be_written_costs_one_line_and_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "later"

    async def check() -> None:
        clock = StillClock()
        mine = Metrics(directory=folder)
        task = asyncio.create_task(mine.keep_published(clock))
        for _ in range(3):
            mine.note(row())
            await clock.advance(1.0)
        assert len(caplog.records) == 1
        folder.mkdir()
        await clock.advance(1.0)
        assert (
            number((await Metrics(directory=folder).page())[0].decode(), "droveway_requests_total")
            == 3
        )
        task.cancel()
        await asyncio.wait([task])

    run(check())
    assert "other processes do not see" in caplog.text


def test_a_dead_process_whose_folder_cannot_be_written_is_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours: whoever watches over the workers calls this, and must live on."""
    Metrics(directory=tmp_path, present=lambda: Present(in_flight=1)).publish()

    def full(file: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    mark_dead(tmp_path, os.getpid())
    assert "No space left" in caplog.text
    assert number(text_of(Metrics(directory=tmp_path)), "droveway_requests_in_flight") == 1
