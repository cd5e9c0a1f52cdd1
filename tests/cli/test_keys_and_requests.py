"""`droveway keys` and `droveway requests`: beside a running server, on one file."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from droveway.accounts import KeyRing
from droveway.chat import Usage
from droveway.clock import SystemClock
from droveway.engine.journal_store import StoredJournal
from droveway.engine.records import AttemptEntry, Row
from droveway.errors import InvalidKeyError
from droveway.money import Money
from droveway.storage import Store
from lab import run

Call = Callable[..., Result]
AT = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
HERE = Path("droveway.db")
SECONDS = 60


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def keep(*rows: Row) -> None:
    async def work(store: Store) -> None:
        journal = StoredJournal(store)
        for each in rows:
            journal.append(each)
        await journal.aclose()

    with Store(HERE) as store:
        run(work(store))


def row(name: str, **fields: Any) -> Row:
    first = AttemptEntry(provider="p", model="m", at=AT, outcome="failed", code="upstream_failed",
                         status=500, total_ms=3)  # fmt: skip
    last = AttemptEntry(provider="p", model="m", at=AT, outcome="completed", total_ms=5)
    return Row(
        **{
            "id": f"req_{name}",
            "at": AT,
            "asked": "fast",
            "served": "m",
            "outcome": "completed",
            "usage": Usage(input=1_234, output=56),
            "cost": Money.parse("0.0125", "USD"),
            "attempts": (first, last),
            "total_ms": 8.5,
            "tags": {"role": "critic"},
            **fields,
        }
    )


# Keys.


def test_add_prints_the_key_once(droveway: Call) -> None:
    made = told(droveway("keys", "add", "alice", "--json"))
    assert made["key"].startswith(made["shown"])
    with Store(HERE) as store:
        assert KeyRing(store).find(made["key"]).name == "alice"
    for again in (("list",), ("show", "alice"), ("list", "--json"), ("show", "alice", "--json")):
        shown = droveway("keys", *again)
        assert made["key"] not in shown.output
        assert "alice" in shown.stdout


def test_add_for_people_prints_the_key_alone_on_stdout(droveway: Call) -> None:
    made = droveway("keys", "add", "alice")
    assert made.stdout.startswith("dw_")
    assert made.stdout.count("\n") == 1
    assert "nobody can show it again" in made.stderr


def test_a_key_is_made_with_what_was_asked_for(droveway: Call) -> None:
    droveway("keys", "add", "bob", "--models", "a, b", "--expires", "2030-01-01T08:00+08:00",
             "--rpm", "5", "--tpm", "6000", "--concurrency", "7", "--tag", "team=x",
             "--tag", "agent=a=b")  # fmt: skip
    shown = told(droveway("keys", "show", "bob", "--json"))
    assert shown | {"id": "", "shown": "", "created_at": ""} == {
        "id": "",
        "name": "bob",
        "shown": "",
        "models": ["a", "b"],
        "expires_at": "2030-01-01T00:00:00Z",
        "rpm": 5,
        "tpm": 6_000,
        "concurrency": 7,
        "weight": 1,
        "tags": {"team": "x", "agent": "a=b"},
        "account": None,
        "created_at": "",
        "revoked_at": None,
    }
    text = droveway("keys", "show", "bob").stdout
    assert all(word in text for word in ("a, b", "2030-01-01 00:00:00 UTC", "6,000", "team=x"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--rpm", "0"), "0 is not in the range"),
        (("--models", "a,,b"), "empty name"),
        (("--tag", "team"), "no tag"),
        (("--expires", "soon"), "no moment"),
        (("--budget", "5"), "No such option"),
    ],
)
def test_what_cannot_be_used_is_wrong_usage(
    given: tuple[str, ...], said: str, droveway: Call
) -> None:
    refused = droveway("keys", "add", "alice", *given)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert not HERE.exists()


def test_a_name_in_use_and_a_moment_past_are_one_line(droveway: Call) -> None:
    droveway("keys", "add", "alice")
    for given in (("alice",), ("bob", "--expires", "2020-01-01")):
        refused = droveway("keys", "add", *given)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr.count("\n") == 1


def test_revoke_and_rotate_stop_the_old_secret_of_a_running_ring(droveway: Call) -> None:
    """Spec: they work beside a running server; here the ring is the server's."""
    first = told(droveway("keys", "add", "alice", "--json"))["key"]
    with Store(HERE) as store:
        ring = KeyRing(store)
        ring.find(first)
        second = told(droveway("keys", "rotate", "alice", "--json"))["key"]
        with pytest.raises(InvalidKeyError):
            ring.find(first)
        ring.find(second)
        assert told(droveway("keys", "revoke", "alice", "--json"))["revoked_at"] is not None
        with pytest.raises(InvalidKeyError):
            ring.find(second)
    assert "revoked" in droveway("keys", "list").stdout
    again = droveway("keys", "revoke", "alice")
    assert (again.exit_code, again.stderr) == (1, "error: the key 'alice' is revoked already\n")


