"""This file knows what is soaked: a gateway that takes money, and a vendor that misbehaves.

Both are processes of their own; the settings, the store and the logs are in one folder.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from droveway.ledger import audit
from droveway.storage import Store
from servers import KEY_LIMITS
from soak_callers import FAULTS, HUGE, WEIGHTS, models

END_S: Final = 60.0
FIRST_TOKEN_S: Final = 5
IDLE_S: Final = 5
TOTAL_S: Final = 60


class Gateway(NamedTuple):
    """A gateway that runs.

    Attributes:
        url: Where.
        process: Its process.
        key: A key that opens it, paid from a prepaid account.
        folder: Where its store is.
    """

    url: str
    process: subprocess.Popen[str]
    key: str
    folder: Path


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What the store says in the end.

    Attributes:
        faults: What `ledger verify` finds wrong.
        ids: The requests in the journal.
        open_holds: Holds that have not ended.
        journal_nano: What the journal says that all requests cost.
        ledger_nano: What the ledger says that the account has paid for requests.
        loss_nano: What they cost beyond what the account had.
    """

    faults: int
    ids: frozenset[str]
    open_holds: int
    journal_nano: int
    ledger_nano: int
    loss_nano: int


@contextmanager
def standing(folder: Path, *, pace_s: float, tokens: int) -> Iterator[Gateway]:
    """Run the vendor and the gateway; whatever happens, none of them is left."""
    script = folder / "vendor.toml"
    script.write_text(_script(pace_s=pace_s, tokens=tokens))
    with _running(folder, "sandbox", "--script", str(script)) as (_, vendor):
        config = folder / "droveway.toml"
        config.write_text(_settings(folder, vendor))
        key = _paying_key(config)
        with _running(folder, "serve", "--config", str(config)) as (process, url):
            yield Gateway(url, process, key, folder)


def stop(gateway: Gateway) -> str:
    """End the gateway; nothing is on its way, so the second signal hurries it. Returns its log."""
    for number in (signal.SIGTERM, signal.SIGINT):
        gateway.process.send_signal(number)
    gateway.process.wait(END_S)
    return (gateway.folder / "serve.log").read_text()


def verified(gateway: Gateway) -> bool:
    """Whether `droveway ledger verify`, beside the running server, finds nothing wrong."""
    command = (*_words("ledger", "verify"), "--config", str(gateway.folder / "droveway.toml"))
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def books(gateway: Gateway) -> Books:
    """Read the store."""
    with Store(gateway.folder / "droveway.db", create=False) as store:

        def number(sql: str) -> int:
            ((value,),) = store.read(sql)
            return int(value or 0)

        paid = (
            "SELECT -sum(amount_nano) FROM entry JOIN transfer ON transfer.id = transfer_id"
            " JOIN account ON account.id = account_id"
            " WHERE transfer.kind = 'usage' AND account.kind = 'customer'"
        )
        return Books(
            faults=len(audit(store).faults),
            ids=frozenset(str(id_) for (id_,) in store.read("SELECT id FROM request")),
            open_holds=number("SELECT count(*) FROM hold WHERE state = 'held'"),
            journal_nano=number("SELECT sum(cost_nano) FROM request"),
            ledger_nano=number(paid),
            loss_nano=number("SELECT sum(posted_nano) FROM account WHERE kind = 'loss'"),
        )


def _script(*, pace_s: float, tokens: int) -> str:
    profile = (
        f"[profile]\nfirst_token_s = 0.05\nfirst_token_sigma = 0.1\ntoken_s = {pace_s}\n"
        f"token_sigma = 0.1\nanswer_tokens = {tokens}\nanswer_sigma = 0.35\n"
    )
    rules = (
        f'[[rules]]\nmodel = "{model}"\nfault = "{fault}"\n'
        for fault in (*FAULTS, HUGE)
        for model in models(fault)
    )
    return profile + "".join(rules)


def _settings(folder: Path, vendor: str) -> str:
    prices = (
        f'[prices."vendor/{model}"]\ninput = "1"\ncached = "0.5"\noutput = "2"\n'
        for kind in WEIGHTS
        for model in models(kind)
    )
    return (
        f'[storage]\nurl = "sqlite:{folder}/droveway.db"\n[billing]\nenabled = true\n'
        f"[streams]\nconnect_s = 5\nfirst_token_s = {FIRST_TOKEN_S}\nidle_s = {IDLE_S}\n"
        f"total_s = {TOTAL_S}\nkeepalive_s = 1\n"
        f'[providers.vendor]\nbase_url = "{vendor}/v1"\nconcurrency = 4096\n' + "".join(prices)
    )


def _paying_key(config: Path) -> str:
    def droveway(*words: str) -> str:
        command = (*_words(*words), "--config", str(config))
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    droveway("accounts", "add", "soak")
    paid = ("1000000", "--currency", "USD", "--reference", "soak")
    droveway("accounts", "topup", "soak", *paid)
    made = droveway("keys", "add", "soak", *KEY_LIMITS, "--account", "soak", "--json")
    return str(json.loads(made)["key"])


@contextmanager
def _running(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server on a free port; yields it and its URL."""
    log = folder / f"{words[0]}.log"
    with log.open("w") as errors:
        # A session of its own: Ctrl-C is for the one who watches.
        child = subprocess.Popen(
            (*_words(*words), "--port", "0"),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    with child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            if not line.startswith("listening on "):
                sys.exit(f"droveway {words[0]} did not start: {log.read_text()}")
            yield child, line.split()[-1]
        finally:
            child.kill()


def _words(*words: str) -> tuple[str, ...]:
    return sys.executable, "-m", "droveway", *words
