"""Whose turn is next: each gets its share, nobody waits for ever, and nothing is saved up."""

from collections import Counter

import pytest

from droveway.resilience.fair_queue import GONE_MIN, PRIORITIES, WEIGHTS, FairQueue, Ticket, _Share
from queueing import Crowd, keys

SMALL = [f"small {number}" for number in range(16)]


@pytest.mark.parametrize("served_before", [0, 1, 7, 500])
def test_sixteen_keys_with_one_each_are_served_within_their_share(served_before: int) -> None:
    """Ours: a key that has a thousand waiting costs the others one turn, not a thousand."""
    crowd = Crowd()
    crowd.come(1_000, "big")
    crowd.turns(served_before)
    for key in SMALL:
        crowd.come(1, key)
    first = keys(crowd.turns(1 + len(SMALL)))
    assert set(SMALL) <= set(first)
    assert first.count("big") == 1
    assert set(keys(crowd.all_turns())) == {"big"}


def test_keys_that_come_one_after_the_other_wait_for_one_turn_of_the_big_one_each() -> None:
    crowd = Crowd()
    crowd.come(1_000, "big")
    for key in SMALL:
        crowd.come(1, key)
        assert key in keys(crowd.turns(2))


def test_equal_keys_take_turns() -> None:
    crowd = Crowd()
    for key in "abc":
        crowd.come(5, key)
    assert keys(crowd.all_turns()) == list("abc" * 5)


def test_a_key_of_weight_three_gets_three_of_four_turns() -> None:
    crowd = Crowd()
    crowd.come(400, "heavy", weight=3)
    crowd.come(400, "light")
    went = keys(crowd.turns(400))
    for start in range(len(went) - 40):
        assert 29 <= went[start : start + 40].count("heavy") <= 31


def test_many_weights_get_their_shares() -> None:
    crowd, weights = Crowd(), {"one": 1, "two": 2, "five": 5, "twelve": 12}
    for key, weight in weights.items():
        crowd.come(1_000, key, weight=weight)
    went = Counter(keys(crowd.turns(50 * sum(weights.values()))))
    assert all(abs(went[key] - 50 * weight) <= 1 for key, weight in weights.items())


def test_priorities_get_sixteen_four_and_one_and_batch_goes_too() -> None:
    crowd = Crowd()
    for priority in reversed(PRIORITIES):
        crowd.come(1_000, priority, priority=priority)
    went = keys(crowd.turns(21 * 20))
    for start in range(0, len(went), 21):
        counts = Counter(went[start : start + 21])
        assert all(abs(counts[priority] - WEIGHTS[priority]) <= 1 for priority in PRIORITIES)
    assert Counter(went) == {priority: 20 * WEIGHTS[priority] for priority in PRIORITIES}


def test_when_the_last_of_a_priority_goes_the_others_still_wait() -> None:
    crowd = Crowd()
    for priority in PRIORITIES:
        crowd.come(2, priority, priority=priority)
    assert len(crowd.all_turns()) == 6
    for priority in PRIORITIES:
        crowd.come(2, priority, priority=priority)
    for ticket in list(crowd.queue)[:2]:
        assert crowd.queue.remove(ticket)
    assert len(crowd.all_turns()) == 4


def test_a_key_gains_nothing_in_one_priority_by_waiting_in_another() -> None:
    crowd = Crowd()
    crowd.come(100, "both", priority="interactive")
    crowd.come(100, "both")
    crowd.come(100, "other")
    normal = [ticket for ticket in crowd.turns(60) if ticket.priority == "normal"]
    assert abs(keys(normal).count("both") - keys(normal).count("other")) <= 1


def test_the_roles_of_a_key_share_its_turns_and_take_none_of_others() -> None:
    crowd = Crowd()
    for role in ("planner", "coder", "critic"):
        crowd.come(100, "agents", role=role)
    crowd.come(100, "alone")
    went = crowd.turns(60)
    assert keys(went).count("alone") == 30
    roles = Counter(ticket.role for ticket in went if ticket.key == "agents")
    assert roles == {"planner": 10, "coder": 10, "critic": 10}


def test_within_a_role_the_lowest_number_goes_first_whenever_it_came() -> None:
    crowd = Crowd()
    made = [crowd.ticket("a") for _ in range(50)]
    crowd.push([*made[25:], *reversed(made[:25])])
    assert crowd.all_turns() == made


def test_a_turn_in_vain_is_given_back() -> None:
    crowd = Crowd()
    crowd.come(10, "a")
    crowd.come(10, "b")
    refused = crowd.turn()
    assert refused.key == "a"
    refused.in_vain = True
    crowd.push([refused])
    assert crowd.turn() is refused
    assert keys(crowd.turns(6)) == list("bababa")


def test_a_turn_in_vain_is_given_back_once() -> None:
    """Ours: a ticket that rests and is spread anew must not be paid for each time."""
    crowd = Crowd()
    crowd.come(40, "a")
    crowd.come(40, "b")
    refused = crowd.turn()
    refused.in_vain = True
    crowd.push([refused])
    for _ in range(5):
        crowd.queue.remove(refused)
        crowd.push([refused])
    went = keys(crowd.turns(20))
    assert abs(went.count("a") - went.count("b")) <= 2


