"""This file knows how a plan becomes an answer: wait in line, send, judge, and once more.

Decisions come from `resilience/` and `routing/`; here, and in `line.py` and `watch.py` which
serve it, is the only place that waits.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from droveway.chat import Answer, Usage
from droveway.clock import Clock
from droveway.engine.attempt import Attempt
from droveway.engine.bodies import open_body
from droveway.engine.inquiry import Inquiry
from droveway.engine.line import Line
from droveway.engine.metering import counted_usage
from droveway.engine.outbox import Outbox, Retrying
from droveway.engine.provider import Provider
from droveway.engine.terms import Terms
from droveway.errors import (
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    CancelledCallError,
    DeadlineExceededError,
    DrovewayError,
    InsufficientBalanceError,
    NoAnswerError,
    OverloadedError,
    QueueFullError,
    UpstreamError,
)
from droveway.resilience.fair_queue import Ticket
from droveway.resilience.retry import RetryBudget, Verdict, judge, tells_of_trouble
from droveway.routing.plan import Candidate
from droveway.transport import Pool, Request

OUTPUT_TOKENS_GUESSED: Final = 512
# What a gateway of ours is told of a request, and how it is asked for.
DEADLINE: Final = "x-droveway-deadline-s"
ATTEMPTS: Final = "x-droveway-attempts-max"
PRIORITY: Final = "x-droveway-priority"
CONVERSATION: Final = "x-droveway-conversation"
ROLE: Final = "x-droveway-role"


@dataclass(slots=True, kw_only=True)
class Errand:
    """One call on its way: what is asked, of whom, until when, and what came of it so far.

    Attributes:
        request: What is asked.
        plan: Who may answer, best first.
        terms: What the caller allows.
        outbox: Where events go; None for a whole answer.
        output_cap: Our own cap of output tokens, or None.
        total_at: When the call is over, on the clock's monotonic time.
        attempts: Every attempt that was sent, in order.
        answer: The answer, once there is one.
        error: Why there is none.
        dead: Candidates that are asked no more.
        failures: Attempts that failed, refusals not among them.
        first_token_timeouts: How many of them were silent.
        waited_s: Seconds in line and between attempts.
        wrote: Told of output tokens as they come, where somebody's money is watched.
        in_vain: Whether the last turn was refused by the vendor.
        sent_away: Candidates that are not asked at present, and why.
        forsaken: Whether the caller is gone: what is on its way may end, nothing more is sent.
    """

    request: Inquiry
    plan: Sequence[Candidate]
    terms: Terms
    outbox: Outbox | None
    output_cap: int | None
    total_at: float
    attempts: list[tuple[Candidate, Attempt]] = field(default_factory=list)
    answer: Answer | None = None
    error: DrovewayError | None = None
    dead: set[Candidate] = field(default_factory=set)
    failures: int = 0
    first_token_timeouts: int = 0
    waited_s: float = 0.0
    wrote: Callable[[int], None] | None = None
    in_vain: bool = False
    sent_away: dict[Candidate, UpstreamError] = field(default_factory=dict)
    forsaken: bool = False


class Dispatch:
    """Sends errands out, on lines that all callers of an engine share.

    Args:
        providers: Who can be asked, by name.
        pool: The connections.
        clock: Where time and jitter come from.
        line_of: The line before a candidate.
    """

    def __init__(
        self,
        providers: dict[str, Provider],
        *,
        pool: Pool,
        clock: Clock,
        line_of: Callable[[Candidate], Line],
    ) -> None:
        self._providers = providers
        self._pool = pool
        self._clock = clock
        self._line_of = line_of
        self.numbers = itertools.count(1)
        self.budget = RetryBudget()

    async def run(self, errand: Errand) -> None:
        """Pursue an errand until it has an answer or an error; never raises either."""
        self.budget.deposit()
        number = next(self.numbers)
        plan = errand.plan
        candidate: Candidate | None = plan[0] if len(plan) == 1 else self._soonest(errand)
        while candidate is not None:
            try:
                attempt = await self._attempt(errand, candidate, number)
            except (DeadlineExceededError, QueueFullError) as error:
                error.forget_trace()
                # Where a vendor's refusal is why it waited, that says more than the deadline.
                errand.error = errand.attempts[-1][1].error if errand.attempts else error
                break
            except UpstreamError as error:
                error.forget_trace()
                errand.error = errand.attempts[-1][1].error if errand.attempts else error
                errand.sent_away[candidate], errand.in_vain = error, False
                candidate = self._soonest(errand)
                continue
            if attempt.error is None:
                errand.answer, errand.error = attempt.answer, None
                return
            errand.error = attempt.error
            candidate = await self._next(errand, candidate, attempt)
        errand.error = _final_error(errand)

    async def _attempt(self, errand: Errand, candidate: Candidate, number: int) -> Attempt:
        provider = self._providers[candidate.provider]
        body = errand.request.body(
            model=candidate.model,
            accent=provider.accent_for(candidate.model),
            output_cap=errand.output_cap,
        )
        line = self._line_of(candidate)
        ticket = _ticket(errand, number, self._clock.jitter())
        if not line.enter_now(ticket):
            since = self._clock.monotonic()
            try:
                await line.enter(ticket, until=errand.total_at)
            finally:
                errand.waited_s += self._clock.monotonic() - since
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        attempt = Attempt(
            provider,
            open_body=open_body,
            streaming=errand.request.stream,
            through=errand.request.through,
            read_whole=errand.request.endpoint.read_whole,
            outbox=errand.outbox,
            clock=self._clock,
            loop=task.get_loop(),
            timeout=errand.terms.timeout,
            total_at=errand.total_at,
            retry_after_max_s=errand.terms.retry.retry_after_max_s,
        )
        attempt.wrote = errand.wrote
        attempt.began_good = lambda head: line.answered(ticket, head.headers)
        errand.attempts.append((candidate, attempt))
        try:
            path, streaming = errand.request.endpoint.path, errand.request.stream
            attempt.sending = task
            told = self._told(errand) if provider.relays else ()
            request = provider.request(
                path, body, streaming=streaming, account=candidate.account, told=told
            )
            await self._send(attempt, request)
        finally:
            _come_back(attempt, line, ticket, usage=usage_of(errand.request, attempt))
        return attempt

    def _told(self, errand: Errand) -> tuple[tuple[str, str], ...]:
        """Return what a gateway is told, so that it tries within what is left, and we do not."""
        left_s = max(0.001, errand.total_at - self._clock.monotonic())
        left = errand.terms.retry.max_attempts - len(errand.attempts) + 1
        told = [(DEADLINE, f"{left_s:.3f}"), (ATTEMPTS, f"{left}")]
        terms = errand.terms
        if terms.priority != "normal":
            told.append((PRIORITY, terms.priority))
        for name, word in ((CONVERSATION, terms.conversation), (ROLE, terms.tags.get("role"))):
            if word and word.isascii() and word.isprintable():
                told.append((name, word))
        return tuple(told)

    async def _send(self, attempt: Attempt, request: Request) -> None:
        task = attempt.sending
        assert task is not None, "set by the one who calls"
        try:
            call = await self._pool.send(request, attempt)
            attempt.sent(call)
            await attempt.ended
        except asyncio.CancelledError:
            if not _timed_out(attempt) or task.uncancel() > 0:
                attempt.give_up()
                raise
        except DrovewayError as error:
            if not attempt.ended.done():
                attempt.fail(error)

    async def _next(
        self, errand: Errand, candidate: Candidate, attempt: Attempt
    ) -> Candidate | None:
        error = attempt.error
        assert error is not None
        if isinstance(error, APITimeoutError) and error.phase == "first_token":
            errand.first_token_timeouts += 1
        verdict = judge(
            error,
            delivered=attempt.delivered,
            first_token_timeouts=errand.first_token_timeouts,
        )
        spent = len(errand.attempts) >= errand.terms.retry.max_attempts
        if verdict == "final" or spent or errand.forsaken:
            return None
        if verdict == "elsewhere":
            errand.dead.add(candidate)
        chosen = self._choose(errand, candidate, verdict)
        if chosen is None:
            return None
        # Given back where it was used: another line owes nothing.
        errand.in_vain = verdict == "refusal" and chosen == candidate
        # Going on to who was not asked yet is the plan, not a retry: it costs no budget.
        tried = any(chosen == each for each, _ in errand.attempts)
        if verdict == "failure" and tried and not self.budget.withdraw():
            return None
        if verdict == "failure":
            errand.failures += 1
            again = chosen == candidate
            delay = self._backoff_s(errand) if again else 0.0
        else:
            now = self._clock.monotonic()
            delay = self._line_of(chosen).pacer.ready_at(now) - now
        if self._clock.monotonic() + delay >= errand.total_at:
            return None
        if errand.outbox is not None:
            errand.outbox.put(Retrying(str(error), delay, chosen.provider, chosen.model))
        if verdict == "failure" and delay > 0:
            await self._clock.sleep(delay)
            errand.waited_s += delay
        return chosen

    def _choose(self, errand: Errand, last: Candidate, verdict: Verdict) -> Candidate | None:
        """Take the next candidate behind one that failed; else the one that can go soonest."""
        if verdict == "failure" and len(errand.plan) > 1:
            place = errand.plan.index(last) + 1
            after = [*errand.plan[place:], *errand.plan[:place]]
            return next((each for each in after if self._may_be_asked(errand, each)), None)
        return self._soonest(errand)

    def _soonest(self, errand: Errand) -> Candidate | None:
        """Take the first candidate that can go at once; else the one that can go soonest."""
        alive = [each for each in errand.plan if self._may_be_asked(errand, each)]
        if not alive:
            return None
        now = self._clock.monotonic()
        pacers = {each: self._line_of(each).pacer for each in alive}
        best = min(alive, key=lambda each: (pacers[each].ready_at(now), pacers[each].probes))
        if best.account or len(alive) > 1:
            return self._with_room(best, alive, now)
        return best

    def _with_room(self, best: Candidate, alive: Sequence[Candidate], now: float) -> Candidate:
        """Take another account of the same provider and model, where only there is room."""
        if self._line_of(best).pacer.has_room(now):
            return best
        same = (each for each in alive if each[:2] == best[:2])
        return next((each for each in same if self._line_of(each).pacer.has_room(now)), best)

    def _may_be_asked(self, errand: Errand, candidate: Candidate) -> bool:
        return candidate not in errand.dead and candidate not in errand.sent_away

    def _backoff_s(self, errand: Errand) -> float:
        return errand.terms.retry.backoff_s(errand.failures, self._clock.jitter())


def _come_back(attempt: Attempt, line: Line, ticket: Ticket, *, usage: Usage | None) -> None:
    """Leave the line's flight: refused, or back with what was used."""
    error = attempt.error
    if isinstance(error, APIStatusError) and not attempt.delivered:
        verdict = judge(error, delivered=False, first_token_timeouts=0)
        if verdict == "refusal":
            line.refused(ticket, retry_after_s=error.retry_after_s)
            return
        if isinstance(error, AuthenticationError | InsufficientBalanceError):
            line.shut_out(ticket, error)
            return
        if isinstance(error, OverloadedError):
            line.overloaded(ticket)
    tokens = usage.input_total + usage.output if usage else None
    if attempt.answer is not None:
        line.succeeded(ticket, tokens=tokens)
    elif isinstance(error, UpstreamError) and tells_of_trouble(error):
        line.failed(ticket, error, tokens=tokens)
    else:
        line.returned(ticket, tokens=tokens)


