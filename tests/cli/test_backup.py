"""`droveway ledger backup`: a copy that was looked at, also of a ledger that is being used."""

import io
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import msgspec
import pytest
from click.testing import Result
from rich.console import Console

from books import damage, funded, usd
from droveway.cli import ledger, tables
from droveway.ledger import Book, faults
from droveway.storage import Store, backup
from lab import run

Call = Callable[..., Result]
SECONDS = 60
COPY = Path("copy.db")


@pytest.fixture
def acme(clean_place: Path) -> Path:
    """A store in the working directory with one account in it."""
    path = clean_place / "droveway.db"
    with Store(path) as store:
        run(funded(store))
    return path


def test_a_copy_is_one_line(droveway: Call, acme: Path) -> None:
    shown = droveway("ledger", "backup", COPY)
    assert (shown.exit_code, shown.stderr) == (0, "")
    size_bytes = COPY.stat().st_size
    assert shown.stdout == f"copy.db: {size_bytes:,} bytes, 1 accounts, 1 transfers, sound\n"
    assert [each.name for each in acme.parent.glob("*copy*")] == ["copy.db"]
    with Store(COPY) as copy:
        assert Book(copy).show("acme").posted == usd("10")


def test_a_program_gets_data(droveway: Call, acme: Path) -> None:
    config = Path("elsewhere.toml")
    config.write_text(f'[storage]\nurl = "sqlite:{acme}"\n')
    shown = droveway("ledger", "backup", COPY, "--config", config, "--json")
    assert shown.exit_code == 0
    told = msgspec.json.decode(shown.stdout)
    assert (told["path"], told["size_bytes"]) == ("copy.db", COPY.stat().st_size)
    audit = told["audit"]
    assert (audit["accounts"], audit["transfers"], audit["faults"]) == (1, 1, [])


def test_a_copy_of_damaged_books_fails_and_says_what_is_wrong(droveway: Call, acme: Path) -> None:
    with Store(acme) as store:
        damage(store, "UPDATE account SET posted_nano = posted_nano + 1 WHERE kind = 'customer'")
    shown = droveway("ledger", "backup", COPY)
    assert shown.exit_code == 1
    first, *rest = shown.stdout.splitlines()
    assert re.fullmatch(r"copy\.db: [\d,]+ bytes, 1 accounts, 1 transfers, \d+ faults", first)
    assert "a balance is the sum of its entries" in " ".join(rest)
    as_json = droveway("ledger", "backup", "other.db", "--json")
    assert as_json.exit_code == 1
    assert msgspec.json.decode(as_json.stdout)["audit"]["faults"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("taken.db", "'taken.db' exists and is not overwritten"),
        ("nowhere/copy.db", "the copy 'nowhere/copy.db' cannot be written"),
    ],
)
@pytest.mark.usefixtures("acme")
def test_a_bad_place_is_one_line_and_nothing_is_touched(
    target: str, said: str, droveway: Call
) -> None:
    Path("taken.db").write_text("precious")
    shown = droveway("ledger", "backup", target)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.startswith(f"error: {said}")
    assert shown.stderr.count("\n") == 1
    assert Path("taken.db").read_text() == "precious"


def test_where_there_is_no_store_there_is_no_copy(droveway: Call, clean_place: Path) -> None:
    shown = droveway("ledger", "backup", COPY)
    assert shown.exit_code == 2
    assert "there is no store" in shown.stderr
    assert list(clean_place.iterdir()) == []


@pytest.mark.parametrize(
    ("terminal", "after_s", "drawn"),
    [("terminal", 0.0, True), ("terminal", 3_600.0, False), ("pipe", 0.0, False)],
)
@pytest.mark.usefixtures("acme")
def test_a_bar_is_for_people_who_would_have_to_wait(
    terminal: str,
    after_s: float,
    *,
    drawn: bool,
    droveway: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = io.StringIO()

    def console(*, err: bool = False) -> Console:
        assert err
        return Console(file=stderr, force_terminal=terminal == "terminal")

    monkeypatch.setattr(tables, "console", console)
    monkeypatch.setattr(ledger, "BAR_AFTER_S", after_s)
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 8)
    shown = droveway("ledger", "backup", COPY)
    assert (shown.exit_code, shown.stdout.count("\n")) == (0, 1)
    assert ("copying" in stderr.getvalue()) is drawn
    assert drawn or stderr.getvalue() == ""


PAY_IN = """
import asyncio, sys
from pathlib import Path
from droveway.ledger import Book
from droveway.money import Money
from droveway.storage import Store

async def work(store):
    async def one(name):
        await Book(store).top_up("acme", Money.parse("0.01", "USD"), reference=name)
        print(name, flush=True)
    i = 0
    while True:
        await asyncio.gather(*(one(f"wire-{j}") for j in range(i, i + 20)))
        i += 20

with Store(Path(sys.argv[1])) as store:
    asyncio.run(work(store))
"""


def test_a_copy_of_a_ledger_that_is_written_hard_is_sound_and_has_what_was_told_before(
    droveway: Call, acme: Path
) -> None:
    told: list[str] = []
    more = threading.Condition()
    with subprocess.Popen(
        [sys.executable, "-c", PAY_IN, str(acme)], stdout=subprocess.PIPE, text=True
    ) as payer:

        def listen() -> None:
            assert payer.stdout is not None
            for line in payer.stdout:
                with more:
                    told.append(line.strip())
                    more.notify()

        def wait_for(count: int) -> None:
            with more:
                assert more.wait_for(lambda: len(told) >= count, SECONDS)

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            befores = []
            for i in range(3):
                wait_for(len(told) + 100)
                befores.append(list(told))
                shown = droveway("ledger", "backup", f"copy-{i}.db")
                assert (shown.exit_code, shown.stderr) == (0, "")
                assert shown.stdout.endswith(", sound\n")
            wait_for(len(told) + 1)
        finally:
            payer.send_signal(signal.SIGKILL)
            payer.wait(SECONDS)
            listener.join(SECONDS)
    for i, before in enumerate(befores):
        with closing(apsw.Connection(f"copy-{i}.db")) as copy:
            rows = copy.execute("SELECT reference FROM transfer WHERE kind = 'topup'").fetchall()
        references = {reference for (reference,) in rows}
        assert set(before) <= references
        with Store(Path(f"copy-{i}.db")) as store:
            assert faults(store) == []
            # Ten at first, and a cent for each since then: no half of a payment is there.
            posted = Book(store).show("acme").posted.nano
            assert posted == usd("10").nano + usd("0.01").nano * (len(rows) - 1)
