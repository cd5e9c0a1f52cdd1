"""This file knows which model a conversation is for, by its complexity."""

from droveway.agents.turns import Turns, conversation_of
from droveway.routing.tiers import tier_of
from droveway.settings import RoutingSettings, Settings


def route_to_model(
    messages: Turns, complexity: str = "auto", *, settings: Settings | None = None
) -> str:
    """Return the model that a conversation of that complexity is for.

    Args:
        messages: Text, or a conversation; list-shaped content counts by its text.
        complexity: simple, moderate, complex, or "auto" for the keyword rule, which yields
            moderate or complex and is, measured, no better than chance.
        settings: Where `[routing]` names the model of each tier; the defaults without it.

    Raises:
        BadRequestError: There is no such complexity, or the messages cannot be read.
    """
    routing = RoutingSettings() if settings is None else settings.routing
    model: str = getattr(routing, tier_of(conversation_of(messages, None), complexity))
    return model