def usage_of(request: Inquiry, attempt: Attempt) -> Usage | None:
    """Return what an attempt used: the vendor's count, else ours, else None for nothing.

    One that was sent and given up before anything came may be billed all the same: its input is
    counted, as what it costs us. One that the vendor refused has used nothing.
    """
    if attempt.answer is not None:
        return attempt.answer.usage or counted_usage(request.input_estimate(), attempt.answer)
    told = attempt.error.partial if isinstance(attempt.error, UpstreamError) else None
    if told is not None and told.usage is not None:
        return told.usage
    if not attempt.delivered:
        return None
    partial = attempt.meter.answer(model=None, id=None)
    return partial.usage or counted_usage(request.input_estimate(), partial)


def _ticket(errand: Errand, number: int, jitter: float) -> Ticket:
    terms = errand.terms
    return Ticket(
        number,
        _tokens_guessed(errand),
        jitter,
        key=terms.key_id or "",
        weight=terms.weight,
        role=terms.tags.get("role", ""),
        priority=terms.priority,
        in_vain=errand.in_vain,
    )


def _tokens_guessed(errand: Errand) -> int:
    request = errand.request
    output = request.max_tokens
    if output is None:
        output = errand.output_cap or OUTPUT_TOKENS_GUESSED
    return request.input_estimate() + output


def _timed_out(attempt: Attempt) -> bool:
    return attempt.sending is not None and isinstance(attempt.error, APITimeoutError)


def _final_error(errand: Errand) -> DrovewayError:
    error = errand.error
    assert error is not None
    attempts = len(errand.attempts)
    errors: list[DrovewayError] = [*errand.sent_away.values()]
    errors += [attempt.error for _, attempt in errand.attempts if attempt.error is not None]
    tried = {*errand.sent_away, *(candidate for candidate, _ in errand.attempts)}
    delivered = any(attempt.delivered for _, attempt in errand.attempts)
    last_word = isinstance(error, CancelledCallError) or delivered
    if len(tried) > 1 and not last_word and _all_upstream(errors):
        names = ", ".join(each.name for each in errand.plan)
        error = NoAnswerError(
            f"none of {names} gave an answer in {attempts} attempts; the last one: {error}",
            errors=errors,
        )
    error.attempts = attempts
    return error


def _all_upstream(errors: Sequence[DrovewayError]) -> bool:
    # Only then does no single one of them speak for all.
    return all(judge(error, delivered=False, first_token_timeouts=0) != "final" for error in errors)
