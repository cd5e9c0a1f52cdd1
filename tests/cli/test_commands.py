"""The table of commands, their help, and the door: one line for whatever goes wrong."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import click
import pytest
from click.testing import Result

from droveway.cli.help_page import Command, Group
from droveway.cli.main import COMMANDS, commands
from droveway.errors import RateLimitError, SettingsError

Call = Callable[..., Result]
Spawn = Callable[..., CompletedProcess[str]]

MEMBERS = {
    "prices": ("list", "show", "compare", "savings"),
    "accounts": ("add", "list", "show", "freeze", "thaw", "topup", "refund", "grant", "voucher",
                 "budget", "statement"),
    "ledger": ("verify", "backup", "reconcile"),
}  # fmt: skip
INNER = {
    ("accounts", "voucher"): ("issue", "list", "redeem"),
    ("accounts", "budget"): ("set", "list", "end"),
}
PATHS: list[tuple[str, ...]] = [
    *((name,) for name in COMMANDS),
    *((name, member) for name, members in MEMBERS.items() for member in members),
    *((*path, member) for path, members in INNER.items() for member in members),
]
HINT = "run it again with DROVEWAY_DEBUG=1 for the trace"
BUILT = {
    "keys",
    "accounts",
    "ledger",
    "demo",
    "sandbox",
    "ask",
    "run",
    "prices",
    "check",
    "doctor",
    "requests",
    "serve",
    "bench",
}


def found(path: tuple[str, ...]) -> click.Command:
    command: click.Command = commands
    for name in path:
        assert isinstance(command, click.Group)
        inner = command.get_command(click.Context(command), name)
        assert inner is not None
        command = inner
    return command


def test_exactly_the_commands_that_are_built_are_listed() -> None:
    """ours: no stubs of what comes later."""
    assert set(COMMANDS) == BUILT


@pytest.mark.parametrize("name", COMMANDS)
def test_each_entry_of_the_table_names_a_module_with_its_command(name: str) -> None:
    module, line = COMMANDS[name]
    assert importlib.import_module(f"droveway.cli.{module}").command.name == name
    assert line.endswith(".")


def test_every_module_of_the_room_is_reachable_from_the_table() -> None:
    """ours: commands are loaded by name, so no import statement shows a forgotten file."""
    room = Path(importlib.import_module("droveway.cli").__file__ or "").parent
    sources = {path.stem: path.read_text(encoding="utf-8") for path in room.glob("*.py")}
    named = {module for module, _ in COMMANDS.values()} | {"main", "__init__"}
    imported = {
        name
        for text in sources.values()
        for name in sources
        if re.search(
            rf"from droveway\.cli\.{name} import|from droveway\.cli import .*\b{name}\b", text
        )
    }
    # A worker is started as a module of its own.
    assert set(sources) - named - imported == {"serve_worker"}


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_is_one_sentence_then_two_examples_then_options(
    path: tuple[str, ...], droveway: Call
) -> None:
    command = found(path)
    assert isinstance(command, Command | Group)
    assert len(command.examples) == 2
    assert all(example.startswith(f"droveway {path[0]}") for example in command.examples)
    help_text = (command.help or "").strip()
    assert help_text.endswith(".")
    assert len(re.findall(r"[.!?](\s|$)", help_text)) == 1
    shown = droveway(*path, "--help")
    assert shown.exit_code == 0
    places = [shown.stdout.index(each) for each in (*command.examples, "Options:")]
    assert places == sorted(places)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_option_says_what_it_is(path: tuple[str, ...]) -> None:
    options = [each for each in found(path).params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_examples_use_options_that_exist(path: tuple[str, ...]) -> None:
    command = found(path)
    assert isinstance(command, Command | Group)
    inner = command.commands.values() if isinstance(command, Group) else ()
    known = {opt for each in (command, *inner) for param in each.params for opt in param.opts}
    used = {
        word for example in command.examples for word in re.findall(r"(?<=\s)--?[a-z-]+", example)
    }
    assert used - known == set()


def test_the_group_lists_every_command_without_importing_any(spawned: Spawn) -> None:
    shown = spawned("--help")
    assert shown.returncode == 0
    assert all(f"  {name} " in shown.stdout for name in COMMANDS)


def test_no_command_at_all_is_wrong_usage_and_shows_the_help(droveway: Call) -> None:
    shown = droveway()
    assert shown.exit_code == 2
    assert "Examples:" in shown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("ask",),
        ("ask", ""),
        ("ask", "hi", "--nope"),
        ("ask", "hi", "--role", "nobody"),
        ("ask", "hi", "--max-cost", "-1"),
        ("ask", "hi", "--max-cost", "much"),
        ("ask", "hi", "--stream", "--json"),
        ("ask", "hi", "--api-key", "x"),
        ("ask", "hi", "--base-url", "http://example.com/v1"),
        ("ask", "hi", "--base-url", "ftp://127.0.0.1"),
        ("ask", "hi", "--base-url", "http://127.0.0.1:1/v1", "--api-key", "a b"),
        ("ask", "hi", "--config", "missing.toml"),
        ("check", "--config", "missing.toml"),
        ("prices", "show"),
        ("prices", "show", "gpt-4.1", "--at", "soon"),
        ("prices", "list", "--currency", "EURO"),
        ("prices", "compare", "--from", "gpt-4.1", "--to", "gpt-4.1"),
        ("prices", "compare", "--from", "gpt-4.1", "--to", "gpt-4.1", "--input", "1", "--cached", "2"),
        ("run", "missing.jsonl", "-o", "results.jsonl"),
        ("sandbox", "--port", "70000"),
        ("sandbox", "--script", "missing.toml"),
        ("demo", "--live"),
        ("demo", "--tasks", "0"),
        ("demo", "--json", "no/such/place.json"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], droveway: Call
) -> None:
    shown = droveway(*arguments)
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert re.fullmatch(r"error: [^\n]{20,}\n", shown.stderr)


def test_an_unknown_setting_names_the_nearest_one(clean_place: Path, droveway: Call) -> None:
    Path("droveway.toml").write_text("[streams]\nidle = 3\n")
    shown = droveway("check")
    assert shown.exit_code == 2
    assert "'idle_s'" in shown.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SettingsError("set it"), 2, "error: set it\n"),
        (RateLimitError("wait\na little"), 1, "error: wait a little\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            f"error: unexpected ZeroDivisionError: by zero; {HINT}\n",
        ),
    ],
)
def test_whatever_a_command_raises_is_one_line_and_its_code(
    error: BaseException, code: int, said: str, *, droveway: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("droveway.cli.check.findings", broken)
    shown = droveway("check")
    assert (shown.exit_code, shown.stderr) == (code, said)


def test_the_trace_is_shown_when_it_is_asked_for(
    droveway: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("droveway.cli.check.findings", broken)
    monkeypatch.setenv("DROVEWAY_DEBUG", "1")
    assert "Traceback" in droveway("check").stderr


def test_a_reader_that_has_seen_enough_gets_no_complaint() -> None:
    """ours: as in `droveway … | head -1`; short output is what Python complains of at its exit."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        shown = subprocess.run(
            [sys.executable, "-m", "droveway", "--version"],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (shown.returncode, shown.stderr) == (1, b"")


def test_the_version_is_the_packages(droveway: Call) -> None:
    assert re.fullmatch(r"droveway \d+\.\d+\.\d+\n", droveway("--version").stdout)
