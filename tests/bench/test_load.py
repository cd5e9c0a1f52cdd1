"""When requests go: the schedule, on a clock that stands still, and a wire that answers late."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from droveway.agents.roles import built_in_roles
from droveway.bench.load import PAUSE_S, Load, Pace, Target
from droveway.bench.questions import questions
from droveway.bench.tally import Tally
from droveway.catalog.pricelists import built_in_book
from droveway.clock import Alarm, StillClock, settle_loop
from droveway.engine.assembly import provider_at
from droveway.errors import APIConnectionError
from droveway.transport import Request, ResponseHead, Sink
from lab import run

WHOLE = b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}'


class Sent:
    """A request on the wire of a test."""

    def __init__(self, at: float, request: Request) -> None:
        self.at = at
        self.port = request.origin.port
        self.asked = msgspec.json.decode(request.body)
        self.alarm: Alarm | None = None
        self.answered = self.aborted = False

    def abort(self) -> None:
        self.aborted = not self.answered
        if self.alarm is not None:
            self.alarm.cancel()


class LateWire:
    """Answers each request after so many seconds of the clock; None never does."""

    def __init__(self, clock: StillClock, *takes_s: float | None) -> None:
        self.clock = clock
        self.takes_s = takes_s
        self.sent: list[Sent] = []
        self.in_flight = self.in_flight_most = 0

    async def send(self, request: Request, sink: Sink) -> Sent:
        now = self.clock.monotonic()
        takes_s = self.takes_s[min(len(self.sent), len(self.takes_s) - 1)]
        sent = Sent(now, request)
        self.sent.append(sent)
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight_most, self.in_flight)

        def answer() -> None:
            sent.answered = True
            self.in_flight -= 1
            sink.on_head(ResponseHead(200, [("content-type", "application/json")]))
            sink.on_chunk(WHOLE)
            sink.on_done()

        if takes_s is not None:
            sent.alarm = self.clock.call_at(now + takes_s, answer)
        return sent


def target(clock: StillClock, port: int = 1) -> Target:
    server = provider_at(f"http://127.0.0.1:{port}/v1", None)
    return Target(server, Tally(server, model="m", book=built_in_book(), clock=clock))


def load(wire: Any, clock: StillClock, *targets: Target, roles: int = 17, **pace: Any) -> Load:
    return Load(
        targets,
        questions(roles, model="m", stream=False),
        streaming=False,
        pace=Pace(**{"warmup_s": 0.0, "duration_s": 1.0, **pace}),
        wire=wire,
        clock=clock,
    )


async def to_the_end(load: Load, clock: StillClock) -> None:
    running = asyncio.create_task(load.run())
    await settle_loop()
    while not running.done():
        assert await clock.jump(), "it waits for nothing"
    await running


def measured(takes_s: Sequence[float | None], **pace: Any) -> tuple[LateWire, Tally]:
    clock = StillClock()
    wire, asked = LateWire(clock, *takes_s), target(clock)
    run(to_the_end(load(wire, clock, asked, **pace), clock))
    return wire, asked.tally


def test_requests_go_when_they_are_due_however_late_answers_are() -> None:
    """spec: an open loop; ten a second go at their tenths though each answer takes 5 s."""
    wire, tally = measured([5.0], rate=10)
    assert [sent.at for sent in wire.sent] == pytest.approx([i / 10 for i in range(10)])
    assert list(tally.late_s) == pytest.approx([0.0] * 10)
    assert list(tally.scheduled_s) == pytest.approx([5.0] * 10)


def test_a_stall_is_charged_to_every_request_that_was_due_in_it() -> None:
    """spec: no coordinated omission. One connection; the first answer takes 0.35 s, others none."""
    wire, tally = measured([0.35, 0.0], rate=10, connections=1, duration_s=0.5)
    assert [sent.at for sent in wire.sent] == pytest.approx([0.0, 0.35, 0.35, 0.35, 0.4])
    assert list(tally.scheduled_s) == pytest.approx([0.35, 0.25, 0.15, 0.05, 0.0])
    assert list(tally.answer_s) == pytest.approx([0.35, 0.0, 0.0, 0.0, 0.0])
    assert list(tally.late_s) == pytest.approx([0.0, 0.25, 0.15, 0.05, 0.0])


def test_what_was_due_and_never_had_a_connection_counts_as_not_sent() -> None:
    wire, tally = measured([1.5], rate=10, connections=1)
    assert len(wire.sent) == 1
    assert (tally.ok, tally.failed) == (1, Counter(not_sent=9))


def test_the_warm_up_is_sent_and_not_counted() -> None:
    wire, tally = measured([0.01], rate=10, warmup_s=0.5, duration_s=0.5)
    assert len(wire.sent) == 10
    assert tally.sent == 5


def test_a_stall_in_the_warm_up_leaves_only_counted_requests_not_sent() -> None:
    _, tally = measured([2.0], rate=10, connections=1, warmup_s=0.5, duration_s=0.5)
    assert (tally.ok, tally.failed) == (0, Counter(not_sent=5))


def test_without_a_rate_each_worker_asks_again_when_its_answer_is_in() -> None:
    wire, tally = measured([0.25], connections=3)
    assert [sent.at for sent in wire.sent] == [0.0] * 3 + [0.25] * 3 + [0.5] * 3 + [0.75] * 3
    assert wire.in_flight_most == 3
    assert tally.ok == 12
    assert tally.ended_at == 1.0


def test_connections_bound_what_is_in_flight_with_a_rate_too() -> None:
    wire, _ = measured([1.0], rate=100, connections=7)
    assert wire.in_flight_most == 7


def test_two_servers_are_asked_by_turns_and_get_the_same_questions() -> None:
    clock = StillClock()
    wire, pair = LateWire(clock, 0.0), [target(clock, 1), target(clock, 2)]
    run(to_the_end(load(wire, clock, *pair, rate=5), clock))
    assert [sent.port for sent in wire.sent] == [1, 2] * 5
    assert [sent.at for sent in wire.sent] == pytest.approx([i / 10 for i in range(10)])
    assert [each.asked for each in wire.sent[::2]] == [each.asked for each in wire.sent[1::2]]
    assert [each.tally.ok for each in pair] == [5, 5]


@pytest.mark.parametrize("roles", [17, 3])
def test_the_first_roles_take_turns_and_no_request_is_like_another(roles: int) -> None:
    clock = StillClock()
    wire = LateWire(clock, 0.0)
    run(to_the_end(load(wire, clock, target(clock), roles=roles, rate=40), clock))
    prompts = [role.instructions for role in built_in_roles().values()]
    told = [[each["content"] for each in sent.asked["messages"]] for sent in wire.sent]
    assert [system for system, _ in told] == [prompts[i % roles] for i in range(40)]
    assert len({user for _, user in told}) == 40


def test_an_answer_that_does_not_come_in_time_is_hung_up_on() -> None:
    wire, tally = measured([None], rate=2, timeout_s=3.0)
    assert tally.failed == Counter(timeout=2)
    assert [sent.aborted for sent in wire.sent] == [True, True]
    assert tally.ended_at == pytest.approx(3.5)


class NoWay(LateWire):
    """Never gets a connection, or is refused one."""

    def __init__(self, clock: StillClock, *, refused: bool) -> None:
        super().__init__(clock, None)
        self.refused = refused

    async def send(self, request: Request, sink: Sink) -> Sent:
        self.sent.append(Sent(self.clock.monotonic(), request))
        if self.refused:
            raise APIConnectionError("nobody listens", sent=False)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


def test_connecting_that_takes_too_long_is_given_up_as_a_timeout() -> None:
    clock = StillClock()
    asked = target(clock)
    run(to_the_end(load(NoWay(clock, refused=False), clock, asked, rate=2, timeout_s=3.0), clock))
    assert asked.tally.failed == Counter(timeout=2)


def test_a_worker_that_cannot_connect_tries_again_after_a_pause() -> None:
    clock = StillClock()
    wire, asked = NoWay(clock, refused=True), target(clock)
    run(to_the_end(load(wire, clock, asked, connections=1, duration_s=3.5 * PAUSE_S), clock))
    assert asked.tally.failed == Counter(connect=4)
    assert [sent.at for sent in wire.sent] == pytest.approx([i * PAUSE_S for i in range(4)])


@pytest.mark.parametrize("rate", [None, 10])
def test_stopping_hangs_up_and_keeps_what_was_measured(rate: float | None) -> None:
    async def check() -> None:
        clock = StillClock()
        wire, asked = LateWire(clock, 0.0, 0.0, 0.0, None), target(clock)
        stopped = load(wire, clock, asked, rate=rate, connections=2)
        running = asyncio.create_task(stopped.run())
        await clock.advance(0.5)
        stopped.stop()
        await running
        assert stopped.interrupted
        assert asked.tally.sent == asked.tally.ok == 3
        assert any(sent.aborted for sent in wire.sent)
        assert all(sent.aborted or sent.answered for sent in wire.sent)

    run(check())


def test_a_caller_that_is_cancelled_is_not_taken_for_a_stop() -> None:
    async def check() -> None:
        clock = StillClock()
        wire = LateWire(clock, None)
        running = asyncio.create_task(load(wire, clock, target(clock), rate=1).run())
        await clock.advance(0.1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert wire.sent[0].aborted

    run(check())
