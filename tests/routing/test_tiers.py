"""The keyword rule: what makes a conversation complex, exactly."""

from itertools import combinations

import pytest

from droveway.chat import Message
from droveway.errors import BadRequestError
from droveway.routing.tiers import HARD_WORDS, TIERS, tier_of


def asked(*texts: str) -> list[Message]:
    return [Message(role="user", content=text) for text in texts]


@pytest.mark.parametrize(
    ("texts", "tier"),
    [
        ((), "moderate"),
        (("",), "moderate"),
        (("a" * 2000,), "moderate"),
        (("a" * 2001,), "complex"),
        (("a" * 1000, "b" * 1000), "moderate"),
        (("a" * 1000, "b" * 1001), "complex"),
        (("你" * 2000,), "moderate"),
        (("你" * 2001,), "complex"),
    ],
)
def test_a_text_is_long_above_2000_characters(texts: tuple[str, ...], tier: str) -> None:
    """Spec: over 2,000 characters over all messages; what joins them is not counted."""
    assert tier_of(asked(*texts)) == tier


@pytest.mark.parametrize("count", range(5))
def test_more_than_two_of_the_four_words_make_it_complex(count: int) -> None:
    for words in combinations(HARD_WORDS, count):
        assert tier_of(asked(" ".join(words))) == ("complex" if count > 2 else "moderate")
        assert tier_of(asked(*words)) == ("complex" if count > 2 else "moderate")


def test_a_word_counts_once_however_often_it_stands_there() -> None:
    assert tier_of(asked("analyze " * 20 + "compare " * 20)) == "moderate"


@pytest.mark.parametrize("text", ["ANALYZE Compare sYnThEsIzE", "Analyze, compare; evaluate!"])
def test_words_count_in_any_case(text: str) -> None:
    assert tier_of(asked(text)) == "complex"


def test_a_word_is_not_made_of_two_messages() -> None:
    assert tier_of(asked("analyze compare synthe", "size")) == "moderate"


def test_content_in_parts_counts_by_its_text() -> None:
    """Ours: the length of a list is not the length of what stands in it."""
    image = {"type": "image_url", "image_url": {"url": "data:," + "a" * 5000}}
    short = Message(role="user", content=[image, {"type": "text", "text": "analyze compare"}])
    long = Message(role="user", content=[{"type": "text", "text": "a" * 2001}, image])
    hard = Message(role="user", content=[{"type": "text", "text": word} for word in HARD_WORDS[:3]])
    assert [tier_of([each]) for each in (short, long, hard)] == ["moderate", "complex", "complex"]


def test_turns_without_text_count_for_nothing() -> None:
    assert tier_of([Message(role="assistant", content=None)]) == "moderate"


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_that_is_named_is_taken(tier: str) -> None:
    assert tier_of(asked("analyze compare synthesize"), tier) == tier
    assert tier_of(asked("a"), tier) == tier


@pytest.mark.parametrize("complexity", ["", "hard", "Auto", "SIMPLE", "simple "])
def test_an_unknown_complexity_is_refused_with_the_known_ones(complexity: str) -> None:
    with pytest.raises(BadRequestError, match="use auto, simple, moderate, complex"):
        tier_of(asked("a"), complexity)
