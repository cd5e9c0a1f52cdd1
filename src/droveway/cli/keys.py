"""This file knows `droveway keys`: they are made here, shown once, and taken back."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.text import Text

from droveway.accounts import WEIGHT_MAX, Key
from droveway.cli import options, tables
from droveway.cli.help_page import Command, Group
from droveway.cli.help_page import command as make_command
from droveway.cli.lines import remark
from droveway.cli.running import run_async
from droveway.cli.stores import open_desk
from droveway.clock import SystemClock
from droveway.engine.desk import Desk

COUNT = click.IntRange(min=1)


class Words(click.ParamType[tuple[str, ...]]):
    """Names, with commas between them."""

    name = "names"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click gives what was typed
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, ...]:
        """Read them."""
        words = value if isinstance(value, tuple) else tuple(map(str.strip, value.split(",")))
        if not all(words):
            self.fail(f"{value!r} holds an empty name; write a,b", param, ctx)
        return words


class Tag(click.ParamType[tuple[str, str]]):
    """A word and its value."""

    name = "tag"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click gives what was typed
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, str]:
        """Read it."""
        if isinstance(value, tuple):
            return value
        word, is_tag, what = value.partition("=")
        if not is_tag or not word.strip():
            self.fail(f"{value!r} is no tag; write it like team=search", param, ctx)
        return word.strip(), what.strip()


@make_command(
    "add",
    "droveway keys add alice",
    "droveway keys add search --account acme --models deepseek-flash,fast --rpm 600 --json",
)
@click.argument("name", metavar="NAME")
@click.option("--models", type=Words(), metavar="A,B", help="Only these may be asked for.")
@click.option("--expires", "expires_at", type=options.Moment(), metavar="ISO-8601",
              help="From then on it opens nothing; UTC without a zone.")  # fmt: skip
@click.option("--rpm", type=COUNT, metavar="N", help="Requests in any minute at most.")
@click.option("--tpm", type=COUNT, metavar="N", help="Tokens in any minute at most.")
@click.option("--concurrency", type=COUNT, metavar="N", help="Requests in flight at most.")
@click.option("--weight", type=click.IntRange(1, WEIGHT_MAX), default=1, metavar="N",
              help="Turns it gets where others get one, when requests wait.")  # fmt: skip
@click.option("--tag", "tags", type=Tag(), metavar="K=V", multiple=True,
              help="A word for the journal, such as team=search; as often as needed.")  # fmt: skip
@click.option("--account", metavar="ACCOUNT", help="Who pays: the name or id of an account.")
@options.config
@options.as_json
def add_key(
    name: str,
    *,
    account: str | None,
    config: Path | None,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - the options above
) -> None:
    """Make a key and print it once; nobody can show it again."""
    given["tags"] = dict(given["tags"])
    with open_desk(config, create=True) as opened:
        key, plain = run_async(opened.desk.issue_key(name, account=account, **given))
    _print_secret(key, plain, as_json=as_json)


@make_command("list", "droveway keys list", "droveway keys list --json")
@options.config
@options.as_json
def list_keys(*, config: Path | None, as_json: bool) -> None:
    """List every key, without its secret; revoked ones too."""
    with open_desk(config) as opened:
        keys, names = opened.desk.keys.list(), _payers(opened.desk)
    if as_json:
        _print_json(keys)
        return
    shown = tables.table("name", "key", "id", "", "made", "account", "models",
                         left=("key", "id", "", "made", "account", "models"))  # fmt: skip
    for key in keys:
        shown.add_row(
            key.name,
            f"{key.shown}…",
            key.id,
            _state(key),
            f"{key.created_at:%Y-%m-%d}",
            names.get(key.account, key.account) or "-",
            "any" if key.models is None else ", ".join(key.models),
        )
    tables.show(shown)


@make_command("show", "droveway keys show alice", "droveway keys show alice --json")
@click.argument("name", metavar="NAME")
@options.config
@options.as_json
def show_key(name: str, *, config: Path | None, as_json: bool) -> None:
    """Show one key by its name or id, without its secret."""
    with open_desk(config) as opened:
        key, names = opened.desk.keys.show(name), _payers(opened.desk)
    _print_key(key, names, as_json=as_json)


@make_command("revoke", "droveway keys revoke alice", "droveway keys revoke alice --json")
@click.argument("name", metavar="NAME")
@options.config
@options.as_json
def revoke_key(name: str, *, config: Path | None, as_json: bool) -> None:
    """Take a key back: the next request with it is refused."""
    with open_desk(config) as opened:
        key, names = run_async(opened.desk.keys.revoke(name)), _payers(opened.desk)
    _print_key(key, names, as_json=as_json)


@make_command("rotate", "droveway keys rotate alice", "droveway keys rotate alice --json")
@click.argument("name", metavar="NAME")
@options.config
@options.as_json
def rotate_key(name: str, *, config: Path | None, as_json: bool) -> None:
    """Give a key a new secret and print it once; the old one stops at once."""
    with open_desk(config) as opened:
        key, plain = run_async(opened.desk.keys.rotate(name))
    _print_secret(key, plain, as_json=as_json)


def _payers(desk: Desk) -> dict[str | None, str]:
    return {account.id: account.name for account in desk.book.list()}


def _state(key: Key) -> Text:
    if key.revoked_at is not None:
        return Text("revoked", style="red")
    if not key.open_at(SystemClock().now()):
        return Text("expired", style="yellow")
    return Text("in use", style="green")


def _print_secret(key: Key, plain: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({"key": plain, **msgspec.to_builtins(key)})
        return
    click.echo(plain)
    remark(f"This is the key of {key.name!r}; keep it now, nobody can show it again.")


def _print_key(key: Key, names: Mapping[str | None, str], *, as_json: bool) -> None:
    if as_json:
        _print_json(key)
        return
    shown = tables.table("", "", left=("",))
    shown.show_header = False
    for word, value in {**_words(key), "account": names.get(key.account, key.account)}.items():
        if value is not None:
            shown.add_row(word, value)
    tables.show(shown)


def _words(key: Key) -> dict[str, Any]:
    def when(at: datetime | None) -> str | None:
        return None if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"

    def bound(limit: int | None) -> str | None:
        return None if limit is None else f"{limit:,}"

    return {
        "name": key.name,
        "key": f"{key.shown}…",
        "id": key.id,
        "state": _state(key),
        "models": "any" if key.models is None else ", ".join(key.models),
        "made": when(key.created_at),
        "expires": when(key.expires_at),
        "revoked": when(key.revoked_at),
        "rpm": bound(key.rpm),
        "tpm": bound(key.tpm),
        "concurrency": bound(key.concurrency),
        "weight": bound(key.weight),
        "tags": ", ".join(f"{word}={what}" for word, what in key.tags.items()) or None,
    }


def _print_json(document: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(document)))


_MEMBERS: tuple[Command | click.Command, ...] = (
    add_key,
    list_keys,
    show_key,
    revoke_key,
    rotate_key,
)
command = Group(
    name="keys",
    help="Make, list, take back and renew the keys of the gateway.",
    examples=("droveway keys add alice", "droveway keys list"),
    commands={member.name or "": member for member in _MEMBERS},
    no_args_is_help=True,
)
