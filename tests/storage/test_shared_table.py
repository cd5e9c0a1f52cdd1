"""A table that processes share: its slots, its seats, and every state its file can be found in."""

import errno
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from droveway.errors import SettingsError, StoreUnavailableError
from droveway.storage import shared_table, table_file
from droveway.storage.seats import Numbers
from droveway.storage.shared_table import SharedTable
from droveway.storage.table_file import beside

SECONDS = 60


def never(numbers: Numbers) -> bool:
    return False


def when_empty(numbers: Numbers) -> bool:
    return not any(numbers)


def open_table(path: Path | None, *, slots: int = 64) -> SharedTable:
    return SharedTable(path, numbers=3, is_over=when_empty, slots=slots)


def write(table: SharedTable, name: str, number: int) -> None:
    slot = table.lock(name)
    slot.numbers[0] = number
    table.unlock(slot)


def read(table: SharedTable, name: str) -> int:
    slot = table.lock(name)
    number = slot.numbers[0]
    table.unlock(slot)
    return number


def place(table: SharedTable, name: str, count: int = 1) -> int:
    """Take so many places, and return how many are taken then."""
    slot = table.lock(name)
    for _ in range(count):
        table.take_place(slot)
    taken = table.places_of(slot)
    table.unlock(slot)
    return taken


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db-limits"


@pytest.fixture(params=["memory", "file"])
def table(request: pytest.FixtureRequest, path: Path) -> Iterator[SharedTable]:
    made = open_table(path if request.param == "file" else None, slots=4)
    yield made
    made.close()


# Slots.


def test_a_name_finds_what_was_written_under_it(table: SharedTable) -> None:
    for number in (7, 8):
        for name in ("a", "b", "c"):
            write(table, name, number + ord(name))
        assert [read(table, name) for name in ("a", "b", "c")] == [number + ord(n) for n in "abc"]


def test_a_full_table_refuses_a_new_name_and_keeps_the_others(table: SharedTable) -> None:
    for name in ("a", "b", "c", "d"):
        write(table, name, ord(name))
    with pytest.raises(StoreUnavailableError, match=r"4 slots .* try again in a minute"):
        table.lock("e")
    assert [read(table, name) for name in ("a", "b", "c", "d")] == [ord(n) for n in "abcd"]


def test_a_slot_that_is_over_is_given_to_another_name_empty(table: SharedTable) -> None:
    for name in ("a", "b", "c", "d"):
        write(table, name, ord(name))
    write(table, "c", 0)
    write(table, "e", 5)
    assert [read(table, name) for name in ("a", "b", "d", "e")] == [*b"abd", 5]
    write(table, "e", 0)
    assert read(table, "c") == 0, "it found the numbers of another name"


def test_a_slot_with_a_place_is_never_given_away(table: SharedTable) -> None:
    slot = table.lock("a")
    table.take_place(slot)
    table.unlock(slot)
    for name in ("b", "c", "d"):
        write(table, name, 1)
    with pytest.raises(StoreUnavailableError):
        table.lock("e")
    table.give_place_back(slot)
    write(table, "e", 1)
    assert read(table, "e") == 1


def test_names_may_come_and_go_for_ever(table: SharedTable) -> None:
    for number in range(1_000):
        write(table, f"name {number}", 1)
        assert read(table, f"name {number}") == 1
        write(table, f"name {number}", 0)
    assert len(table._known) <= 4


def test_a_slot_that_another_process_gave_away_is_searched_again(path: Path) -> None:
    one, other = open_table(path, slots=4), open_table(path, slots=4)
    for name in ("a", "b", "c", "d"):
        write(one, name, 1)
    held = one.lock("a")
    held.numbers[0] = 0
    one.unlock(held)
    write(other, "e", 5)
    assert not one.lock_again(held)
    assert [read(one, name) for name in ("b", "c", "d", "e")] == [1, 1, 1, 5]
    with pytest.raises(StoreUnavailableError):
        one.lock("a")
    one.close()
    other.close()


