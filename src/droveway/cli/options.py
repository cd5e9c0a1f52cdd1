"""This file knows the options that several commands share, and how their values are read."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from droveway.money import Money

F = TypeVar("F", bound=Callable[..., Any])


class Moment(click.ParamType[datetime]):
    """A moment in ISO 8601; without a zone it is UTC."""

    name = "moment"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click gives what was typed
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> datetime:
        """Read it."""
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no moment; write it like 2026-11-23T10:00:00+08:00", param, ctx
            )
        return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


class Dollars(click.ParamType[Money]):
    """An amount in USD, as a decimal string."""

    name = "usd"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click gives what was typed
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Money:
        """Read it."""
        try:
            amount = value if isinstance(value, Money) else Money.parse(value, "USD")
        except ValueError:
            self.fail(f"{value!r} is no amount; write it like 0.50", param, ctx)
        if amount.nano < 0:
            self.fail("an amount to spend cannot be negative", param, ctx)
        return amount


class Currency(click.ParamType[str]):
    """A currency code."""

    name = "currency"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click gives what was typed
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        """Read it."""
        try:
            return Money.zero(str(value).upper()).currency
        except ValueError as error:
            self.fail(str(error), param, ctx)


FILE: Final = click.Path(path_type=Path)

base_url = click.option("--base-url", metavar="URL", help="Ask this server, up to and with /v1.")
api_key = click.option(
    "--api-key", metavar="KEY", help="Its key; DROVEWAY_API_KEY holds it more safely."
)
config = click.option("--config", type=FILE, metavar="FILE", help="Settings to use.")
model = click.option(
    "--model", metavar="NAME", help="Model, provider/model, alias, tier or auto (default)."
)
max_cost = click.option(
    "--max-cost", type=Dollars(), metavar="USD", help="Spend no more than this; a hard limit."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print data instead of text.")
at = click.option(
    "--at", type=Moment(), metavar="ISO-8601", help="When; now by default, UTC without a zone."
)
currency = click.option(
    "--currency", type=Currency(), default="USD", show_default=True, help="Whose price lists."
)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Make one decorator of several options, shown in this order."""
    return lambda function: reduce(lambda done, each: each(done), reversed(options), function)


provider = together(base_url, api_key, config)