def test_without_a_store_nothing_is_made(droveway: Call) -> None:
    for command in (("keys", "list"), ("keys", "revoke", "a"), ("requests",)):
        refused = droveway(*command)
        assert refused.exit_code == 2
        assert "there is no store" in refused.stderr
    assert not HERE.exists()


def test_the_settings_name_the_store(droveway: Call, tmp_path: Path) -> None:
    settings = tmp_path / "own.toml"
    settings.write_text('[storage]\nurl = "sqlite:own.db"\n', encoding="utf-8")
    assert droveway("keys", "add", "alice", "--config", settings).exit_code == 0
    assert (tmp_path / "own.db").exists()
    assert not HERE.exists()
    settings.rename(tmp_path / "droveway.toml")
    assert "alice" in droveway("keys", "list").stdout


# Requests.


def test_the_last_requests_are_listed_the_last_one_last(droveway: Call) -> None:
    keep(*(row(f"{n}", at=AT + timedelta(minutes=n)) for n in range(3)))
    lines = droveway("requests").stdout.splitlines()
    assert [line.split()[2] for line in lines[2:]] == ["req_0", "req_1", "req_2"]
    assert "1,234" in lines[2]
    assert "0.0125 USD" in lines[2]
    assert max(map(len, lines)) <= 100
    assert [each["id"] for each in told(droveway("requests", "--limit", "1", "--json"))] == [
        "req_2"
    ]


def test_a_request_is_shown_with_its_attempts(droveway: Call) -> None:
    keep(row("1", served="other"))
    shown = told(droveway("requests", "show", "req_1", "--json"))
    assert (shown["cost"], shown["currency"], shown["drift"]) == ("0.0125", "USD", True)
    assert [each["status"] for each in shown["each_attempt"]] == [500, None]
    text = droveway("requests", "show", "req_1").stdout
    assert all(word in text for word in ("critic", "0.0125", "upstream_failed", "1234"))
    assert "(served: other)" in droveway("requests").stdout.replace("\n", " ")


def test_an_unknown_request_is_one_line(droveway: Call) -> None:
    keep()
    refused = droveway("requests", "show", "req_9")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "there is no request 'req_9'" in refused.stderr


def test_since_and_model_choose(droveway: Call) -> None:
    now = SystemClock().now()
    old = row("old", at=now - timedelta(hours=3), asked="slow")
    keep(old, row("new", at=now), row("failed", at=now, outcome="failed", code="rate_limited",
                                      usage=None, cost=None))  # fmt: skip

    def ids(*given: str) -> set[str]:
        return {each["id"] for each in told(droveway("requests", *given, "--json"))}

    assert ids("--since", "1h") == {"req_new", "req_failed"}
    assert ids("--since", "2d") == {"req_new", "req_failed", "req_old"}
    assert ids("--since", now.isoformat()) == {"req_new", "req_failed"}
    assert ids("--model", "slow") == {"req_old"}
    assert "rate_limited" in droveway("requests").stdout
    assert droveway("requests", "--since", "tomorrow").exit_code == 2


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    watch = threading.Timer(SECONDS, process.kill)
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        process.kill()


@pytest.mark.parametrize("as_json", [True, False])
def test_tail_goes_on_with_what_other_processes_write(as_json: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    keep(row("first"))
    given = ["--json"] if as_json else []
    with subprocess.Popen(
        [sys.executable, "-m", "droveway", "requests", "--tail", *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tail:
        assert tail.stdout is not None
        # Whatever fails here ends the command: leaving the block waits for it.
        with ended(tail):
            assert "req_first" in tail.stdout.readline()
            for name in ("second", "third"):
                keep(row(name))
                assert f"req_{name}" in tail.stdout.readline()
            tail.send_signal(signal.SIGINT)
            _, complaint = tail.communicate(timeout=SECONDS)
    assert tail.returncode == 130
    assert complaint == "error: interrupted\n"