def test_a_slot_that_was_killed_half_given_is_nobodys(path: Path) -> None:
    """Ours: its mark is that of no name, and the search goes on behind it."""
    with_all = open_table(path, slots=4)
    for name in ("a", "b", "c", "d"):
        write(with_all, name, ord(name))
    torn = with_all.lock("b")
    torn.numbers[0] = 0
    torn.seen[1] += 1
    with_all.unlock(torn)
    assert [read(with_all, name) for name in ("a", "c", "d")] == [*b"acd"]
    write(with_all, "b", 9)
    assert [read(with_all, name) for name in ("a", "b", "c", "d")] == [ord("a"), 9, *b"cd"]
    with_all.close()


def test_a_closed_table_says_so_and_takes_what_comes_back(table: SharedTable) -> None:
    slot = table.lock("a")
    table.take_place(slot)
    table.unlock(slot)
    table.close()
    table.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        table.lock("a")
    table.give_place_back(slot)
    assert not table.lock_again(slot)


# Seats.


def test_places_are_counted_over_all_who_sit_there(path: Path) -> None:
    one, other = open_table(path), open_table(path)
    assert place(one, "a", 2) == 2
    assert place(other, "a", 3) == 5
    one.close()
    assert place(other, "a") == 4, "who leaves takes places along"
    other.close()


def test_places_of_the_living_are_not_buried(path: Path) -> None:
    one, other = open_table(path), open_table(path)
    place(one, "a", 2)
    assert not other.bury_the_dead()
    assert place(other, "a") == 3
    one.close()
    other.close()


def test_a_seat_that_is_taken_again_begins_without_places(path: Path) -> None:
    stays, goes = open_table(path), open_table(path)
    place(goes, "a", 2)
    goes.close()
    comes = open_table(path)
    assert place(comes, "a") == 1
    assert comes._seats._mine == 1
    stays.close()
    comes.close()


def test_more_processes_than_seats_are_refused(path: Path) -> None:
    tables = [open_table(path) for _ in range(table_file.SEATS)]
    with pytest.raises(SettingsError, match=r"256 processes use .* start fewer workers"):
        open_table(path)
    tables.pop().close()
    open_table(path).close()
    for each in tables:
        each.close()


HOLD = """
import sys
from pathlib import Path
from droveway.storage.shared_table import SharedTable
table = SharedTable(Path(sys.argv[1]), numbers=3, is_over=lambda numbers: not any(numbers), slots=64)
slot = table.lock("a")
for _ in range(5):
    table.take_place(slot)
if sys.argv[2] == "unlocked":
    table.unlock(slot)
print("held", flush=True)
input()
"""


