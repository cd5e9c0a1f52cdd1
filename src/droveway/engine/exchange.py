"""This file knows the corridor, and is the first one to read.

    request in → admit → plan (who may answer) → hold (money) → dispatch (pace, send, retry)
    → stream out → settle + journal

Planning is pure and free, and comes before the hold because the hold must cover the dearest
candidate. Nothing is sent before the hold is taken. The whole corridor runs in a task that the
engine owns: the caller only reads from an outbox, and going away is a signal, not a cancellation
of the steps that touch money. So a caller may be cancelled once or twice at any moment and no
hold stays open: while the hold is being taken the signal waits until it is there and can be
given back, while an answer is on its way the attempt is given up and its connection closed, and
a settlement always runs to its end.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from droveway.chat import Answer, Usage
from droveway.dialects.ending import Outcome
from droveway.engine.attempt import Attempt
from droveway.engine.bounding import bound_of
from droveway.engine.dispatch import Errand
from droveway.engine.draining import Draining
from droveway.engine.growing import Growing
from droveway.engine.inquiry import Inquiry
from droveway.engine.outbox import Outbox
from droveway.engine.placing import conversation_of
from droveway.engine.pricing import attempt_entry, own_cost_of
from droveway.engine.records import AttemptEntry, Bodies, Row
from droveway.engine.settling import Bill, Enough, Hold, Ledger
from droveway.engine.terms import Terms
from droveway.errors import (
    CancelledCallError,
    DrovewayError,
    GoingDownError,
    StoreUnavailableError,
)
from droveway.routing.plan import Candidate

if TYPE_CHECKING:
    from droveway.engine.engine import Engine


class Exchange:
    """One request on its way through the corridor.

    Args:
        engine: Whose corridor it is.
        request: What is asked.
        terms: What the caller allows.

    Attributes:
        id: Our id of the request.
        outbox: Where the events of a stream come out; closed when all is settled.
        answer: The answer, once all is settled.
        raw: The bytes of a whole answer, on the through lane.
        error: Why there is none.
        row: The journal's row, once all is settled.
        output_cap: The cap of output tokens that we set, where the caller set none.
        on_row: Told the row when it is written.
    """

    def __init__(self, engine: "Engine", request: Inquiry, terms: Terms) -> None:
        self._at = engine.clock.now()
        self.id = request_id(self._at)
        self.outbox = Outbox()
        self.answer: Answer | None = None
        self.raw: bytes | None = None
        self.error: DrovewayError | None = None
        self.row: Row | None = None
        self.output_cap: int | None = None
        self.on_row: Callable[[Row], None] | None = None
        self._engine = engine
        self._request = request
        self._terms = terms
        self._tags = terms.tags
        self._gone = False
        self._why: DrovewayError | None = None
        self._enough: Enough | None = None
        self._errand: Errand | None = None
        self._entries: list[AttemptEntry] = []
        self._first_token_at: float | None = None
        self._waited_s = 0.0
        self._conversation: bytes | None = None
        self._last: Attempt | None = None
        self._kept: Row | None = None
        self._withheld = False
        self._draining: Draining | None = None
        self._began = engine.clock.monotonic()
        self.task = engine.loop.create_task(self._run(), name=self.id)

    @property
    def attempts(self) -> Sequence[tuple[Candidate, Attempt]]:
        """The attempts so far, oldest first."""
        return () if self._errand is None else tuple(self._errand.attempts)

    @property
    def waited_s(self) -> float:
        """Seconds it has waited so far: for its turn, and between attempts."""
        return self._waited_s if self._errand is None else self._errand.waited_s

    def give_up(self, why: DrovewayError | None = None) -> None:
        """Signal that nobody waits; what must still be done is done all the same.

        Args:
            why: What the reader is told who is still there; None for a caller who is gone.
        """
        if self.task.done() or (self._gone and (why is None or self._draining is None)):
            return
        drain = self._terms.drain if why is None else None
        self._gone, self._why = True, why
        self._no_more_waiting()
        errand = self._errand
        if errand is None:
            return
        if drain is None or not errand.attempts or errand.attempts[-1][1].error is not None:
            # Nothing of it is with a vendor: it waits in line, or for a further attempt.
            self.task.cancel()
        elif self._draining is None:
            self._draining = Draining(
                drain, errand, outbox=self.outbox, clock=self._engine.clock, enough=self.task.cancel
            )

    def row_so_far(self) -> Row | None:
        """Return the row it would have if its process died now; None where nothing was produced."""
        errand = self._errand
        if errand is None or not errand.attempts or not errand.attempts[-1][1].delivered:
            return None
        entries = [
            attempt_entry(self._engine, self._request, candidate=candidate, attempt=attempt)
            for candidate, attempt in errand.attempts
        ]
        last = entries[-1]
        if last.usage is None or last.charge is None or _is_no_answer(last.usage):
            return None
        died = msgspec.structs.replace(last, outcome="failed", code=GoingDownError.code)
        return msgspec.structs.replace(
            self._write_row(),
            outcome="failed",
            code=GoingDownError.code,
            usage=last.usage,
            cost=last.charge,
            own_cost=own_cost_of(entries),
            price_row=last.price_row,
            attempts=(*entries[:-1], died),
            bodies=None,
        )

    async def _run(self) -> None:
        try:
            await self._corridor()
        except DrovewayError as error:
            self._fail(error)
        except asyncio.CancelledError:
            # Not by `give_up`, which cancels within dispatch only: the event loop is being closed.
            self._fail(CancelledCallError("the event loop was closed amid the call"))
        except Exception as error:  # noqa: BLE001 - the settling task is a door: it records
            self._fail(self._engine.own_failure(self.id, error))
        finally:
            self._end()

    def _fail(self, error: DrovewayError) -> None:
        error.forget_trace()
        self.answer, self.error = None, error

    def _end(self) -> None:
        """Write the row and let the reader go, whatever else fails."""
        try:
            self.row = self._kept or self._write_row()
            journal = self._engine.journal
            for told in (journal.append if self._kept is None else journal.tell, self.on_row):
                if told is not None:
                    self._engine.guarded(self.id, told, self.row)
        except Exception as error:  # noqa: BLE001 - as above; the reader must not wait for ever
            self._fail(self._engine.own_failure(self.id, error))
        finally:
            self.outbox.close(self.error)

    async def _corridor(self) -> None:
        self._engine.admit()
        self._request.check()
        plan = self._plan()
        holds = await self._hold(plan)
        try:
            if not self._gone:
                await self._dispatch(plan, holds)
        except DrovewayError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the row that is settled with must say it
            self._fail(self._engine.own_failure(self.id, error))
        finally:
            await self._settle(holds)

    def _plan(self) -> Sequence[Candidate]:
        engine, model = self._engine, None
        placed = engine.placing.place(self._request, self._terms)
        if placed is not None:
            model = placed.model
            self._tags = {**self._terms.tags, "arm": placed.arm}
            self._conversation = placed.conversation
        return engine.plan(
            engine.model_for(self._request, model),
            lambda: conversation_of(
                self._request, self._terms, role=self._terms.tags.get("role", "")
            ),
        )

    async def _hold(self, plan: Sequence[Candidate]) -> list[tuple[Ledger, Hold]]:
        ledgers = (self._engine.ledger, *self._terms.ledgers)
        money_decides = any(ledger.money_decides for ledger in ledgers)
        bound = bound_of(
            self._engine,
            self._request,
            plan=plan,
            money_decides=money_decides,
            within_s=self._terms.timeout.total_s,
        )
        holds: list[tuple[Ledger, Hold]] = []
        alarm = None
        if money_decides:
            self._enough = self._engine.loop.create_future()
            until = self._began + self._terms.timeout.total_s
            alarm = self._engine.clock.call_at(until, self._no_more_waiting)
        try:
            for ledger in ledgers:
                hold = await ledger.hold(bound, request_id=self.id, enough=self._enough)
                holds.append((ledger, hold))
        except BaseException as error:
            if isinstance(error, DrovewayError):
                self._fail(error)
            await self._settle(holds)
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
        return holds

    def _no_more_waiting(self) -> None:
        if self._enough is not None and not self._enough.done():
            self._enough.set_result(None)

    async def _dispatch(self, plan: Sequence[Candidate], holds: list[tuple[Ledger, Hold]]) -> None:
        caps = [hold.output_cap for _, hold in holds if hold.output_cap is not None]
        self.output_cap = min(caps, default=None)
        self._errand = Errand(
            request=self._request,
            plan=plan,
            terms=self._terms,
            outbox=self.outbox if self._request.stream else None,
            output_cap=self.output_cap,
            total_at=self._began + self._terms.timeout.total_s,
        )
        errand = self._errand
        growing = self._growing(holds)
        errand.wrote = None if growing is None else growing.wrote
        try:
            await self._engine.dispatch.run(errand)
        except asyncio.CancelledError:
            # By `give_up`, which cancels between these two lines only; or the event loop is being
            # closed with all its tasks, which is the same to us: nobody waits for the answer.
            self._gone = True
            errand.answer = None
        finally:
            self._errand = None
            if self._draining is not None:
                self._draining.end()
            if growing is not None:
                await growing.ended()
        self._waited_s = errand.waited_s
        if errand.attempts:
            self._first_token_at = errand.attempts[-1][1].first_token_at
            self.raw = errand.attempts[-1][1].raw
            self._last = errand.attempts[-1][1]
        self._entries = [
            attempt_entry(self._engine, self._request, candidate=candidate, attempt=attempt)
            for candidate, attempt in errand.attempts
        ]
        self.answer, self.error = errand.answer, errand.error
        if self._engine.billing.floor_nano and errand.attempts:
            self._calibrate(errand.attempts[-1][0])

    def _calibrate(self, candidate: Candidate) -> None:
        """Learn how many tokens a byte is, where an estimate may be held for some day."""
        usage = self._entries[-1].usage
        if usage is not None and usage.source == "provider" and not self._request.may_hold_media():
            size = len(self._request.written())
            self._engine.calibration.note(candidate, size=size, tokens=usage.input_total)

    def _growing(self, holds: Sequence[tuple[Ledger, Hold]]) -> Growing | None:
        for _, hold in holds:
            if hold.extend is not None and hold.covers is not None:
                return Growing(
                    hold.covers, extend=hold.extend, give_up=self.give_up, loop=self._engine.loop
                )
        return None

    async def _settle(self, holds: list[tuple[Ledger, Hold]]) -> None:
        """Settle or release every hold; one ledger that fails does not keep the others open."""
        failures: list[Exception] = []
        row = self._write_row()
        for ledger, hold in holds:
            try:
                written = await self._settle_one(ledger, hold, row)
                if ledger.keeps_rows:
                    self._kept = written
            except StoreUnavailableError as error:
                failures.append(error)
                self._owe(ledger, hold, error)
            except Exception as error:  # noqa: BLE001 - recorded, and raised below
                failures.append(error)
        for further in failures[1:]:
            self._engine.own_failure(self.id, further)
        if failures:
            raise failures[0]

    async def _settle_one(self, ledger: Ledger, hold: Hold, row: Row) -> Row:
        bill = self._bill()
        if bill is None:
            await ledger.release(hold, row=row, sent=bool(self._entries))
            return row
        return await ledger.settle(hold, bill, row=row)

    def _bill(self) -> Bill | None:
        """Return what there is to pay; None where nothing was produced and nothing is owed."""
        own_cost = own_cost_of(self._entries)
        last = self._produced()
        if last is None and own_cost is None:
            return None
        return Bill(
            cost=last.charge if last is not None else None,
            usage=last.usage if last is not None else None,
            own_cost=own_cost,
            answer=self.raw if self.answer is not None else None,
        )

    def _owe(self, ledger: Ledger, hold: Hold, error: StoreUnavailableError) -> None:
        """Leave the end of a hold to later: the caller is told that it failed, and why.

        What was delivered of a stream is paid for. A whole answer is withheld, and not paid for.
        """
        if not ledger.keeps_rows:
            return
        self._withheld = not self._request.stream
        self._fail(error)
        self._kept = self._write_row()
        bill = None if self._produced() is None else self._bill()
        ledger.settle_later(hold, bill, row=self._kept)

    def _produced(self) -> AttemptEntry | None:
        """Return the attempt whose tokens the caller got; None when they got none."""
        last = self._entries[-1] if self._entries and not self._withheld else None
        if last is None or last.abandoned or last.usage is None:
            return None
        return None if self._brought_nothing(last.usage) else last

    def _brought_nothing(self, usage: Usage) -> bool:
        """Whether nothing of an answer that failed has reached the caller.

        The library's error brings what there is of a whole answer that broke off. On the through
        lane its bytes are withheld. And of a stream, a role alone is no answer.
        """
        if self.answer is not None or self._last is None:
            return False
        withheld = self._request.through and not self._last.delivered
        return withheld or _is_no_answer(usage)

    def _write_row(self) -> Row:
        if self.answer is None and self._gone:
            self.error = self._why or CancelledCallError(
                "the caller went away before the answer was whole", attempts=len(self._entries)
            )
        outcome: Outcome = "completed"
        if self.answer is None:
            outcome = "cancelled" if isinstance(self.error, CancelledCallError) else "failed"
        last = self._produced()
        total_s = self._engine.clock.monotonic() - self._began
        upstream_ms = sum(entry.total_ms for entry in self._entries)
        first_token_at = self._first_token_at
        return Row(
            id=self.id,
            at=self._at,
            asked=self._request.model,
            served=self.answer.model if self.answer is not None else None,
            outcome=outcome,
            code=None if self.error is None else self.error.code,
            usage=None if last is None else last.usage,
            cost=None if last is None else last.charge,
            own_cost=own_cost_of(self._entries),
            price_row=None if last is None else last.price_row,
            attempts=tuple(self._entries),
            first_token_ms=None if first_token_at is None else (first_token_at - self._began) * 1e3,
            total_ms=total_s * 1e3,
            waited_ms=self.waited_s * 1e3,
            overhead_ms=max(0.0, (total_s - self._waited_s) * 1e3 - upstream_ms),
            tags=self._tags,
            key_id=self._terms.key_id,
            client_gone=self._gone and (self._why is None or self._draining is not None),
            conversation=self._conversation,
            bodies=self._bodies() if self._engine.settings.journal.bodies else None,
        )

    def _bodies(self) -> Bodies:
        said = self.raw
        if said is None and self._last is not None:
            answer = self._last.answer or self._last.meter.answer(model=None, id=None)
            said = msgspec.json.encode(answer)
        request = self._request.written()
        return Bodies(request[:BODY_KEPT_BYTES_MAX], (said or b"")[:BODY_KEPT_BYTES_MAX])


def _is_no_answer(usage: Usage) -> bool:
    """Whether it counts an input by estimate, and no word of an answer."""
    return usage.source == "counted" and not usage.output


BODY_KEPT_BYTES_MAX: Final = 2**20
_LIFE: Final = secrets.token_hex(3)
_NUMBERS: Final = itertools.count()


def request_id(at: datetime) -> str:
    """Make the id of a request: its millisecond, chance drawn once a process, and a number.

    Such ids sort by time: rows that are written in the order of their ids cost a store half as
    much as rows with ids of chance alone. Nothing is protected by an id's being unknown.
    """
    return f"req_{int(at.timestamp() * 1e3):012x}{_LIFE}{next(_NUMBERS) & 0xFFFFFF:06x}"