def test_a_key_that_stays_away_saves_no_turns() -> None:
    crowd = Crowd()
    crowd.come(500, "stays")
    crowd.come(1, "goes")
    crowd.turns(200)
    crowd.come(100, "goes")
    assert keys(crowd.turns(40)).count("goes") in {20, 21}


def test_a_key_that_leaves_after_each_turn_and_returns_gets_no_more_than_one_that_stays() -> None:
    """Ours: who sends one at a time is new each time, and would go first each time."""
    crowd = Crowd()
    crowd.come(500, "stays")
    crowd.come(1, "returns")
    went = []
    for _ in range(100):
        ticket = crowd.turn()
        went.append(ticket.key)
        if ticket.key == "returns":
            crowd.come(1, "returns")
    assert went.count("returns") == 50


def test_a_key_that_takes_itself_out_and_comes_back_is_forgiven_nothing() -> None:
    crowd = Crowd()
    crowd.come(500, "stays")
    mine = crowd.come(3, "returns")
    went = []
    for _ in range(100):
        went.append(crowd.turn().key)
        for ticket in mine:
            crowd.queue.remove(ticket)
        mine = crowd.come(3, "returns")
    assert went.count("returns") == 50


def test_the_memory_of_who_left_stays_small() -> None:
    crowd = Crowd()
    crowd.come(20_000, "stays")
    for number in range(5_000):
        crowd.come(1, f"passer-by {number}")
        crowd.turns(2)
    assert len(crowd.queue._root.sharers["normal"]._gone) <= 2 * GONE_MIN


# Who rests.


def test_who_rests_shares_in_nothing_until_its_moment() -> None:
    crowd = Crowd()
    late = crowd.ticket("a", not_before=5.0)
    crowd.push([late])
    assert (crowd.queue.head(4.9), crowd.queue.wakes_at()) == (None, 5.0)
    (other,) = crowd.come(1, "b")
    assert crowd.queue.head(4.9) is other
    crowd.turn()
    assert crowd.queue.head(5.0) is late
    assert crowd.queue.wakes_at() is None


def test_one_that_leaves_while_it_rests_is_gone_and_wakes_nobody() -> None:
    crowd = Crowd()
    first, second = crowd.ticket("a", not_before=5.0), crowd.ticket("a", not_before=7.0)
    crowd.push([first, second])
    assert crowd.queue.remove(first)
    assert not crowd.queue.remove(first)
    assert (len(crowd.queue), list(crowd.queue), crowd.queue.wakes_at()) == (1, [second], 7.0)
    assert crowd.queue.head(6.0) is None
    assert crowd.queue.head(7.0) is second


def test_one_that_leaves_while_it_rests_and_comes_back_rests_as_long_as_it_says_now() -> None:
    crowd = Crowd()
    ticket = crowd.ticket("a", not_before=5.0)
    crowd.push([ticket])
    crowd.queue.remove(ticket)
    ticket.not_before = 9.0
    crowd.push([ticket])
    assert (crowd.queue.head(6.0), crowd.queue.wakes_at()) == (None, 9.0)
    assert crowd.queue.head(9.0) is ticket


def test_a_spread_gives_each_its_moment_and_loses_nobody() -> None:
    crowd = Crowd(now=10.0)
    made = [crowd.ticket(f"{n % 3}", jitter=n / 10) for n in range(10)]
    crowd.push(made)
    crowd.queue.rest_all(2.0, 10.0)
    assert [ticket.not_before for ticket in made] == [10.0 + n / 10 * 2.0 for n in range(10)]
    assert len(crowd.queue) == 10
    for ticket in made:
        crowd.now = ticket.not_before
        assert crowd.turn() is ticket
        assert crowd.queue.head(crowd.now) is None


# What it costs.


def test_to_find_who_is_next_takes_three_looks_however_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    real = _Share.next

    def next_and_count(share: _Share) -> _Share:
        nonlocal looks
        looks += 1
        return real(share)

    monkeypatch.setattr(_Share, "next", next_and_count)
    crowd = Crowd()
    for key in range(20):
        for role in "ab":
            crowd.come(100, f"{key}", role=role)
    crowd.turns(1_000)
    assert looks == 3 * 1_000


def test_an_empty_queue_has_no_head_and_forgets_all() -> None:
    queue = FairQueue()
    assert (queue.head(0.0), queue.wakes_at(), len(queue), list(queue)) == (None, None, 0, [])
    stranger = Ticket(1, 100, 0.5)
    assert stranger not in queue
    assert not queue.remove(stranger)
    crowd = Crowd(queue)
    crowd.come(100, "a")
    crowd.all_turns()
    crowd.come(10, "b")
    crowd.come(10, "a")
    assert keys(crowd.turns(4)) == list("baba")
