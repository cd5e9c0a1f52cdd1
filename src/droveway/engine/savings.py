"""This file knows two questions people ask before they move: which model, and what it saves."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from droveway.catalog.comparison import Savings
from droveway.catalog.comparison import monthly_savings as savings_at
from droveway.chat import Message
from droveway.clock import SystemClock
from droveway.routing.tiers import tier_of
from droveway.settings import RoutingSettings, Settings


def route_to_model(
    messages: Sequence[Message], complexity: str = "auto", *, settings: Settings | None = None
) -> str:
    """Return the model that a conversation of that complexity is for.

    Args:
        messages: The conversation; list-shaped content counts by its text.
        complexity: simple, moderate, complex, or "auto" for the keyword rule, which yields
            moderate or complex and is, measured, no better than chance.
        settings: Where `[routing]` names the model of each tier; the defaults without it.

    Raises:
        BadRequestError: There is no such complexity.
    """
    routing = RoutingSettings() if settings is None else settings.routing
    model: str = getattr(routing, tier_of(messages, complexity))
    return model


def monthly_savings(
    current_model: str,
    monthly_tokens: int,
    new_model: str = "deepseek-chat",
    *,
    mode: Literal["split", "flat_output"] = "split",
    at: datetime | None = None,
) -> Savings:
    """Work out what moving a month's tokens from one model to another saves.

    Args:
        current_model: The exact name of the model now.
        monthly_tokens: Tokens of a month, of all classes together.
        new_model: The exact name of the model to move to.
        mode: "split" divides the tokens into fresh input, cached input and output and says how;
            "flat_output" prices all of them as output, which overstates what is saved.
        at: The moment whose prices hold, UTC; now without it.

    Returns:
        Both costs and the difference as exact amounts, the percentage, and what was assumed.

    Raises:
        UnpricedModelError: A model is not in the price book; it is never priced as another.
    """
    return savings_at(
        current_model, monthly_tokens, new_model, mode=mode, at=at or SystemClock().now()
    )
