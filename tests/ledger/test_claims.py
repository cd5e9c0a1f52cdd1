"""Claims: a request is served once, however often its caller sends it."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import pytest

from books import AT, EPOCH, captured, extended, funded, released, states, usd
from droveway.errors import (
    AlreadyServedError,
    BadRequestError,
    BalanceTooLowError,
    CallerError,
    IdempotencyMismatchError,
    RequestInFlightError,
)
from droveway.ledger import Account
from droveway.ledger.claims import (
    ANSWER_BYTES_MAX,
    ANSWER_KEPT,
    CLAIM_KEPT,
    Claim,
    claim_of,
    forget,
    keep_answer,
    look,
    stake,
)
from droveway.ledger.holds import capture, note_progress, take
from droveway.money import Money
from droveway.storage import Connection, Store
from lab import run

MICROSECOND: Final = timedelta(microseconds=1)
BODY: Final = b'{"model": "m"}'
MINE: Final = claim_of("key_1", "my-own", BODY)
OTHER: Final = claim_of("key_1", "my-own", BODY + b" ")
ANSWER: Final = b'{"id": "a"}'


@pytest.fixture
def acme(store: Store) -> Account:
    return run(funded(store, "10"))


class Counter(NamedTuple):
    """Where requests are asked for, as a gateway does it."""

    store: Store
    account: Account

    async def ask(
        self, name: str, claim: Claim = MINE, *, cost: str = "1", at: datetime = AT
    ) -> None:
        """Claim a name and hold money, in one transaction."""

        def work(db: Connection) -> None:
            stake(db, claim, name, at=at)
            take(db, name, usd(cost), account_id=self.account.id, epoch_id=EPOCH, at=at)

        await self.store.write(work)

    async def answer(self, name: str, body: bytes = ANSWER, *, at: datetime = AT) -> None:
        """Charge a request and keep its answer, in one transaction."""

        def work(db: Connection) -> None:
            capture(db, name, usd("0.25"), at=at)
            keep_answer(db, name, body, at=at)

        await self.store.write(work)


@pytest.fixture
def counter(store: Store, acme: Account) -> Counter:
    return Counter(store, acme)


# What became of a request that was asked as "a", by what is said of it.
Ending = Callable[[Counter], Coroutine[Any, Any, object]]


async def _progressed(counter: Counter) -> None:
    await counter.store.write(lambda db: note_progress(db, "a", usd("0.75")))
    await released(counter.store, "a", resolved=True)


ENDS: Final[dict[str, tuple[Ending | None, type[CallerError] | None]]] = {
    "held": (None, RequestInFlightError),
    "extended": (
        lambda counter: extended(counter.store, "a", usd("1"), account=counter.account),
        RequestInFlightError,
    ),
    "captured": (lambda counter: captured(counter.store, "a", usd("0.25")), AlreadyServedError),
    "captured for nothing": (
        lambda counter: captured(counter.store, "a", usd("0")),
        AlreadyServedError,
    ),
    "resolved with a charge": (_progressed, AlreadyServedError),
    "resolved": (lambda counter: released(counter.store, "a", resolved=True), None),
    "released": (lambda counter: released(counter.store, "a"), None),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_became_of_a_request_decides_what_is_said_of_it(
    end: str, store: Store, counter: Counter
) -> None:
    """Spec: the table in claims.py, for the answer that is not kept."""
    ending, error = ENDS[end]
    run(counter.ask("a"))
    if ending is not None:
        run(ending(counter))
    with pytest.raises(IdempotencyMismatchError, match="'my-own' was used for another body"):
        look(store, OTHER, at=AT)
    with pytest.raises(IdempotencyMismatchError):
        run(counter.ask("b", OTHER))
    assert set(states(store)) == {"a"}
    if error is None:
        assert look(store, MINE, at=AT) is None
        run(counter.ask("b"))
        assert states(store)["b"] == "held"
        with pytest.raises(RequestInFlightError, match=r"is on its way \(b\)"):
            look(store, MINE, at=AT)
        return
    with pytest.raises(error):
        look(store, MINE, at=AT)
    with pytest.raises(error):
        run(counter.ask("b"))
    assert set(states(store)) == {"a"}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_became_of_it_after_a_day_a_name_is_new(
    end: str, store: Store, counter: Counter
) -> None:
    ending, error = ENDS[end]
    run(counter.ask("a"))
    if ending is not None:
        run(ending(counter))
    last = AT + CLAIM_KEPT - MICROSECOND
    for claim, expected in ((MINE, error), (OTHER, IdempotencyMismatchError)):
        if expected is not None:
            with pytest.raises(expected):
                look(store, claim, at=last)
        assert look(store, claim, at=AT + CLAIM_KEPT) is None
    run(counter.ask("b", OTHER, at=AT + CLAIM_KEPT))
    # From now on it stands for the other body, for a day of its own.
    with pytest.raises(IdempotencyMismatchError):
        look(store, MINE, at=AT + CLAIM_KEPT)
    with pytest.raises(RequestInFlightError):
        look(store, OTHER, at=AT + 2 * CLAIM_KEPT - MICROSECOND)
    assert look(store, MINE, at=AT + 2 * CLAIM_KEPT) is None


def test_what_is_said_of_a_request_that_was_served(store: Store, counter: Counter) -> None:
    run(counter.ask("a"))
    run(captured(store, "a", usd("0.25")))
    with pytest.raises(AlreadyServedError, match=r"was served as a for 0\.25 USD") as refused:
        look(store, MINE, at=AT)
    assert (refused.value.request_id, refused.value.cost) == ("a", usd("0.25"))
    assert (refused.value.status, RequestInFlightError.status) == (409, 409)
    assert IdempotencyMismatchError.status == 422


# Answers.


def test_an_answer_is_given_out_again_for_ten_minutes(store: Store, counter: Counter) -> None:
    ended = AT + timedelta(minutes=3)
    run(counter.ask("a"))
    run(counter.answer("a", at=ended))
    for at in (ended, ended + ANSWER_KEPT - MICROSECOND):
        assert look(store, MINE, at=at) == ("a", ANSWER, usd("0.25"))
        with pytest.raises(IdempotencyMismatchError):
            look(store, OTHER, at=at)
    for at in (ended + ANSWER_KEPT, AT + CLAIM_KEPT - MICROSECOND):
        with pytest.raises(AlreadyServedError):
            look(store, MINE, at=at)
    assert store.read("SELECT sum(charged_nano) FROM hold") == [(usd("0.25").nano,)]


@pytest.mark.parametrize(("more", "kept"), [(0, True), (1, False)])
def test_what_is_too_large_is_not_kept(more: int, kept: bool, counter: Counter) -> None:  # noqa: FBT001 - a parameter
    body = bytes(ANSWER_BYTES_MAX + more)
    run(counter.ask("a"))
    run(counter.answer("a", body))
    if kept:
        assert look(counter.store, MINE, at=AT) == ("a", body, usd("0.25"))
        return
    with pytest.raises(AlreadyServedError):
        look(counter.store, MINE, at=AT)


def test_the_answer_of_the_latter_request_is_given_out(store: Store, counter: Counter) -> None:
    run(counter.ask("a"))
    run(released(store, "a"))
    run(counter.ask("b"))
    run(counter.answer("b", b"second"))
    assert look(store, MINE, at=AT) == ("b", b"second", usd("0.25"))


# Who claims.


def test_names_of_two_keys_never_meet(store: Store, counter: Counter) -> None:
    theirs = claim_of("key_2", "my-own", b"theirs")
    run(counter.ask("a"))
    assert look(store, theirs, at=AT) is None
    run(counter.ask("b", theirs))
    for claim in (MINE, theirs):
        with pytest.raises(RequestInFlightError):
            look(store, claim, at=AT)


def test_of_two_that_claim_at_once_one_is_served(store: Store, counter: Counter) -> None:
    """Spec: both have looked and found nothing; the transaction decides."""

    async def race(others: Counter) -> list[Any]:
        assert look(store, MINE, at=AT) is None
        each = ((counter, others)[n % 2].ask(f"{n}", cost="0.5") for n in range(20))
        return await asyncio.gather(*each, return_exceptions=True)

    with Store(store.path) as another:
        ended = run(race(Counter(another, counter.account)))
    assert ended.count(None) == 1
    assert sum(type(each) is RequestInFlightError for each in ended) == 19
    assert list(states(store).values()) == ["held"]


def test_a_request_that_is_not_held_claims_nothing(store: Store, counter: Counter) -> None:
    with pytest.raises(BalanceTooLowError):
        run(counter.ask("a", cost="11"))
    assert look(store, OTHER, at=AT) is None
    run(counter.ask("a", OTHER))


def test_a_name_can_be_printed_and_is_short() -> None:
    for word in ("", "a\nb", "\x00", "x" * 256):
        with pytest.raises(BadRequestError, match="1 to 255 signs that can be printed"):
            claim_of("key_1", word, BODY)
    assert claim_of("key_1", "x" * 255, BODY).word == "x" * 255
    assert len(MINE.digest) == 32


# Letting go.


def test_what_is_too_old_is_let_go_a_thousand_at_once(store: Store, counter: Counter) -> None:
    many = 1_001

    def work(db: Connection) -> None:
        free = Money.zero("USD")
        for n in range(many):
            claim, name = claim_of("key_1", f"{n}", BODY), f"{n}"
            stake(db, claim, name, at=AT)
            take(db, name, free, account_id=counter.account.id, epoch_id=EPOCH, at=AT)
            capture(db, name, free, at=AT)
            keep_answer(db, name, b"", at=AT)

    def left() -> tuple[int, int]:
        query = "SELECT (SELECT count(*) FROM answer), (SELECT count(*) FROM claim)"
        ((answers, claims),) = store.read(query)
        return answers, claims

    async def forgotten(at: datetime) -> int:
        return await store.write(lambda db: forget(db, at=at))

    run(store.write(work))
    for at, expected in (
        (AT + ANSWER_KEPT - MICROSECOND, [(0, (many, many))]),
        (AT + ANSWER_KEPT, [(1_000, (1, many)), (1, (0, many)), (0, (0, many))]),
        (AT + CLAIM_KEPT - MICROSECOND, [(0, (0, many))]),
        (AT + CLAIM_KEPT, [(1_000, (0, 1)), (1, (0, 0)), (0, (0, 0))]),
    ):
        for count, kept in expected:
            assert (run(forgotten(at)), left()) == (count, kept)
    assert len(states(store)) == many
