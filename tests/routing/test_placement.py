"""Which of several equals a conversation goes to: always the same, and each gets its share."""

from collections import Counter
from collections.abc import Sequence

from droveway.routing.placement import Planned, equals, placed
from droveway.routing.plan import Candidate

CONVERSATIONS = [number.to_bytes(16, "big") for number in range(6_000)]


def accounts(*weights: int) -> tuple[tuple[tuple[Candidate, float], ...], ...]:
    return equals([Candidate("vendor", "m")], (), lambda _: weights)


def first(groups: Sequence[tuple[tuple[Candidate, float], ...]]) -> dict[bytes, Candidate]:
    return {each: placed(groups, each)[0] for each in CONVERSATIONS}


def test_a_conversation_goes_to_the_same_account_each_time() -> None:
    assert first(accounts(1, 1, 1)) == first(accounts(1, 1, 1))


def test_each_account_gets_its_share_by_weight() -> None:
    counts = Counter(each.account for each in first(accounts(3, 1, 2)).values())
    for account, share in enumerate((3, 1, 2)):
        assert 0.93 < counts[account] / (1_000 * share) < 1.07


def test_an_account_that_is_added_takes_only_its_own_share() -> None:
    before, after = first(accounts(1, 1)), first(accounts(1, 1, 1))
    moved = [each for each in CONVERSATIONS if before[each] != after[each]]
    assert all(after[each].account == 2 for each in moved)
    assert 0.28 < len(moved) / len(CONVERSATIONS) < 0.39


def test_all_of_a_group_may_answer_and_better_groups_come_first() -> None:
    plan = [Candidate("a", "m"), Candidate("b", "m")]
    groups = equals(plan, (), lambda each: (1, 1) if each.provider == "a" else (1,))
    for each in CONVERSATIONS[:50]:
        order = placed(groups, each)
        assert {one.provider for one in order[:2]} == {"a"}
        assert order[2] == Candidate("b", "m")


def test_weighted_candidates_are_all_equals() -> None:
    plan = [Candidate("a", "m"), Candidate("b", "m")]
    groups = equals(plan, (9, 1), lambda each: (1, 1) if each.provider == "a" else (1,))
    assert len(groups) == 1
    counts = Counter(each.provider for each in first(groups).values())
    assert 0.085 < counts["b"] / len(CONVERSATIONS) < 0.115


def test_where_nobody_has_an_equal_nothing_is_to_be_chosen() -> None:
    assert not Planned(accounts(7)).has_equals
    assert Planned(accounts(1, 1)).has_equals
    assert Candidate("vendor", "m", 1).name == "vendor#2/m"
