"""This file knows the limits a caller may set, and who counts against them."""

from decimal import Decimal

import msgspec

from droveway.engine.settling import Allowance
from droveway.errors import BadRequestError
from droveway.money import Money


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds that hold however many requests run at once.

    Attributes:
        max_cost: Money that may be spent, as `Money`, or a decimal string in USD. Hard: a call
            that might cost more than is left is refused before it is sent.
        max_requests: Calls of a model that may be made, tool rounds counted one by one.
        deadline_s: Seconds that one call may take with all its rounds; for a supervisor, each
            role's call.
    """

    max_cost: Money | str | Decimal | None = None
    max_requests: int | None = None
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if self.max_requests is not None and self.max_requests < 0:
            raise BadRequestError("max_requests cannot be negative")
        if self.deadline_s is not None and self.deadline_s <= 0:
            raise BadRequestError("deadline_s must be above 0")
        self.cost()

    def cost(self) -> Money | None:
        """Return `max_cost` as money.

        Raises:
            BadRequestError: It is no amount.
        """
        if self.max_cost is None:
            return None
        if isinstance(self.max_cost, float):
            raise BadRequestError(f'max_cost is exact money: write "{self.max_cost}" in quotes')
        try:
            cost = (
                self.max_cost
                if isinstance(self.max_cost, Money)
                else Money.parse(str(self.max_cost), "USD")
            )
        except ValueError as error:
            raise BadRequestError(f"max_cost: {error}") from error
        if cost.nano < 0:
            raise BadRequestError("max_cost cannot be negative")
        return cost


def allowance_of(limits: Limits | None) -> Allowance | None:
    """Make the allowance that counts against some limits; None where there is nothing to count."""
    if limits is None or (limits.max_cost is None and limits.max_requests is None):
        return None
    return Allowance(max_cost=limits.cost(), max_requests=limits.max_requests)
