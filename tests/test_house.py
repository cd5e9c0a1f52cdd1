"""The house keeps itself tidy: sizes, names, exports and the plan of its rooms are tests."""

import ast
import importlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import droveway

SOURCE = Path(droveway.__file__).parent
ROOT = Path(__file__).parent.parent
LINES_PER_FILE_MAX = 500
LINES_PER_FUNCTION_MAX = 70
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc", "core", "manager", "managers"}
# Rooms that decide and touch nothing; whoever adds a room says here whether it is one.
PURE = {"errors", "chat", "sse", "money", "catalog", "dialects", "resilience", "routing"}
# Rooms whose work it is to speak HTTP, outwards or inwards.
SPEAKING = {"transport", "sandbox", "gateway", "bench"}
# What waits, reads the clock or draws lots, and where alone that is done.
RESERVED = {("time", "time"), ("random", "random"), ("asyncio", "sleep")}

MODULES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]["contracts"]
}
ROOMS = {
    path.stem
    for path in SOURCE.iterdir()
    if (path.suffix == ".py" and not path.stem.startswith("__")) or (path / "__init__.py").is_file()
}

each_module = pytest.mark.parametrize(
    "path", MODULES, ids=[str(path.relative_to(SOURCE)) for path in MODULES]
)


# Sizes and names.


@each_module
def test_a_file_fits_in_the_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_PER_FILE_MAX


@each_module
def test_a_function_fits_on_a_screen(path: Path) -> None:
    too_long = [
        f"{node.name}:{node.lineno}"
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LINES_PER_FUNCTION_MAX
    ]
    assert too_long == []


def test_no_room_has_a_vague_name() -> None:
    names = {path: path.relative_to(SOURCE).with_suffix("").parts for path in MODULES}
    assert [path for path, parts in names.items() if VAGUE & set(parts)] == []


def test_every_module_says_what_it_is() -> None:
    assert [path for path, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_every_folder_of_modules_is_a_package() -> None:
    """Ours: a folder without `__init__.py` is a room that no contract and no wheel sees."""
    folders = {path.parent for path in MODULES}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_no_file_is_forgotten() -> None:
    """Every module is imported by another one, or is a door (after TigerBeetle's `tidy.zig`)."""
    doors = {"__init__", "__main__", "main"}
    imported = {
        name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in [*(node.module or "").split("."), *(alias.name for alias in node.names)]
    }
    # Commands are loaded lazily by name: the command table has its own test.
    rooms = [path for path in MODULES if "cli" not in path.relative_to(SOURCE).parts]
    assert [path for path in rooms if path.stem not in doors | imported] == []


def test_nothing_unfinished_is_marked() -> None:
    marks = [path for path in MODULES if "FIXME" in path.read_text(encoding="utf-8")]
    assert marks == []


# The public names.


def test_public_names_are_real() -> None:
    public = getattr(importlib.import_module("droveway"), "__all__", [])
    assert public
    assert [name for name in public if not hasattr(droveway, name)] == []


def test_public_names_are_sorted_and_named_once() -> None:
    public = list(droveway.__all__)
    assert public == sorted(set(public))


def test_every_public_name_says_what_it_is() -> None:
    public = {name: getattr(droveway, name) for name in droveway.__all__}
    assert [name for name, what in public.items() if not getattr(what, "__doc__", None)] == []


# The plan of the rooms.


def contract(beginning: str) -> dict[str, Any]:
    (found,) = [each for name, each in CONTRACTS.items() if name.startswith(beginning)]
    assert isinstance(found, dict)
    return found


def rooms_in(modules: list[str]) -> set[str]:
    return {module.removeprefix("droveway.") for module in modules}


def stairs() -> list[set[str]]:
    """The rooms of each stair, highest first; parentheses mean "not yet, perhaps"."""
    return [
        {room.strip(" ()") for room in layer.split("|")}
        for layer in contract("The house")["layers"]
    ]


def test_every_room_stands_on_one_stair() -> None:
    named = [room for stair in stairs() for room in stair]
    assert set(named) >= ROOMS
    assert len(named) == len(set(named))


def test_the_stairs_leave_no_room_out() -> None:
    house = contract("The house")
    assert house["exhaustive"] is True
    assert house["exhaustive_ignores"] == ["__main__"]
    assert house["containers"] == ["droveway"]


def test_every_room_that_decides_touches_nothing() -> None:
    decisions = contract("Decisions touch nothing")
    assert rooms_in(decisions["source_modules"]) == PURE & ROOMS
    forbidden = set(decisions["forbidden_modules"])
    assert {"asyncio", "socket", "time", "random", "os", "droveway.settings"} <= forbidden
    assert not decisions.get("ignore_imports")


def test_every_room_above_transport_leaves_http_to_it() -> None:
    outwards = contract("Only transport speaks HTTP outwards")
    order = stairs()
    (level,) = [place for place, stair in enumerate(order) if "transport" in stair]
    above = {room for stair in order[:level] for room in stair}
    assert rooms_in(outwards["source_modules"]) >= (above & ROOMS) - SPEAKING
    assert "httptools" in outwards["forbidden_modules"]


def test_only_storage_imports_a_driver() -> None:
    drivers = contract("Only storage imports a driver")
    assert drivers["source_modules"] == ["droveway"]
    assert set(drivers["forbidden_modules"]) == {"apsw", "sqlite3", "psycopg"}
    assert all(each.startswith("droveway.storage.") for each in drivers["ignore_imports"])


def test_the_sandbox_shares_no_code_with_what_it_tests() -> None:
    sandbox = contract("The sandbox shares no code")
    assert rooms_in(sandbox["source_modules"]) == {"sandbox"}
    assert {"dialects", "catalog", "sse", "chat"} <= rooms_in(sandbox["forbidden_modules"])


def test_no_contract_names_a_room_that_is_not_there() -> None:
    named = {
        module.split(".")[1]
        for each in CONTRACTS.values()
        for key in ("source_modules", "forbidden_modules")
        for module in each.get(key, ())
        if module.startswith("droveway.")
    }
    assert named <= ROOMS


# Time and chance.


def uses_of_time_and_chance(tree: ast.Module) -> Iterator[int]:
    """Lines on which a reserved name is used, called by its own or another name."""
    modules = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (
                node.lineno for alias in node.names if (node.module, alias.name) in RESERVED
            )
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and (modules.get(node.value.id), node.attr) in RESERVED
        ):
            yield node.lineno


@each_module
def test_time_and_chance_come_from_a_clock(path: Path) -> None:
    used = list(uses_of_time_and_chance(TREES[path]))
    assert not used or path == SOURCE / "clock.py"


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.time()",
        "import time as t\nt.time()",
        "from time import time",
        "from asyncio import sleep as rest",
        "import asyncio\nasync def f():\n    await asyncio.sleep(1)",
        "import random\nchance = random.random",
    ],
)
def test_time_and_chance_are_found_by_any_name(code: str) -> None:
    assert len(list(uses_of_time_and_chance(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code",
    ["import random\nrandom.Random(3).random()", "import time\ntime.monotonic()",
     "async def f(clock):\n    await clock.sleep(1)"],
)  # fmt: skip
def test_seeded_chance_and_a_clock_are_no_offence(code: str) -> None:
    assert list(uses_of_time_and_chance(ast.parse(code))) == []


def test_only_the_clock_imports_time() -> None:
    importers = {
        path.relative_to(SOURCE).as_posix()
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(alias.name == "time" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "time")
    }
    assert importers == {"clock.py"}
