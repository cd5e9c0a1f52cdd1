"""`droveway accounts budget`: what a key, an account or a tag may spend."""

from pathlib import Path
from typing import Any

import pytest

from books import add_epoch, captured, taken, usd
from droveway.clock import SystemClock
from droveway.ledger import Book
from droveway.storage import Store
from lab import run
from printed import HERE, Call, one_line, sound, told, top_up

SET = ("accounts", "budget", "set")
LIST = ("accounts", "budget", "list")
END = ("accounts", "budget", "end")


@pytest.fixture
def acme(droveway: Call) -> str:
    """An account with 10 USD and a key of its own, search."""
    made = told(droveway("accounts", "add", "acme", "--json"))
    top_up(droveway, "10", reference="wire-1")
    droveway("keys", "add", "search", "--account", "acme")
    return str(made["id"])


def listed(droveway: Call) -> list[Any]:
    return [
        (each["subject"], each["period"], each["amount"], each["currency"])
        for each in told(droveway(*LIST, "--json"))
    ]


def test_a_name_stands_for_what_has_it_now(droveway: Call, acme: str) -> None:
    """Ours: a name may be given anew, and the budget stays with whom it was set for."""
    key = told(droveway("keys", "show", "search", "--json"))["id"]
    for subject, kept in (
        ("key:search", f"key:{key}"),
        ("account:acme", f"account:{acme}"),
        ("tag:team=a=b", "tag:team=a=b"),
    ):
        made = told(droveway(*SET, subject, "5", "--per", "day", "--json"))
        assert (made["subject"], made["amount"], made["left"]) == (kept, "5.00", "5.00")
    text = droveway(*LIST).stdout
    for name in ("key:search", "account:acme", "tag:team=a=b"):
        assert name in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_budget_is_set_anew_and_ended(droveway: Call, acme: str) -> None:
    droveway(*SET, "account:acme", "5", "--per", "day")
    droveway(*SET, "account:acme", "7", "--per", "month")
    shown = droveway(*SET, "account:acme", "0", "--per", "day")
    assert shown.stdout.splitlines()[2].split() == [
        "account:acme", "0.00", "for", "a", "day", "0.00", "0.00", "0.00", "USD",
    ]  # fmt: skip
    kept = f"account:{acme}"
    assert listed(droveway) == [(kept, "day", "0.00", "USD"), (kept, "month", "7.00", "USD")]
    ended = droveway(*END, "account:acme", "--per", "day")
    assert ended.stdout == "account:acme has no budget for a day any more\n"
    assert listed(droveway) == [(kept, "month", "7.00", "USD")]
    refused = droveway(*END, "account:acme", "--per", "day")
    assert "has no budget for a day; see droveway accounts budget list" in one_line(refused, 1)
    assert told(droveway(*END, f"account:{acme}", "--per", "month", "--json")) == {
        "subject": f"account:{acme}",
        "period": "month",
    }
    assert listed(droveway) == []


def test_what_was_spent_and_is_held_is_told(droveway: Call, acme: str) -> None:
    droveway(*SET, "account:acme", "5", "--per", "total")

    async def use(store: Store) -> None:
        account, at = Book(store).show("acme"), SystemClock().now()
        await add_epoch(store)
        for hold_id in ("req_1", "req_2"):
            subjects = (f"account:{acme}",)
            await taken(store, hold_id, usd("2"), account=account, at=at, subjects=subjects)
        await captured(store, "req_1", usd("0.5"), at=at)

    with Store(HERE) as store:
        run(use(store))
    (told_of,) = told(droveway(*LIST, "--json"))
    assert (told_of["spent"], told_of["held"], told_of["left"]) == ("0.50", "2.00", "2.50")
    droveway(*SET, "account:acme", "1", "--per", "total")
    (told_of,) = told(droveway(*LIST, "--json"))
    assert (told_of["spent"], told_of["left"]) == ("0.50", "0.00")
    assert sound()


def test_the_currency_is_the_payers_by_default(droveway: Call, acme: str, tmp_path: Path) -> None:
    """Ours: a budget in a currency in which nobody pays would bound nothing."""
    droveway("accounts", "add", "cn", "--currency", "CNY")
    droveway("keys", "add", "of cn", "--account", "cn")
    droveway("keys", "add", "nobody's")
    (tmp_path / "droveway.toml").write_text('[billing]\ncurrency = "EUR"\n', encoding="utf-8")
    for subject, currency in (
        ("account:cn", "CNY"),
        ("key:of cn", "CNY"),
        ("key:search", "USD"),
        ("key:nobody's", "EUR"),
        ("tag:a=b", "EUR"),
    ):
        made = told(droveway(*SET, subject, "5", "--per", "week", "--json"))
        assert made["currency"] == currency, subject
    made = told(droveway(*SET, "tag:a=c", "5", "--per", "week", "--currency", "usd", "--json"))
    assert made["currency"] == "USD"


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("key:nobody", "5", "--per", "day"), 1, "there is no key 'nobody'"),
        (("account:nobody", "5", "--per", "day"), 1, "there is no account 'nobody'"),
        (("acme", "5", "--per", "day"), 1, "write key:NAME, account:NAME or tag:NAME=VALUE"),
        (("tag:team", "5", "--per", "day"), 1, "tag:NAME=VALUE"),
        (("team:blue", "5", "--per", "day"), 1, "tag:NAME=VALUE"),
        (("account:acme", "--per", "day", "--", "-1"), 1, "nothing or more"),
        (("account:acme", "five", "--per", "day"), 2, "decimal string"),
        (("account:acme", "5", "--per", "hour"), 2, "--per"),
        (("account:acme", "5"), 2, "--per"),
        (("account:acme", "5", "--per", "day", "--currency", "x"), 2, "currency"),
    ],
)
def test_what_is_no_budget_is_one_line_and_sets_nothing(
    given: tuple[str, ...], code: int, said: str, *, droveway: Call, acme: str
) -> None:
    assert said in one_line(droveway(*SET, *given), code)
    assert listed(droveway) == []