@contextmanager
def holder(path: Path, *, how: str = "unlocked") -> Iterator["subprocess.Popen[str]"]:
    """Another process that has five places."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", ["unlocked", "locked"])
def test_a_killed_process_keeps_neither_places_nor_locks(how: str, path: Path) -> None:
    table = open_table(path)
    with holder(path, how=how) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)
    assert place(table, "a", 0) == 5, "nobody has looked yet"
    assert table.bury_the_dead()
    assert place(table, "a", 0) == 0
    assert not table.bury_the_dead()
    table.close()


def test_the_dead_make_room_in_a_full_table(path: Path) -> None:
    table = open_table(path)
    with holder(path):
        for number in range(63):
            write(table, f"name {number}", 1)
        with pytest.raises(StoreUnavailableError):
            table.lock("new")
    write(table, "new", 1)
    table.close()


# The file.


def test_the_file_lies_beside_the_store_by_whatever_name_that_is_called(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    assert beside(tmp_path / "link.db") == (tmp_path / "real.db-limits").resolve()


def test_a_new_file_is_its_owners_alone_and_takes_little_room(path: Path) -> None:
    SharedTable(path, numbers=125, is_over=never).close()
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size > 2**25
    assert found.st_blocks * 512 < 2**16


def test_what_was_written_is_there_after_a_restart(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = open_table(path)
    write(table, "a", 7)
    table.close()
    table = open_table(path)
    assert read(table, "a") == 7
    table.close()
    assert caplog.messages == []


def change(path: Path, at: int, to: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(to)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


@pytest.mark.parametrize(
    "fault",
    [
        (lambda path: path.write_bytes(b"no table at all, but some text. " * 99), "is no table"),
        (lambda path: path.write_bytes(b"x"), "is no table"),
        (lambda path: change(path, 0, bytes(8)), "is no table"),
        (lambda path: change(path, 8, struct.pack("<q", 2)), "has format 2 where 1 is used"),
        (lambda path: change(path, 16, struct.pack("<q", 65)), "has other measures"),
        (lambda path: cut(path, path.stat().st_size - 1), "is torn"),
        (lambda path: cut(path, 4096), "is torn"),
        (lambda path: cut(path, 30), "is no table"),
        (lambda path: cut(path, path.stat().st_size + 8), "is torn"),
    ],
)
def test_a_file_that_is_of_no_use_is_made_anew_with_one_line(
    fault: tuple[Callable[[Path], None], str], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, said = fault
    table = open_table(path)
    write(table, "a", 7)
    table.close()
    spoil(path)
    table = open_table(path)
    assert read(table, "a") == 0
    write(table, "a", 8)
    table.close()
    assert len(caplog.messages) == 1
    assert f"'{path}' {said}" in caplog.messages[0]
    table = open_table(path)
    assert read(table, "a") == 8
    table.close()


def test_a_file_of_an_earlier_boot_is_made_anew_without_a_word(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(table_file, "_this_boot", lambda: b"an earlier boot.")
        table = open_table(path)
        write(table, "a", 7)
        table.close()
    table = open_table(path)
    assert read(table, "a") == 0
    table.close()
    assert caplog.messages == []


def test_an_empty_file_is_filled_without_a_word(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.touch()
    open_table(path).close()
    assert caplog.messages == []


def test_without_a_boot_id_the_file_works_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_file, "_BOOT", path.with_name("is not there"))
    for number in (0, 7):
        table = open_table(path)
        assert read(table, "a") == number
        write(table, "a", 7)
        table.close()


def test_a_file_that_a_running_server_needs_is_left_to_it(path: Path) -> None:
    with holder(path):
        before = path.read_bytes()
        with pytest.raises(SettingsError, match="in use by a running server of another version"):
            open_table(path, slots=65)
        assert path.read_bytes() == before
    open_table(path, slots=65).close()


def test_many_processes_may_make_the_file_at_once(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from droveway.storage.shared_table import SharedTable\n"
        "input()\n"
        "table = SharedTable(Path(sys.argv[1]), numbers=3, is_over=lambda numbers: False, slots=64)\n"
        "for _ in range(500):\n"
        "    slot = table.lock('a'); slot.numbers[0] += 1; table.unlock(slot)\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for each in started:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    ended = [each.communicate(timeout=SECONDS)[1] for each in started]
    assert [each.returncode for each in started] == [0] * 4, ended
    table = open_table(path)
    assert read(table, "a") == 2_000
    table.close()


@pytest.mark.parametrize("place", ["a folder", "no folder"])
def test_a_file_that_cannot_be_opened_is_refused_in_one_line(place: str, path: Path) -> None:
    if place == "a folder":
        path.mkdir()
    with pytest.raises(SettingsError, match=r"cannot use the file of limits .*: (Is a|No such)"):
        open_table(path if place == "a folder" else path / "deeper")


def full_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_refuses_a_new_name_and_leaves_the_process_alive(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours: a mapped page without room on the disk would be a SIGBUS."""
    table = open_table(path)
    write(table, "a", 7)
    for said in (full_disk, lambda *_: 100):
        with monkeypatch.context() as full:
            full.setattr(os, "pwrite", said)
            with pytest.raises(StoreUnavailableError, match="No space left"):
                table.lock("b")
            assert read(table, "a") == 7
    write(table, "b", 8)
    assert (read(table, "a"), read(table, "b")) == (7, 8)
    table.close()


def test_a_full_disk_refuses_to_begin(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", full_disk)
        with pytest.raises(SettingsError, match="No space left"):
            open_table(path)
    open_table(path).close()


def test_a_lock_that_cannot_be_had_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> bytes:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    table = open_table(path)
    write(table, "a", 7)
    with monkeypatch.context() as without:
        without.setattr(shared_table, "set_lock", no_locks)
        with pytest.raises(StoreUnavailableError, match="No locks available"):
            table.lock("a")
    assert read(table, "a") == 7
    table.close()


def test_where_the_system_has_no_such_locks_the_table_is_this_processs_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_table, "HAVE_LOCKS", False)
    table = open_table(path)
    write(table, "a", 7)
    assert read(table, "a") == 7
    table.close()
    assert not path.exists()
    assert len(caplog.messages) == 1
