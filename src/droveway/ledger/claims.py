"""This file knows how a request is served once, however often its caller sends it.

Theory of operation
-------------------
A caller names a request (`Idempotency-Key`). The name is claimed in the transaction that takes
the hold, so what became of the request is what became of its hold, and is kept nowhere else:

    hold                       sent again with the same body         with another body
    held                       409 request_in_flight                 422 idempotency_mismatch
    captured, answer kept      the same answer, charged once         422
    captured, no answer kept   409 already_served                    422
    resolved with a charge     409 already_served                    422
    released, resolved         served as if it were new              422
    older than 24 hours        served as if it were new              served as if it were new

Whole answers of up to 256 KiB are kept for 10 minutes; a stream is never told again.
"""

from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from droveway.errors import (
    AlreadyServedError,
    BadRequestError,
    IdempotencyMismatchError,
    RequestInFlightError,
)
from droveway.ledger import statements
from droveway.money import Money
from droveway.storage import Connection, Store
from droveway.storage.moments import micros

CLAIM_KEPT: Final = timedelta(hours=24)
ANSWER_KEPT: Final = timedelta(minutes=10)
ANSWER_BYTES_MAX: Final = 256 * 1024
_SIGNS_MAX: Final = 255
_FORGET_AT_ONCE: Final = 1_000


class Claim(NamedTuple):
    """A caller's own name for a request.

    Attributes:
        key_id: Whose; two keys never meet.
        word: The name.
        digest: BLAKE2b of the body, 32 bytes.
    """

    key_id: str
    word: str
    digest: bytes


class Replay(NamedTuple):
    """The answer that a request got when it was served.

    Attributes:
        request_id: Which one it was.
        body: The answer's bytes.
        cost: What it was charged.
    """

    request_id: str
    body: bytes
    cost: Money


def claim_of(key_id: str, word: str, body: bytes) -> Claim:
    """Read a claim.

    Raises:
        BadRequestError: The name is empty, longer than 255 signs, or holds control signs.
    """
    if not word or len(word) > _SIGNS_MAX or not word.isprintable():
        raise BadRequestError("Idempotency-Key must be 1 to 255 signs that can be printed")
    return Claim(key_id, word, blake2b(body, digest_size=32).digest())


def look(store: Store, claim: Claim, *, at: datetime) -> Replay | None:
    """Look whether a claimed request was served before.

    Returns:
        Its answer, where that is still kept; None where it shall be served now.

    Raises:
        RequestInFlightError: It is on its way.
        AlreadyServedError: It was served, and its answer is not kept.
        IdempotencyMismatchError: The name stands for another body.
    """
    rows = store.read(statements.CLAIM, (claim.key_id, claim.word, micros(at - CLAIM_KEPT)))
    if not rows:
        return None
    request_id, charged = _judge(claim, rows[0])
    if charged is None:
        return None
    kept = store.read(statements.ANSWER, (request_id, micros(at - ANSWER_KEPT)))
    if not kept:
        raise _served(request_id, charged)
    return Replay(request_id, kept[0][0], charged)


def stake(db: Connection, claim: Claim, request_id: str, *, at: datetime) -> None:
    """Claim a name for a request, in the transaction that takes its hold.

    Raises:
        RequestInFlightError: Another request has it, and is on its way.
        AlreadyServedError: Another request had it, and was served.
        IdempotencyMismatchError: The name stands for another body.
    """
    rows = db.rows(statements.CLAIM, (claim.key_id, claim.word, micros(at - CLAIM_KEPT)))
    if rows:
        other, charged = _judge(claim, rows[0])
        if charged is not None:
            raise _served(other, charged)
    db.run(statements.STAKE, (*claim, request_id, micros(at)))


def keep_answer(db: Connection, request_id: str, body: bytes, *, at: datetime) -> None:
    """Keep the whole answer of a claimed request, in the transaction that settles it."""
    if len(body) <= ANSWER_BYTES_MAX:
        db.run(statements.KEEP_ANSWER, (request_id, micros(at), body))


def forget(db: Connection, *, at: datetime) -> int:
    """Let go of answers and claims that are too old, a thousand at once; return how many."""
    answers = db.run(statements.FORGET_ANSWERS, (micros(at - ANSWER_KEPT), _FORGET_AT_ONCE))
    return answers + db.run(statements.FORGET_CLAIMS, (micros(at - CLAIM_KEPT), _FORGET_AT_ONCE))


def _judge(claim: Claim, row: tuple[Any, ...]) -> tuple[str, Money | None]:
    """Return whose the claim is, and what that was charged; None where it was not served."""
    digest, request_id, state, charged, currency = row
    if digest != claim.digest:
        raise IdempotencyMismatchError(
            f"the Idempotency-Key {claim.word!r} was used for another body within 24 hours; use "
            "a new one for a new request"
        )
    if state == "held":
        raise RequestInFlightError(
            f"the request with the Idempotency-Key {claim.word!r} is on its way ({request_id}); "
            "ask again when it has ended"
        )
    return request_id, None if charged is None else Money(charged, currency)


def _served(request_id: str, cost: Money) -> AlreadyServedError:
    return AlreadyServedError(
        f"this request was served as {request_id} for {cost}, and its answer is not kept; use a "
        "new Idempotency-Key to be served, and charged, again",
        request_id=request_id,
        cost=cost,
    )
