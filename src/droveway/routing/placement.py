"""This file knows which of several equal accounts a conversation goes to, and always goes to.

A vendor's prompt cache belongs to an account: a conversation that changes it pays for its whole
input anew. So every conversation has an order of its own in which it likes the accounts, by
weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): of many conversations each account
gets its share, and where one account comes or goes only those move that have to.
"""

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b

from droveway.routing.plan import Candidate

# Of whom none is better than the others, each with its weight.
Equals = tuple[tuple[Candidate, float], ...]


class Planned:
    """Who may answer to a name, in groups of equals, best first.

    Args:
        groups: As `equals` returns them.

    Attributes:
        candidates: All of them, in the order of the settings.
        has_equals: Whether any group has more than one.
    """

    def __init__(self, groups: Sequence[Equals]) -> None:
        self.groups = groups
        self.candidates = tuple(each for group in groups for each, _ in group)
        self.has_equals = len(self.candidates) > len(groups)


def equals(
    plan: Sequence[Candidate],
    weights: Sequence[int],
    weights_of: Callable[[Candidate], Sequence[int]],
) -> tuple[Equals, ...]:
    """Return the groups of a plan, best first.

    Args:
        plan: Who may answer, best first, their accounts not looked at.
        weights: Where they are given all of the plan are equals; else each has only the further
            accounts of its provider beside it.
        weights_of: Returns the weight of each account of a candidate's provider.
    """
    groups = []
    for each, share in zip(plan, weights or [1] * len(plan), strict=True):
        of_accounts = weights_of(each)
        groups.append(
            tuple(
                (each._replace(account=account), share * weight / sum(of_accounts))
                for account, weight in enumerate(of_accounts)
            )
        )
    return (tuple(one for group in groups for one in group),) if weights else tuple(groups)


def placed(groups: Sequence[Equals], conversation: bytes) -> tuple[Candidate, ...]:
    """Return who may answer, as a conversation likes them within each group, best first."""
    return tuple(
        candidate
        for group in groups
        for candidate, _ in sorted(group, key=lambda each: -_score(conversation, *each))
    )


def _score(conversation: bytes, candidate: Candidate, weight: float) -> float:
    drawn = blake2b(candidate.name.encode(), digest_size=8, key=conversation[:64]).digest()
    # In (0, 1): neither end has a logarithm that can be divided by.
    chance = (int.from_bytes(drawn, "big") + 0.5) / 2**64
    return -weight / math.log(chance)
