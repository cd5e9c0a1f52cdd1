"""This file knows how one cell of the matrix is played, and everything that must be true of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from door import HI, SteadyClock
from droveway.chat import ChatRequest, Message, TextDelta
from droveway.engine.engine import Engine
from droveway.engine.exchange import Exchange
from droveway.engine.outbox import StreamEvent
from droveway.engine.records import Row
from droveway.engine.settling import Bill, Hold
from droveway.engine.terms import Terms
from droveway.errors import APITimeoutError, UpstreamError
from droveway.sandbox import Rule, Sandbox, Script, Seen
from faults.caller import Told, call
from faults.matrix import FAULTS, OUR_ACCOUNT, Cell, Place
from faults.stand import (
    CACHED_NANO,
    FORGIVING,
    HASTY,
    INPUT_NANO,
    MODELS,
    OUTPUT_NANO,
    ROOMY,
    SPEECH,
    Stand,
    settings,
    standing,
)
from lab import BookkeepingLedger, converse

VENDORS_FAULT: Final = "upstream_failed"


class Played(msgspec.Struct, kw_only=True):
    """What came of a cell.

    Attributes:
        shown: As the table has it.
        wrong: Every way in which it is not what it must be; nothing where all is well.
    """

    shown: str
    wrong: list[str]


class Findings:
    """Collects what is not as it must be."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def same(self, what: str, found: object, due: object) -> None:
        """Note a difference."""
        if found != due:
            self.wrong.append(f"{what} is {found!r}, not {due!r}")

    def true(self, what: str, *, holds: object) -> None:
        """Note what does not hold."""
        if not holds:
            self.wrong.append(f"not so: {what}")


class PayingLedger(BookkeepingLedger):
    """A ledger that keeps what it was asked to charge."""

    def __init__(self) -> None:
        super().__init__()
        self.bills: list[Bill] = []

    async def settle(self, hold: Hold, bill: Bill, *, row: Row) -> Row:
        self.bills.append(bill)
        return await super().settle(hold, bill, row=row)


async def play(place: Place, folder: Path) -> Played:
    """Play one cell: ask once, then look at everything that is left behind."""
    model = MODELS[place.accent]
    script = Script(rules=(Rule(model=model, fault=place.fault),))
    streams = HASTY if FAULTS[place.fault].hasty else ROOMY
    if streams is HASTY and place.fault.endswith("@1"):
        streams = FORGIVING
    async with Sandbox(profile=SPEECH, script=script, journal_bodies=True) as box:
        told = settings(box.base_url, accent=place.accent, streams=streams)
        if place.face == "library":
            async with Engine(told, environ={}, clock=SteadyClock()) as engine:
                return await _in_library(place, engine, box)
        async with standing(folder, told) as stand:
            return await _at_gateway(place, stand, box)


async def _in_library(place: Place, engine: Engine, box: Sandbox) -> Played:
    cell, ledger, findings = place.cell, PayingLedger(), Findings()
    request = ChatRequest(
        model=MODELS[place.accent],
        messages=(Message(role="user", content=HI[0]["content"]),),
        stream=place.stream,
    )
    terms = Terms(timeout=engine.settings.streams, ledgers=(ledger,))
    exchange, events = await converse(engine, request, terms)
    _look_at_error(findings, cell, exchange)
    _look_at_text(findings, exchange, events, stream=place.stream)
    row = exchange.row
    assert row is not None, "a request that has ended has a row"
    findings.same("the journal", list(engine.journal.rows), [row])
    findings.same("the outcome", row.outcome, cell.outcome)
    findings.same("the code", row.code, cell.code)
    findings.same("the row's attempts", len(row.attempts), cell.attempts)
    findings.same("what the vendor saw", len(box.journal), cell.attempts)
    findings.same("holds that are open", ledger.open, 0)
    ends = [step for step in ledger.steps if step in {"settled", "released"}]
    findings.same("ends of the hold", len(ends), 1)
    paid = [bill.cost.nano for bill in ledger.bills if bill.cost is not None]
    usage = None if row.usage is None else row.usage.source
    cost = 0 if row.cost is None else row.cost.nano
    findings.same("what was charged", sum(paid), cost)
    counts = (0, 0, 0)
    if row.usage is not None:
        counts = (row.usage.input, row.usage.cached_read, row.usage.output)
    shown = _look_at_bill(findings, cell, box.journal[-1], usage=usage, counts=counts, cost=cost)
    return Played(shown=f"{row.code or row.outcome} / {len(box.journal)} / {shown}",
                  wrong=findings.wrong)  # fmt: skip


def _look_at_error(findings: Findings, cell: Cell, exchange: Exchange) -> None:
    error = exchange.error
    findings.same("the error's type", None if error is None else type(error), cell.error)
    findings.same("an answer", exchange.answer is not None, cell.error is None)
    if error is None:
        return
    findings.same("the error's code", error.code, cell.code)
    findings.same("retryable", error.retryable, cell.retryable and isinstance(error, UpstreamError))
    findings.same("the error's attempts", error.attempts, cell.attempts)
    phase = error.phase if isinstance(error, APITimeoutError) else None
    findings.same("the phase", phase, cell.phase)


