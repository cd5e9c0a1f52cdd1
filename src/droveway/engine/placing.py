"""This file knows which model a role's request is for while the role moves to another one.

By the hash alone a conversation that has begun with the old model would change it as soon as the
share grows beyond its number. So those are remembered for a day: up to a bound in the process that
serves them, and in the journal, which all processes of a store share and which outlives them. What
opens anew, and what is not remembered, goes by the hash. Only the old ones: a share that is made
smaller is a brake, and works at once.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, NamedTuple

from droveway.clock import Clock
from droveway.engine.inquiry import Inquiry
from droveway.engine.journal import Journal
from droveway.engine.terms import Terms
from droveway.routing.conversation import goes_on, named_conversation, opened_conversation
from droveway.routing.rollout import Arm, Rollout, arm_of
from droveway.settings import RolloutSettings

# About 10 MB.
REMEMBERED_MAX: Final = 50_000
REMEMBERED_S: Final = 86_400.0
_Key = tuple[str, bytes]


class Placed(NamedTuple):
    """Where a request of a role that moves belongs.

    Attributes:
        arm: The side of the move.
        model: The model to be asked for.
        conversation: By what the conversation is known again, among all of all roles.
    """

    arm: Arm
    model: str
    conversation: bytes


class Placing:
    """Decides for each conversation of a role that moves, and for all its requests alike.

    Args:
        told: The moves, by role.
        clock: Where time comes from.
        journal: Where all processes write down on which side a conversation was.
        before: Whose conversations go on here: the placing of the settings before.

    Attributes:
        began_old: Since when conversations are known that have begun with the old model.
    """

    def __init__(
        self,
        told: Mapping[str, RolloutSettings],
        *,
        clock: Clock,
        journal: Journal,
        before: "Placing | None" = None,
    ) -> None:
        self._rollouts = {
            role: Rollout(role=role, to=each.to, share=each.share) for role, each in told.items()
        }
        self._clock = clock
        self._journal = journal
        self.began_old: dict[_Key, float] = {} if before is None else before.began_old

    @property
    def moves_roles(self) -> bool:
        """Whether there is any role that moves."""
        return bool(self._rollouts)

    def place(self, request: Inquiry, terms: Terms) -> Placed | None:
        """Return where a request belongs; None where nothing moves its role.

        Embeddings never move: vectors of two models cannot be compared.

        Raises:
            BadRequestError: Its messages cannot be read.
        """
        if not self._rollouts or not request.endpoint.writes:
            return None
        rollout = self._rollouts.get(terms.tags.get("role", ""))
        if rollout is None:
            return None
        conversation = conversation_of(request, terms, role=rollout.role)
        key = (rollout.role, conversation)
        known_by = rollout.role.encode() + b"\0" + conversation
        if arm_of(rollout, conversation) == "old":
            self._remember(key)
            return Placed("old", request.model, known_by)
        if goes_on(request.messages()) and (self._has_begun_old(key) or self._was_old(known_by)):
            self._remember(key)
            return Placed("old", request.model, known_by)
        self.began_old.pop(key, None)
        return Placed("new", rollout.to, known_by)

    def _was_old(self, known_by: bytes) -> bool:
        since = self._clock.now() - timedelta(seconds=REMEMBERED_S)
        return self._journal.last_arm(known_by, since=since) == "old"

    def _remember(self, key: _Key) -> None:
        if self._has_begun_old(key):
            return
        self.began_old.pop(key, None)
        self.began_old[key] = self._clock.monotonic()
        if len(self.began_old) > REMEMBERED_MAX:
            del self.began_old[next(iter(self.began_old))]

    def _has_begun_old(self, key: _Key) -> bool:
        since = self.began_old.get(key)
        return since is not None and self._clock.monotonic() - since < REMEMBERED_S


def conversation_of(request: Inquiry, terms: Terms, *, role: str) -> bytes:
    """Return by what a conversation is known again: its name, or how it opened.

    Raises:
        BadRequestError: Its messages cannot be read.
    """
    if terms.conversation:
        return named_conversation(terms.conversation, key_id=terms.key_id)
    return opened_conversation(request.messages(), key_id=terms.key_id, role=role)
