"""Who may answer: from an asked name to candidates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.errors import NotFoundError, SettingsError
from droveway.routing.plan import Candidate, Offer, plan

DEEPSEEK = Offer(provider="deepseek", models=frozenset({"deepseek-flash", "deepseek-v4-pro"}))
OPENAI = Offer(provider="openai", models=frozenset({"gpt-6-luna", "shared"}))
ROUTER = Offer(provider="router", models=frozenset({"meta/llama-5", "shared"}))
LOCAL = Offer(provider="local", any_model=True)
OFFERS = (DEEPSEEK, OPENAI, ROUTER)
ALIASES = {"fast": ("deepseek/deepseek-flash", "gpt-6-luna"), "gpt-6-luna": ("openai/gpt-6-luna",)}


def found(asked: str, *offers: Offer) -> list[tuple[str, str]]:
    candidates = plan(asked, offers=offers or OFFERS, aliases=ALIASES)
    return [(each.provider, each.model) for each in candidates]


def test_an_alias_is_its_candidates_in_order() -> None:
    assert found("fast") == [("deepseek", "deepseek-flash"), ("openai", "gpt-6-luna")]


def test_an_alias_goes_before_a_model_of_that_name_and_does_not_go_round() -> None:
    assert found("gpt-6-luna") == [("openai", "gpt-6-luna")]


@pytest.mark.parametrize(
    ("asked", "candidate"),
    [
        ("deepseek/deepseek-flash", ("deepseek", "deepseek-flash")),
        ("deepseek/of-tomorrow", ("deepseek", "of-tomorrow")),
        ("router/meta/llama-5", ("router", "meta/llama-5")),
        ("router/a/b/c", ("router", "a/b/c")),
        ("openai//x", ("openai", "/x")),
    ],
)
def test_a_provider_may_be_named_and_the_rest_is_its_models_name(
    asked: str, candidate: tuple[str, str]
) -> None:
    assert found(asked) == [candidate]


@pytest.mark.parametrize(
    ("asked", "candidate"),
    [
        ("deepseek-v4-pro", ("deepseek", "deepseek-v4-pro")),
        ("meta/llama-5", ("router", "meta/llama-5")),
        ("shared", ("openai", "shared")),
    ],
)
def test_a_plain_name_is_the_first_provider_that_has_it(
    asked: str, candidate: tuple[str, str]
) -> None:
    assert found(asked) == [candidate]


def test_a_name_nobody_is_known_to_have_goes_to_the_first_that_takes_any() -> None:
    other = Offer(provider="other", any_model=True)
    assert found("of-tomorrow", DEEPSEEK, LOCAL, other) == [("local", "of-tomorrow")]
    assert found("meta/of-tomorrow", LOCAL) == [("local", "meta/of-tomorrow")]


def test_a_provider_known_to_have_it_goes_before_one_that_takes_any() -> None:
    assert found("deepseek-flash", LOCAL, DEEPSEEK) == [("deepseek", "deepseek-flash")]


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("deepseek-flsh", "'deepseek-flash'"),
        ("deepsek/deepseek-flash", "'deepseek-flash'"),
        ("fats", "'fast'"),
        ("meta/llama-4", "'meta/llama-5'"),
    ],
)
def test_a_name_nobody_has_is_told_the_nearest_ones(asked: str, near: str) -> None:
    with pytest.raises(NotFoundError, match=f"has the model '{asked}'; did you mean .*{near}"):
        found(asked)


@pytest.mark.parametrize("asked", ["", "zzz", "/", "deepseek/", "/deepseek"])
def test_a_name_near_to_none_is_told_what_to_do(asked: str) -> None:
    with pytest.raises(NotFoundError, match="no configured provider has the model"):
        found(asked)


def test_an_empty_name_is_nobodys_even_where_any_is_taken() -> None:
    with pytest.raises(NotFoundError):
        found("", LOCAL)


def test_an_alias_of_a_model_nobody_has_is_an_error_of_the_settings() -> None:
    aliases = {"good": ("deepseek-flash", "acme/rocket")}
    with pytest.raises(SettingsError, match=r"'good'.*'acme/rocket'.*write provider/model"):
        plan("good", offers=OFFERS, aliases=aliases)


def test_with_no_provider_at_all_nobody_answers() -> None:
    with pytest.raises(NotFoundError):
        plan("deepseek-flash", offers=(), aliases={})


@given(st.text(max_size=12))
def test_a_plan_is_never_empty_and_names_a_provider_that_is_there(asked: str) -> None:
    try:
        candidates = plan(asked, offers=(*OFFERS, LOCAL), aliases=ALIASES)
    except NotFoundError:
        assert asked == ""
        return
    assert candidates
    assert {each.provider for each in candidates} <= {"deepseek", "openai", "router", "local"}


def test_candidates_are_values() -> None:
    assert Candidate("a", "b") == Candidate("a", "b")
    assert len({Candidate("a", "b"), Candidate("a", "b")}) == 1
