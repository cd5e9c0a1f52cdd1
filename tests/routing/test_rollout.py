"""Phased roll-out: who has moved, by a number that each conversation draws once."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.chat import Content, Message, Role
from droveway.routing.conversation import goes_on, named_conversation, opened_conversation
from droveway.routing.rollout import WHOLE, Rollout, arm_of
from droveway.settings import RolloutSettings

MANY = 100_000
shares = st.integers(0, WHOLE)


def move(share: int, role: str = "critic") -> Rollout:
    return Rollout(role=role, to="m", share=share)


def moved(percent: int | str, role: str = "critic") -> list[bool]:
    share = RolloutSettings(to="m", percent=percent).share
    rollout = move(share, role)
    return [arm_of(rollout, b"%d" % each) == "new" for each in range(MANY)]


# Arms.


@given(st.text(), st.binary(), st.tuples(shares, shares))
def test_a_share_that_grows_moves_nobody_back(
    role: str, conversation: bytes, both: tuple[int, int]
) -> None:
    small, large = sorted(both)
    if arm_of(move(small, role), conversation) == "new":
        assert arm_of(move(large, role), conversation) == "new"


@given(st.text(), st.binary())
def test_nobody_has_moved_at_nothing_and_everybody_at_all(role: str, conversation: bytes) -> None:
    assert arm_of(move(0, role), conversation) == "old"
    assert arm_of(move(WHOLE, role), conversation) == "new"


def test_an_arm_is_the_same_in_every_process_and_release() -> None:
    """Ours: a hash that changes would move half of all conversations at once."""
    arms = [arm_of(move(WHOLE // 2), b"%d" % each) for each in range(12)]
    assert "".join(arm[0] for arm in arms) == "oonononoonnn"


@pytest.mark.parametrize("percent", ["0.01", "0.25", 1, 5, "12.5", 50, 99])
def test_the_share_of_many_conversations_is_the_percentage(percent: int | str) -> None:
    """Within four standard deviations; the numbers are drawn by a hash, so it never differs."""
    share = RolloutSettings(to="m", percent=percent).share / WHOLE
    deviation = (MANY * share * (1 - share)) ** 0.5
    assert abs(sum(moved(percent)) - MANY * share) < 4 * deviation


def test_roles_move_independently_of_each_other() -> None:
    both = sum(
        one and other for one, other in zip(moved(50, "critic"), moved(50, "writer"), strict=True)
    )
    assert abs(both - MANY / 4) < 4 * (MANY * 3 / 16) ** 0.5


# Conversations.

turns = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        content=st.text(max_size=5) | st.none(),
    ),
    max_size=6,
)


def opened(messages: Sequence[Message], key_id: str | None = "k", role: str = "critic") -> bytes:
    return opened_conversation(messages, key_id=key_id, role=role)


def says(role: Role, content: Content) -> Message:
    return Message(role=role, content=content)


OPENING = (says("system", "Be brief."), says("user", "Hello."))


@given(turns)
def test_a_conversation_stays_the_same_while_it_grows(later: list[Message]) -> None:
    assert opened([*OPENING, *later]) == opened(OPENING)


@pytest.mark.parametrize(
    "other",
    [
        (says("user", "Hello."),),
        (says("system", "Be long."), OPENING[1]),
        (OPENING[0], says("user", "Bye.")),
        (says("system", "Be brief.Hello."), says("user", "")),
        (OPENING[0], says("user", [{"type": "text", "text": "Hello."}])),
    ],
)
def test_another_prompt_or_first_message_is_another_conversation(
    other: tuple[Message, ...],
) -> None:
    assert opened(other) != opened(OPENING)


def test_a_greeting_before_the_first_message_makes_no_difference() -> None:
    assert opened([OPENING[0], says("assistant", "Welcome."), OPENING[1]]) == opened(OPENING)


@pytest.mark.parametrize("messages", [(), OPENING[:1]])
def test_a_conversation_may_be_without_a_user(messages: tuple[Message, ...]) -> None:
    assert opened(messages) == opened(messages) != opened(OPENING)


def test_another_key_or_role_is_another_conversation() -> None:
    found = {opened(OPENING), opened(OPENING, "l"), opened(OPENING, None)}
    found |= {opened(OPENING, role="writer")}
    found |= {named_conversation("a", key_id=key) for key in ("k", "l", None)}
    assert len(found) == 7


def test_the_order_of_a_parts_fields_makes_no_difference() -> None:
    fields = [("type", "text"), ("text", "Hello."), ("more", {"a": 1, "b": 2})]
    shuffled = random.Random(1).sample(fields, 3)
    shuffled[[name for name, _ in shuffled].index("more")] = ("more", {"b": 2, "a": 1})
    assert opened([says("user", [dict(fields)])]) == opened([says("user", [dict(shuffled)])])


def test_only_what_was_answered_before_goes_on() -> None:
    assert not goes_on(OPENING)
    assert goes_on([*OPENING, says("assistant", "Hi."), says("user", "And?")])
