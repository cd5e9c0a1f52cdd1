"""The fair queue under any traffic, who must go when too many wait, and how long a wait is said."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from droveway.resilience.fair_queue import PRIORITIES, WEIGHTS, Priority, Ticket
from queueing import Crowd

WEIGHT_OF = {"a": 1, "b": 1, "c": 3, "d": 8}
ROLES = ("", "planner", "coder")
priorities = st.sampled_from(PRIORITIES)
names = st.sampled_from(sorted(WEIGHT_OF))
roles = st.sampled_from(ROLES)
fractions = st.floats(0, 0.99)
pushes = st.tuples(
    st.just("push"), names, roles, priorities, st.sampled_from([0.0, 0.0, 0.5, 3.0]), st.booleans()
)
others = st.tuples(st.sampled_from(["turn", "remove", "again", "rest_all", "wait"]), fractions)


@dataclass
class Checked(Crowd):
    """A crowd and a plain set of those who should wait."""

    waiting: dict[Ticket, None] = field(default_factory=dict)

    def do(self, step: tuple[object, ...]) -> None:
        match step:
            case ("push", str(key), str(role), priority, float(rest_s), bool(in_vain)):
                ticket = self.ticket(
                    key,
                    role=role,
                    weight=WEIGHT_OF[key],
                    priority=priority,  # type: ignore[arg-type]
                    in_vain=in_vain,
                    not_before=self.now + rest_s,
                    jitter=self.number % 7 / 7,
                )
                self.push([ticket])
                self.waiting[ticket] = None
            case ("turn", _):
                head = self.queue.head(self.now)
                if head is not None:
                    self.queue.take(head)
                    del self.waiting[head]
            case ("remove", float(which)) if self.waiting:
                ticket = list(self.waiting)[int(which * len(self.waiting))]
                assert self.queue.remove(ticket)
                assert not self.queue.remove(ticket)
                del self.waiting[ticket]
            case ("again", float(which)) if self.waiting:
                ticket = list(self.waiting)[int(which * len(self.waiting))]
                assert self.queue.remove(ticket)
                ticket.not_before = self.now + 2 * which
                self.push([ticket])
            case ("rest_all", float(share)):
                self.queue.rest_all(2 * share, self.now)
            case ("wait", float(share)):
                self.now += 3 * share
            case _:
                assert not self.waiting
        self.check()

    def check(self) -> None:
        queue, awake = self.queue, [each for each in self.waiting if each.not_before <= self.now]
        assert len(queue) == len(self.waiting)
        listed = list(queue)
        assert len(listed) == len(set(listed))
        assert set(listed) == set(self.waiting)
        assert all(ticket in queue for ticket in self.waiting)
        head = queue.head(self.now)
        assert (head is None) == (not awake)
        if head is not None:
            of_role = [each for each in awake if _place(each) == _place(head)]
            assert head is min(of_role, key=lambda each: each.number)
        rested = [each.not_before for each in self.waiting if each.not_before > self.now]
        assert queue.wakes_at() == min(rested, default=None)


def _place(ticket: Ticket) -> tuple[str, str, str]:
    return ticket.priority, ticket.key, ticket.role


@settings(deadline=None)
@given(st.lists(st.one_of(pushes, pushes, others), max_size=60))
def test_whatever_happens_everybody_is_in_it_once_and_leaves_it_once(
    steps: list[tuple[object, ...]],
) -> None:
    crowd = Checked()
    for step in steps:
        crowd.do(step)
    crowd.now += 100
    while crowd.waiting:
        crowd.do(("turn", 0.0))
    assert crowd.queue.head(crowd.now) is None


def _turns_max(ticket: Ticket) -> float:
    """The bound: how many turns pass between two of the same role, whatever others do.

    Between two turns of one who shares, another gets as many as its weight is to its own, and one
    more; the levels multiply.
    """
    own = WEIGHTS[ticket.priority]
    of_priorities = 1 + sum(
        WEIGHTS[each] / own + 1 for each in PRIORITIES if each != ticket.priority
    )
    of_keys = 1 + sum(
        weight / ticket.weight + 1 for key, weight in WEIGHT_OF.items() if key != ticket.key
    )
    of_roles = 1 + 2 * (len(ROLES) - 1)
    return of_priorities * of_keys * of_roles


@settings(deadline=None)
@given(
    st.tuples(names, roles, priorities, st.integers(0, 3)),
    st.lists(st.lists(st.tuples(names, roles, priorities), max_size=4), max_size=40),
    st.integers(0, 30),
)
def test_nobody_starves_whoever_else_comes_and_goes(
    mine: tuple[str, str, Priority, int],
    arrivals: list[list[tuple[str, str, Priority]]],
    served_before: int,
) -> None:
    """A bound in turns, against a crowd that comes anew for each turn, for ever."""
    crowd, (key, role, priority, ahead) = Crowd(), mine
    waves = [wave for wave in arrivals if wave] or [[("d", "", "interactive")]]
    for wave in waves:
        for name, part, urgency in wave:
            crowd.come(1, name, role=part, weight=WEIGHT_OF[name], priority=urgency)
    crowd.turns(min(served_before, len(crowd.queue)))
    before = [each for each in crowd.queue if _place(each) == (priority, key, role)]
    crowd.come(ahead, key, role=role, weight=WEIGHT_OF[key], priority=priority)
    (own,) = crowd.come(1, key, role=role, weight=WEIGHT_OF[key], priority=priority)
    bound = (len(before) + ahead + 1) * _turns_max(own)
    turns = 0
    while own in crowd.queue:
        for name, part, urgency in waves[turns % len(waves)]:
            crowd.come(1, name, role=part, weight=WEIGHT_OF[name], priority=urgency)
        crowd.turn()
        turns += 1
        assert turns <= bound


# Who must go.


def test_the_newest_of_the_key_that_has_most_must_go() -> None:
    crowd = Crowd()
    big = crowd.come(10, "big")
    crowd.come(9, "other")
    assert crowd.queue.surplus(crowd.ticket("small")) is big[-1]
    crowd.queue.remove(big[-1])
    assert crowd.queue.surplus(crowd.ticket("small")).key in {"big", "other"}


def test_one_of_the_key_that_has_most_must_go_itself() -> None:
    crowd = Crowd()
    crowd.come(10, "big")
    newcomer = crowd.ticket("big")
    assert crowd.queue.surplus(newcomer) is newcomer


def test_a_key_that_has_as_many_as_any_other_pushes_nobody_out() -> None:
    crowd = Crowd()
    crowd.come(1, "other")
    crowd.come(1, "mine")
    newcomer = crowd.ticket("mine")
    assert crowd.queue.surplus(newcomer) is newcomer


def test_what_is_urgent_pushes_out_what_is_not_of_the_same_key() -> None:
    crowd = Crowd()
    batch = crowd.come(3, "mine", priority="batch")
    crowd.come(3, "mine", priority="interactive")
    assert crowd.queue.surplus(crowd.ticket("mine", priority="interactive")) is batch[-1]
    later = crowd.ticket("mine", priority="batch")
    assert crowd.queue.surplus(later) is later


@pytest.mark.parametrize("priority", PRIORITIES)
def test_a_key_that_has_most_loses_its_least_urgent(priority: Priority) -> None:
    crowd = Crowd()
    made = {each: crowd.come(3, "big", priority=each) for each in PRIORITIES}
    assert crowd.queue.surplus(crowd.ticket("small", priority=priority)) is made["batch"][-1]


def test_who_rests_counts_among_those_who_wait() -> None:
    crowd = Crowd()
    big = [crowd.ticket("big", not_before=9.0) for _ in range(5)]
    crowd.push(big)
    crowd.come(4, "other")
    assert crowd.queue.surplus(crowd.ticket("small")) is big[-1]


def test_an_empty_line_that_takes_nobody_refuses_the_newcomer() -> None:
    crowd = Crowd()
    newcomer = crowd.ticket("a")
    assert crowd.queue.surplus(newcomer) is newcomer


# How long a wait is said to be.


@settings(deadline=None)
@given(
    st.dictionaries(st.tuples(names, priorities), st.integers(1, 60), min_size=1),
    st.tuples(names, priorities),
    st.integers(0, 40),
)
def test_the_turns_ahead_of_a_newcomer_are_told_nearly(
    waiting: dict[tuple[str, Priority], int], who: tuple[str, Priority], served_before: int
) -> None:
    """Nearly: to a turn's worth of each other key, and of each other priority."""
    key, priority = who
    crowd = Crowd()
    for (name, urgency), count in waiting.items():
        crowd.come(count, name, weight=WEIGHT_OF[name], priority=urgency)
    crowd.turns(min(served_before, len(crowd.queue)))
    newcomer = crowd.ticket(key, weight=WEIGHT_OF[key], priority=priority)
    told = crowd.queue.ahead_of(newcomer)
    crowd.push([newcomer])
    truth = crowd.all_turns().index(newcomer)
    rivals = [name for name, urgency in waiting if name != key and urgency == priority]
    slack = 1 + sum(1 + WEIGHT_OF[name] / WEIGHT_OF[key] for name in rivals)
    urgencies = {urgency for _, urgency in waiting} - {priority}
    ratios = [WEIGHTS[urgency] / WEIGHTS[priority] for urgency in urgencies]
    assert abs(told - truth) <= slack + sum((1 + slack) * ratio + 2 for ratio in ratios)


def test_a_newcomer_behind_a_crowd_of_one_key_is_told_of_one_turn() -> None:
    crowd = Crowd()
    crowd.come(1_000, "big")
    assert crowd.queue.ahead_of(crowd.ticket("small")) == 1
    assert crowd.queue.ahead_of(crowd.ticket("big")) == 1_000


def test_who_is_urgent_is_not_told_to_wait_for_the_batch() -> None:
    crowd = Crowd()
    crowd.come(1_000, "big", priority="batch")
    assert crowd.queue.ahead_of(crowd.ticket("big", priority="interactive")) == 1
    assert crowd.queue.ahead_of(crowd.ticket("small", priority="batch")) == 1
    assert crowd.queue.ahead_of(crowd.ticket("big", priority="batch")) == 1_000


def test_the_batch_is_told_of_the_turns_that_the_urgent_have_meanwhile() -> None:
    crowd = Crowd()
    crowd.come(10, "a", priority="batch")
    crowd.come(1_000, "b", priority="interactive")
    assert crowd.queue.ahead_of(crowd.ticket("a", priority="batch")) == 10 + 161
