"""schemathesis drives a gateway by its own description, over a socket, the sandbox behind."""

import asyncio
import hashlib
import queue
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext
from schemathesis.openapi.checks import RejectedPositiveData

from droveway.agents.portal import new_loop
from droveway.gateway.openapi import document
from droveway.ledger import statements
from droveway.money import Money
from operator_door import TOKEN, OperatorDoor, operator_door, send

SEED = 20261123
# Why a request that fits its schema may be refused all the same: what no schema can say.
BEYOND_A_SCHEMA = (
    "is in use; take another",  # two keys in use share no name
    "is past already",  # a key that ends before it begins
    "is no name for a key",  # what Unicode calls printable is no pattern
    "words that can be printed",  # likewise
    "is revoked; make a new one",  # only a key in use is given a new secret
    "got `float`",  # 1.0 is a whole number to JSON Schema, and none to us
    "is no name for an account",  # what Unicode calls printable, once more
    "is no reference",  # likewise
    "take another name",  # two accounts share no name
    "there is no account",  # who pays for a key, or is bounded, is there
    "there is no key",  # likewise
    "has no budget; write",  # likewise
    "in another currency",  # a budget's is its own for good
    ", not in ",  # an account's money is in one currency
    "the voucher is in ",  # likewise
    "no rate for",  # or is converted, by a rate that was declared
    "and goes back in it",  # a refund is in the currency in which the money came
    "more than nothing",  # what moves is something
    "of its own",  # what was booked before has its reference for good
    "nothing can be given back",  # what is spent stays
    "is unspent, which is less",  # likewise
    "amount and currency belong together",  # null is as good as absent
    "there is no voucher with this code",  # codes are guessed by nobody
    "was redeemed already",  # by somebody else
    "came by a voucher",  # which is a top-up that goes back to nobody
    "is gone already",  # a voucher that ends before it begins
    "expires_at is after 9998",  # its year may be too late for other zones
    "vendor answered 4",  # a vendor's own opinion of what passes through
)


class Driven(msgspec.Struct):
    """What a run came to."""

    cases: int = 0
    failures: list[str] = []
    succeeded: Counter[str] = msgspec.field(default_factory=Counter)


async def furnish(door: OperatorDoor) -> None:
    """Give the admin API what the examples of its description name."""
    await door.desk.open_account("acme")
    await door.desk.top_up("acme", Money.parse("5", "USD"), reference="wire-2026-117")
    await door.desk.set_budget("tag:team=blue", Money.parse("5", "USD"), period="day")
    code = document()["components"]["schemas"]["Redemption"]["example"]["code"]
    digest = hashlib.sha256(code.replace("-", "").encode()).digest()
    row = ("vch_1", code[:5], 10**9, "USD", None, 0, None, digest)
    await door.store.write(lambda db: db.run(statements.ADD_VOUCHER, row))


@contextmanager
def standing(folder: Path) -> Iterator[OperatorDoor]:
    """A gateway on a thread of its own; schemathesis waits for its answers."""
    opened: queue.Queue[tuple[OperatorDoor, asyncio.AbstractEventLoop, asyncio.Event]] = (
        queue.Queue()
    )

    async def stand() -> None:
        done = asyncio.Event()
        async with operator_door(folder) as door:
            for number in range(30):  # enough that some are in use to the end
                await door.keys.add(f"agent {number}")
            await furnish(door)
            body = {"model": "plain", "messages": [{"role": "user", "content": "Say hi."}]}
            for _ in range(3):
                said = await send(door, "POST /v1/chat/completions", body, token=door.secret)
                assert said.status == 200
            opened.put((door, asyncio.get_running_loop(), done))
            await done.wait()

    def work() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(stand())

    thread = threading.Thread(target=work)
    thread.start()
    door, loop, done = opened.get(timeout=30)
    try:
        yield door
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(timeout=30)


def configured(door: OperatorDoor, *, examples: int, phases: tuple[str, ...]) -> SchemathesisConfig:
    def bearer(secret: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {secret}"}

    return SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "base-url": door.url,
            "workers": 1,
            "generation": {
                "max-examples": examples,
                "database": "none",
                "with-security-parameters": False,
            },
            "phases": {
                name: {"enabled": name in phases}
                for name in ("examples", "coverage", "fuzzing", "stateful")
            },
            # A key that was taken back goes on being shown, with the moment at which it was.
            "checks": {"use_after_free": {"enabled": False}},
            "operations": [
                {"include-path-regex": "^/v1/", "headers": bearer(door.secret)},
                {"include-path-regex": "^/admin/", "headers": bearer(TOKEN)},
            ],
        }
    )


def drive(door: OperatorDoor, *, examples: int, phases: tuple[str, ...]) -> Driven:
    """Run every check of schemathesis on every operation."""
    schema = schemathesis.openapi.from_dict(
        document(), config=configured(door, examples=examples, phases=phases)
    )

    @schema.hook
    def filter_failure(  # noqa: PLR0917 - as schemathesis calls it
        context: HookContext, failure: Failure, case: Case[Any], response: Response
    ) -> bool:
        refused = isinstance(failure, RejectedPositiveData)
        return not (refused and any(words in response.text for words in BEYOND_A_SCHEMA))

    driven = Driven()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            driven.failures.append(repr(event))
        elif isinstance(event, events.ScenarioFinished):
            note(event.recorder, driven)
    return driven


def note(recorder: ScenarioRecorder, driven: Driven) -> None:
    driven.cases += len(recorder.cases)
    answers = {
        case_id: interaction.response
        for case_id, interaction in recorder.interactions.items()
        if interaction.response is not None
    }
    driven.succeeded.update(
        node.value.operation.label
        for case_id, node in recorder.cases.items()
        if case_id in answers and answers[case_id].status_code < 300
    )
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                failure, said = check.failure_info.failure, answers.get(case_id)
                driven.failures.append(
                    f"{recorder.label}: {failure.title}: {failure.message}\n"
                    f"{check.failure_info.code_sample}\n{said and said.content[:500]!r}"
                )


def operations() -> set[str]:
    return {
        f"{method.upper()} {path}"
        for path, told in document()["paths"].items()
        for method in told
        if method != "parameters"
    }


def test_two_hundred_cases_find_every_operation_as_described(tmp_path: Path) -> None:
    with standing(tmp_path) as door:
        driven = drive(door, examples=16, phases=("examples", "fuzzing"))
    assert not driven.failures, "\n\n".join(driven.failures)
    assert driven.cases >= 200
    assert set(driven.succeeded) == operations(), "what is only refused proves nothing"


@pytest.mark.long
def test_two_thousand_cases_find_every_operation_as_described(tmp_path: Path) -> None:
    with standing(tmp_path) as door:
        driven = drive(door, examples=200, phases=("examples", "coverage", "fuzzing", "stateful"))
    assert not driven.failures, "\n\n".join(driven.failures)
    assert driven.cases >= 2_000
    assert set(driven.succeeded) == operations(), "what is only refused proves nothing"
