"""This file knows a request that its caller has named: it is served once, and told again."""

from typing import Final

from droveway.engine.till import Tills
from droveway.gateway.visit import Visit
from droveway.ledger.claims import Claim, claim_of, look

NAME: Final = b"idempotency-key"


def claim_of_visit(visit: Visit, key_id: str) -> Claim | None:
    """Return the caller's own name for a request; None where there is none.

    Raises:
        BadRequestError: It cannot be used.
    """
    word = visit.header(NAME)
    return None if word is None else claim_of(key_id, word.decode("latin-1"), visit.body)


def told_again(tills: Tills, visit: Visit, claim: Claim) -> bool:
    """Answer a request that was served before, as it was answered then.

    Returns:
        Whether it was answered.

    Raises:
        RequestInFlightError: It is on its way.
        AlreadyServedError: It was served, and its answer is not kept.
        IdempotencyMismatchError: The name is that of another request.
    """
    replay = look(tills.store, claim, at=tills.clock.now())
    if replay is None:
        return False
    name = replay.request_id.encode()
    headers = (
        (b"x-droveway-request-id", name),
        (b"x-request-id", name),
        (b"x-droveway-replayed", b"true"),
        (b"x-droveway-cost", replay.cost.decimal().encode()),
    )
    visit.respond(200, replay.body, headers=headers)
    return True
