"""Keys: made once, looked up on every request, taken back at once."""

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from droveway.accounts import Key, KeyRing, secret
from droveway.accounts.key import key_of, row_of
from droveway.clock import StillClock
from droveway.errors import BadRequestError, InvalidKeyError
from droveway.storage import Store
from lab import run

SECONDS = 60


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "a.db") as made:
        yield made


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def ring(store: Store, clock: StillClock) -> KeyRing:
    return KeyRing(store, clock=clock)


def refusal(ring: KeyRing, plain: str) -> str:
    with pytest.raises(InvalidKeyError) as refused:
        ring.find(plain)
    assert plain.strip() not in str(refused.value) or not plain.strip()
    return str(refused.value)


def queries(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that reads from now on."""
    asked: list[str] = []
    read = store.read

    def noting(sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        asked.append(sql)
        return read(sql, parameters)

    monkeypatch.setattr(store, "read", noting)
    return asked


# The secret.


def test_a_key_is_256_bits_of_chance_with_a_readable_beginning() -> None:
    made = {secret.make() for _ in range(500)}
    assert len(made) == 500
    assert all(re.fullmatch(r"dw_[0-9A-Za-z]{49}", plain) for plain in made)
    signs = {sign for plain in made for sign in plain[3:46]}
    assert len(signs) == 62


def test_a_slip_of_the_keyboard_is_no_key() -> None:
    plain = secret.make()
    assert secret.digest_of(plain) is not None
    for place in range(3, len(plain)):
        other = "a" if plain[place] != "a" else "b"
        assert secret.digest_of(plain[:place] + other + plain[place + 1 :]) is None


@given(st.text(max_size=80))
def test_whatever_is_sent_is_no_key(text: str) -> None:
    assert secret.digest_of(text) is None


@given(st.text(alphabet="0123456789abcXYZ", min_size=49, max_size=49))
def test_what_looks_like_a_key_is_none_without_its_checksum(text: str) -> None:
    assert secret.digest_of(f"dw_{text}") is None


# Looking up.


def test_a_key_is_found_by_its_secret(ring: KeyRing) -> None:
    key, plain = run(ring.add("alice", models=["a"], rpm=5, tags={"team": "x"}))
    assert ring.find(plain) == key == ring.show("alice") == ring.show(key.id)
    assert (key.name, key.models, key.rpm, key.tags) == ("alice", ("a",), 5, {"team": "x"})
    assert plain.startswith(key.shown)
    assert len(key.shown) < 12


@pytest.mark.parametrize("around", ["{} ", " {}", "\t{}\r\n", "\u00a0{}"])
def test_stray_spaces_are_tolerated(around: str, ring: KeyRing) -> None:
    key, plain = run(ring.add("alice"))
    assert ring.find(around.format(plain)) == key


def test_unknown_and_malformed_are_refused_in_the_same_words(ring: KeyRing) -> None:
    """Spec: the answer tells a guesser nothing."""
    words = {refusal(ring, plain) for plain in (secret.make(), "dw_x", "sk-1", "", "é" * 52)}
    assert len(words) == 1
    assert InvalidKeyError.status == 401
    assert InvalidKeyError.code == "invalid_api_key"


def test_only_a_digest_is_kept(ring: KeyRing, store: Store) -> None:
    key, plain = run(ring.add("alice"))
    store.close()
    kept = store.path.read_bytes()
    assert key.shown.encode() in kept
    assert plain.encode() not in kept
    assert plain[len(key.shown) :].encode() not in kept


def test_a_second_look_up_asks_the_store_for_no_row(
    ring: KeyRing, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain = run(ring.add("alice"))
    ring.find(plain)
    asked = queries(store, monkeypatch)
    ring.find(plain)
    assert asked == []


def test_a_commit_that_touches_no_key_keeps_what_is_known(
    ring: KeyRing, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours: the journal commits 20 times a second."""
    _, plain = run(ring.add("alice"))
    ring.find(plain)
    asked = queries(store, monkeypatch)
    run(store.write(lambda db: db.run("UPDATE mark SET number = 9 WHERE name = 'rolled_up'")))
    ring.find(plain)
    assert len(asked) == 1
    assert "FROM mark" in asked[0]


def test_a_look_up_that_was_overtaken_is_not_remembered(
    ring: KeyRing, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours: a row read before a revocation, put down after it, must not open anything."""
    _, plain = run(ring.add("alice"))
    read = store.read

    def overtaken(sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        rows = read(sql, parameters)
        if "digest = ?" in sql:
            monkeypatch.undo()
            run(ring.revoke("alice"))
            refusal(ring, plain)
        return rows

    monkeypatch.setattr(store, "read", overtaken)
    ring.find(plain)
    refusal(ring, plain)


# Taking back.


def test_a_revoked_key_opens_nothing_at_once(ring: KeyRing, clock: StillClock) -> None:
    key, plain = run(ring.add("alice"))
    ring.find(plain)
    assert run(ring.revoke(key.id)).revoked_at == clock.now()
    assert "revoked" in refusal(ring, plain)
    with pytest.raises(BadRequestError, match="revoked already"):
        run(ring.revoke("alice"))
    with pytest.raises(BadRequestError, match="make a new one"):
        run(ring.rotate("alice"))


REVOKE = """
import asyncio, sys
from pathlib import Path
from droveway.accounts import KeyRing
from droveway.storage import Store
with Store(Path(sys.argv[1])) as store:
    asyncio.run(getattr(KeyRing(store), sys.argv[2])("alice"))
"""


@pytest.mark.parametrize("verb", ["revoke", "rotate"])
def test_another_process_takes_effect_on_the_next_look_up(
    verb: str, ring: KeyRing, store: Store
) -> None:
    """Spec: revocation takes effect on the next request in every worker."""
    _, plain = run(ring.add("alice"))
    ring.find(plain)
    subprocess.run(
        [sys.executable, "-c", REVOKE, str(store.path), verb], check=True, timeout=SECONDS
    )
    refusal(ring, plain)


def test_a_change_behind_our_back_is_seen_too(ring: KeyRing, store: Store) -> None:
    """Ours: the tables themselves keep the mark, whoever changes them."""
    _, plain = run(ring.add("alice"))
    assert ring.find(plain).rpm is None
    run(store.write(lambda db: db.run("UPDATE key SET rpm = 7")))
    assert ring.find(plain).rpm == 7
    run(store.write(lambda db: db.run("DELETE FROM key")))
    refusal(ring, plain)


def test_rotating_gives_a_new_secret_to_the_same_key(ring: KeyRing) -> None:
    key, old = run(ring.add("alice", tpm=9))
    ring.find(old)
    rotated, new = run(ring.rotate("alice"))
    assert new != old
    refusal(ring, old)
    assert ring.find(new) == rotated
    assert (rotated.id, rotated.tpm) == (key.id, 9)
    assert new.startswith(rotated.shown)


def test_a_key_expires_to_the_moment(ring: KeyRing, clock: StillClock) -> None:
    end = clock.now() + timedelta(seconds=10)
    key, plain = run(ring.add("alice", expires_at=end))

    async def pass_time() -> None:
        await clock.advance(9)
        assert ring.find(plain) == key
        await clock.advance(1)

    run(pass_time())
    assert "expired" in refusal(ring, plain)


# Names and lists.


def test_a_name_is_free_again_when_its_key_is_revoked(ring: KeyRing) -> None:
    first, _ = run(ring.add("alice"))
    with pytest.raises(BadRequestError, match="in use"):
        run(ring.add(" alice "))
    run(ring.revoke("alice"))
    second, plain = run(ring.add("alice"))
    assert ring.show("alice") == second == ring.find(plain)
    assert ring.show(first.id).revoked_at is not None
    assert [key.id for key in ring.list()] == sorted([first.id, second.id])


def test_an_unknown_name_is_said(ring: KeyRing) -> None:
    for work in (ring.revoke, ring.rotate):
        with pytest.raises(BadRequestError, match="no key 'nobody'"):
            run(work("nobody"))
    with pytest.raises(BadRequestError, match="keys list"):
        ring.show("' OR 1=1 --")


# What a key is made with.


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"rmp": 5}, "rmp"),
        ({"rpm": 0}, "rpm must be at least 1"),
        ({"tpm": -1}, "tpm must be at least 1"),
        ({"concurrency": 2**63}, "concurrency must be at least 1"),
        ({"rpm": True}, "got `bool`"),
        ({"rpm": "5"}, "got `str`"),
        ({"models": []}, "models is empty"),
        ({"models": ["a", ""]}, "words that can be printed"),
        ({"models": "a"}, "got `str`"),
        ({"tags": {"a": "b\nc"}}, "words that can be printed"),
        ({"tags": {"a": "\udc80"}}, "words that can be printed"),
        ({"tags": {"a": 1}}, "got `int`"),
        ({"expires_at": "2027-01-01T00:00:00"}, "needs a time zone"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "after 9998"),
        ({"expires_at": "soon"}, "Invalid"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "is past already"),
    ],
)
def test_a_term_that_cannot_be_used_is_refused(
    terms: dict[str, Any], said: str, ring: KeyRing
) -> None:
    with pytest.raises(BadRequestError) as refused:
        run(ring.add("alice", **terms))
    assert said in str(refused.value)
    assert ring.list() == ()


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101, "\udc80"])
def test_a_name_that_cannot_be_shown_is_refused(name: str, ring: KeyRing) -> None:
    with pytest.raises(BadRequestError, match="no name for a key"):
        run(ring.add(name))


MOMENTS = st.datetimes(timezones=st.just(UTC))
COUNTS = st.none() | st.integers(1, 2**63 - 1)
KEYS = st.builds(
    Key,
    id=st.text(),
    name=st.text(),
    shown=st.text(),
    models=st.none() | st.lists(st.text()).map(tuple),
    expires_at=st.none() | MOMENTS,
    rpm=COUNTS,
    tpm=COUNTS,
    concurrency=COUNTS,
    tags=st.dictionaries(st.text(), st.text()),
    created_at=MOMENTS,
    revoked_at=st.none() | MOMENTS,
)


@given(KEYS)
@settings(max_examples=200)
def test_a_key_comes_back_from_its_row_as_it_was(key: Key) -> None:
    assert key_of(row_of(key)) == key