def _look_at_text(
    findings: Findings, exchange: Exchange, events: Sequence[StreamEvent], *, stream: bool
) -> None:
    if not stream:
        return
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    answer = exchange.answer
    if answer is None:
        answer = getattr(exchange.error, "partial", None)
    findings.same("the text that came", text, "" if answer is None else answer.text)


async def _at_gateway(place: Place, stand: Stand, box: Sandbox) -> Played:
    cell, findings = place.cell, Findings()
    fields = {"model": MODELS[place.accent], "messages": HI, "stream": place.stream}
    told = await call(stand.url, fields)
    _look_at_answer(findings, cell, told, stream=place.stream)
    rows, holds = stand.rows(), stand.holds()
    findings.same("rows of the journal", len(rows), 1)
    findings.same("holds", len(holds), 1)
    row, (state, charged) = rows[0], holds[0]
    findings.same("the outcome", row["outcome"], cell.outcome)
    findings.same("the code", row["code"], cell.code)
    findings.same("the row's attempts", row["attempts"], cell.attempts)
    findings.same("what the vendor saw", len(box.journal), cell.attempts)
    findings.same("what is held", stand.book.show("alice").held.nano, 0)
    cost = row["cost_nano"] or 0
    findings.same("the hold", state, "released" if cell.charged == "nothing" else "captured")
    findings.same("what the hold was charged", charged, cost)
    findings.same("what was taken", stand.spent(), [cost] if cost else [])
    _look_at_told_bill(findings, told, row)
    counts = (row["input"] or 0, row["cached_read"] or 0, row["output"] or 0)
    shown = _look_at_bill(
        findings, cell, box.journal[-1], usage=row["usage_source"], counts=counts, cost=cost
    )
    return Played(shown=f"{row['code'] or row['outcome']} / {len(box.journal)} / {shown}",
                  wrong=findings.wrong)  # fmt: skip


def _look_at_answer(findings: Findings, cell: Cell, told: Told, *, stream: bool) -> None:
    error = told.error
    findings.true("HTTP says that the answer is whole", holds=told.whole)
    findings.same("[DONE]", told.done, stream and cell.error is None)
    if cell.error is None:
        findings.same("the status", (told.status, error), (200, None))
        findings.true("there is a text", holds=told.text)
        return
    findings.true("an error is told", holds=error is not None)
    if error is None:
        return
    ours = cell.error in OUR_ACCOUNT.values()
    findings.same("the status", told.status, 200 if cell.begun else cell.status)
    findings.same("the code", error["code"], VENDORS_FAULT if ours else cell.code)
    if cell.begun:
        findings.same("retryable", error["retryable"], cell.retryable)
        findings.same("the phase", error.get("phase"), cell.phase)
        findings.same("the characters", error.get("characters_delivered"), len(told.text))
        findings.same("the request", error["request_id"], told.headers["x-request-id"])
        return
    findings.same("the attempts", told.headers["x-droveway-attempts"], str(cell.attempts))
    if issubclass(cell.error, UpstreamError):
        findings.same("x-should-retry", told.headers.get("x-should-retry"), "false")
    if cell.status == 429:
        findings.true("a Retry-After", holds=int(told.headers["retry-after"]) >= 1)


def _look_at_told_bill(findings: Findings, told: Told, row: dict[str, Any]) -> None:
    """The bill that a stream's last comment tells is the one that was written."""
    _, mark, rest = told.body.partition(b"\n: droveway ")
    if not mark:
        streamed = told.headers["content-type"].startswith("text/event-stream")
        findings.true("a stream tells its bill", holds=not streamed)
        return
    bill = msgspec.json.decode(rest.partition(b"\n")[0])
    cost = bill["cost"]
    nano = None if cost is None else round(float(cost) * 1e9)
    findings.same("the bill that was told", nano, row["cost_nano"])
    findings.same("the attempts that were told", bill["attempts"], row["attempts"])


def _look_at_bill(
    findings: Findings,
    cell: Cell,
    seen: Seen,
    *,
    usage: str | None,
    counts: tuple[int, int, int],
    cost: int,
) -> str:
    """Check that what was charged is by the right count; the last request is the one that is."""
    found = "nothing" if usage is None else usage
    findings.same("whose count is paid", found, cell.charged)
    uncached, cached, output = counts
    due = uncached * INPUT_NANO + cached * CACHED_NANO + output * OUTPUT_NANO
    findings.same("the cost", cost, due)
    if cell.charged == "provider":
        true = (seen.prompt_tokens - seen.cached_tokens, seen.cached_tokens, seen.completion_tokens)
        findings.same("the tokens", counts, true)
    if cell.charged == "counted":
        findings.true("what came is counted", holds=uncached and output)
    return found
