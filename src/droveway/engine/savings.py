"""This file knows the question people ask before they move: what it saves."""

from datetime import datetime
from typing import Literal

from droveway.catalog.comparison import Savings
from droveway.catalog.comparison import monthly_savings as savings_at
from droveway.clock import SystemClock


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
