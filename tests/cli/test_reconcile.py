"""`droveway ledger reconcile`: exit codes, what is printed, and the poll over a socket."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bills import billed, deepseeks, kept, wide, worked
from droveway.cli.main import Droveway
from droveway.cli.reconcile import reconcile
from droveway.clock import SystemClock
from droveway.engine.journal_store import StoredJournal
from droveway.money import Money
from droveway.sandbox import Sandbox, running_sandbox
from droveway.storage import Store
from lab import run

Call = Callable[..., Result]


class Door(Droveway):
    """The door of the command line, with this one command behind it."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx, cmd_name
        return reconcile


@pytest.fixture
def call() -> Call:
    door = Door(name="droveway", help="", examples=())
    return lambda *words: CliRunner().invoke(door, ["reconcile", *map(str, words)])


@pytest.fixture
def bill(tmp_path: Path) -> list[dict[str, Any]]:
    """What the vendor bills for a journal that stands in the default store's place."""
    settings = tmp_path / "droveway.toml"
    settings.write_text('[storage]\nurl = "sqlite:kept.db"\n', encoding="utf-8")
    with Store(tmp_path / "kept.db") as store:
        return billed(run(worked(store)))


def test_a_bill_that_is_explained_exits_0(bill: list[dict[str, Any]], call: Call) -> None:
    amounts, costs = deepseeks(bill)
    Path("amount.csv").write_text(amounts, encoding="utf-8")
    Path("cost.csv").write_text(costs, encoding="utf-8")
    shown = call("deepseek", "--export", "amount.csv", "--export", "cost.csv", "--tolerance", "0")
    assert (shown.exit_code, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert "day (UTC+08:00)" in lines[0]
    assert lines[-2].split()[:3] == ["total", "journal", "60"]
    assert lines[-1].split()[:2] == ["deepseek", "60"]
    assert lines[-1].split()[-1] == "0.00"
    assert lines[-1].split()[2:5] == lines[-2].split()[3:6]
    assert all(len(line) <= 100 for line in lines)


def test_what_is_unexplained_exits_1_and_is_told_to_programs(
    bill: list[dict[str, Any]], call: Call
) -> None:
    twice = bill[11]
    Path("bill.csv").write_text(wide([*bill, twice]), encoding="utf-8")
    words = ("deepseek", "--export", "bill.csv", "--json")
    told = call(*words, "--tolerance", "0.000001")
    assert told.exit_code == 1
    found = json.loads(told.stdout)
    amiss = Money(int(twice["cost"] * 10**9), "USD").decimal()
    assert found["total"]["unexplained"] == amiss
    odd = [line for line in found["lines"] if line["unexplained"] != "0.00"]
    assert [(line["model"], line["unexplained"]) for line in odd] == [(twice["model"], amiss)]
    assert (odd[0]["ours"]["requests"], odd[0]["theirs"]["requests"]) == (1, 2)
    assert found["estimated"] == {"requests": 0, "cost": "0.00"}
    assert call(*words, "--tolerance", amiss).exit_code == 0
    assert call(*words).exit_code == 0  # a cent by default


def test_days_of_a_place_are_asked_for_by_its_zone(bill: list[dict[str, Any]], call: Call) -> None:
    Path("bill.csv").write_text(wide(bill), encoding="utf-8")
    for zone in ("Asia/Shanghai", "+08:00", "+0800"):
        words = ("deepseek", "--export", "bill.csv", "--json", "--by", "day", "--zone", zone)
        found = json.loads(call(*words).stdout)
        assert found["total"]["unexplained"] == "0.00"
        starts = [line["start"] for line in found["lines"]]
        assert starts == ["2026-11-23T00:00:00+08:00"] * 2 + ["2026-11-24T00:00:00+08:00"] * 2
        cut = json.loads(call(*words, "--from", "2026-11-24").stdout)
        assert [line["start"] for line in cut["lines"]] == starts[2:]
        until = json.loads(call(*words, "--to", "2026-11-23T16:00Z").stdout)
        assert [line["start"] for line in until["lines"]] == starts[:2]


def test_a_provider_that_the_journal_does_not_know_is_said(
    bill: list[dict[str, Any]], call: Call
) -> None:
    Path("bill.csv").write_text(wide(bill), encoding="utf-8")
    shown = call("deepsek", "--export", "bill.csv")
    assert shown.exit_code == 1
    assert "no attempt of 'deepsek' in this time; it knows deepseek" in shown.stderr


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("deepseek",),
        ("deepseek", "--export", "bad.csv", "--balance"),
        ("deepseek", "--export", "bad.csv", "--every", "5"),
        ("deepseek", "--balance", "--zone", "+08:00"),
        ("deepseek", "--balance", "--every", "0"),
        ("deepseek", "--balance"),
        ("deepseek", "--export", "missing.csv"),
        ("deepseek", "--export", "."),
        ("deepseek", "--export", "bad.csv"),
        ("deepseek", "--export", "bad.csv", "--zone", "Middle/Earth"),
        ("deepseek", "--export", "bad.csv", "--zone", "../../etc/passwd"),
        ("deepseek", "--export", "bad.csv", "--zone", "+99:00"),
        ("deepseek", "--export", "bad.csv", "--column", "cost"),
        ("deepseek", "--export", "bad.csv", "--column", "colour=x"),
        ("deepseek", "--export", "bad.csv", "--tolerance", "-1"),
        ("deepseek", "--export", "bad.csv", "--tolerance", "much"),
        ("deepseek", "--export", "bad.csv", "--currency", "EURO"),
        ("deepseek", "--export", "bad.csv", "--from", "soon"),
        ("deepseek", "--export", "bad.csv", "--to", "9999-12-31"),
        ("deepseek", "--export", "bad.csv", "--by", "week"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_exit_code_2(
    words: tuple[str, ...], call: Call
) -> None:
    """ours: exit code 1 says that money is unexplained, and nothing else."""
    Path("bad.csv").write_text("date,cost,currency\n2026-11-23,much,USD\n", encoding="utf-8")
    shown = call(*words)
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert len(shown.stderr.splitlines()) == 1
    assert shown.stderr.startswith("error: ")


# The balance.


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A vendor called deepseek, and one that has no balance page; and a store."""
    monkeypatch.setenv("VENDOR_KEY", "k-1")
    with running_sandbox(api_keys=["k-1"]) as box, Store(tmp_path / "kept.db"):
        (tmp_path / "droveway.toml").write_text(
            f'[storage]\nurl = "sqlite:kept.db"\n'
            f'[providers.deepseek]\nbase_url = "{box.base_url}"\napi_key = "env:VENDOR_KEY"\n'
            f'[providers.other]\nbase_url = "{box.base_url}"\napi_key = "env:VENDOR_KEY"\n',
            encoding="utf-8",
        )
        yield box


def test_the_first_poll_has_nothing_to_compare_with(vendor: Sandbox, call: Call) -> None:
    shown = call("deepseek", "--balance")
    assert shown.exit_code == 0
    assert shown.stdout == "deepseek: 110.00 USD left; nothing to compare with yet\n"
    assert [seen.path for seen in vendor.journal] == ["/user/balance"]


def test_a_fall_is_compared_with_what_the_journal_has_meanwhile(
    vendor: Sandbox, call: Call, tmp_path: Path
) -> None:
    assert call("deepseek", "--balance").exit_code == 0

    async def spend() -> None:
        with Store(tmp_path / "kept.db") as store:
            journal = StoredJournal(store)
            cost = Money.parse("0.25", "USD")
            journal.append(kept(cost=cost, at=SystemClock().now()))
            await journal.aclose()

    run(spend())
    vendor.set_balance("99.75", granted="10.00")
    second = call("deepseek", "--balance", "--json")
    told = json.loads(second.stdout)
    assert second.exit_code == 0
    assert (told["left"], told["fell"], told["ours"]) == ("109.75", "0.25", "0.25")
    assert (told["unexplained"], told["requests"]) == ("0.00", 1)
    vendor.set_balance("99.70", granted="10.00")
    third = call("deepseek", "--balance")
    assert third.exit_code == 1
    assert "fell by 0.05 USD, the journal has 0.00 USD for 0 requests" in third.stdout
    assert third.stdout.endswith("unexplained 0.05 USD\n")
    vendor.set_balance("199.70", granted="10.00")
    fourth = call("deepseek", "--balance")
    assert fourth.exit_code == 0
    assert "rose by 100.00 USD: topped up or granted" in fourth.stdout


def test_of_several_accounts_each_is_a_line_of_its_own(
    vendor: Sandbox, call: Call, tmp_path: Path
) -> None:
    settings = tmp_path / "droveway.toml"
    text = settings.read_text(encoding="utf-8")
    several = text.replace(
        'api_key = "env:VENDOR_KEY"', 'api_keys = ["env:VENDOR_KEY", "env:VENDOR_KEY"]'
    )
    settings.write_text(several, encoding="utf-8")
    shown = call("deepseek", "--balance")
    assert shown.stdout.splitlines() == [
        "deepseek, account 1: 110.00 USD left; nothing to compare with yet",
        "deepseek, account 2: 110.00 USD left; nothing to compare with yet",
    ]
    told = [
        json.loads(line) for line in call("deepseek", "--balance", "--json").stdout.splitlines()
    ]
    assert [(each["account"], each["unexplained"]) for each in told] == [(1, "0.00"), (2, "0.00")]
    assert len(vendor.journal) == 4


def test_an_account_whose_key_is_refused_hides_no_other(
    vendor: Sandbox, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "revoked").write_text("k-2", encoding="utf-8")
    settings = tmp_path / "droveway.toml"
    text = settings.read_text(encoding="utf-8")
    several = 'api_keys = ["file:revoked", "env:VENDOR_KEY"]'
    settings.write_text(text.replace('api_key = "env:VENDOR_KEY"', several, 1), encoding="utf-8")
    shown = call("deepseek", "--balance")
    assert shown.exit_code == 1
    assert shown.stdout == "deepseek, account 2: 110.00 USD left; nothing to compare with yet\n"
    assert shown.stderr.startswith("error: account 1: deepseek")
    assert "k-2" not in shown.output


def test_it_goes_on_asking_until_interrupted_whatever_the_vendor_says(
    vendor: Sandbox, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(clock: SystemClock, seconds: float) -> None:
        del clock
        if seconds != 3600:
            return
        waits.append(seconds)
        if len(waits) == 1:
            vendor.set_balance("95.0000000001", granted="10.00")  # finer than an amount can be
        elif len(waits) == 2:
            vendor.set_balance("95.00", granted="10.00")
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(SystemClock, "sleep", sleep)
    shown = call("deepseek", "--balance", "--every", "3600", "--json")
    assert shown.exit_code == 130
    polls = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [(each["left"], each["unexplained"]) for each in polls] == [
        ("110.00", None),
        ("105.00", "5.00"),
    ]
    first, second = shown.stderr.splitlines()
    assert first.startswith("error: deepseek told its balance in another way")
    assert second == "error: interrupted"


def test_a_vendor_without_a_balance_page_is_one_line(vendor: Sandbox, call: Call) -> None:
    shown = call("other", "--balance")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr == (
        "error: other has no page that tells a balance; deepseek has; compare a usage export "
        "instead\n"
    )
    assert vendor.journal == []
    assert call("nobody", "--balance").exit_code == 2


def test_a_refusal_is_one_line_without_the_key(
    vendor: Sandbox, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENDOR_KEY", "k-wrong")
    shown = call("deepseek", "--balance")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr.startswith("error: deepseek answered 401: ")
    assert "k-wrong" not in shown.stderr
    assert vendor.journal[-1].status == 401
