"""This file knows how the options of `droveway ledger reconcile` are read."""

import re
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

import click

from droveway.engine.vendor_cells import YEARS
from droveway.engine.vendor_columns import KNOWN
from droveway.money import Money

OFFSET: Final = re.compile(r"([+-])([01][0-9]|2[0-3]):?([0-5][0-9])")


class Zone(click.ParamType[tzinfo]):
    """A time zone by its name, or as an offset from UTC."""

    name = "zone"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click gives what was typed
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tzinfo:
        """Read it."""
        if isinstance(value, tzinfo):
            return value
        offset = OFFSET.fullmatch(value)
        if offset is not None:
            east = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
            return timezone(-east if offset[1] == "-" else east)
        try:
            return ZoneInfo(value)
        except (ValueError, OSError, KeyError):
            self.fail(
                f"{value!r} is no time zone that this machine knows; write +08:00 or Asia/Shanghai",
                param,
                ctx,
            )


class LocalMoment(click.ParamType[datetime]):
    """A moment in ISO 8601; without an offset it is left without one."""

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
            at = None
        if at is None or at.year not in YEARS:
            self.fail(f"{value!r} is no moment; write it like 2026-11-23", param, ctx)
        return at


class Column(click.ParamType[tuple[str, str]]):
    """What a column of an export means, and its name."""

    name = "column"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click gives what was typed
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, str]:
        """Read it."""
        meaning, _, name = value.partition("=")
        if meaning not in KNOWN or not name.strip():
            self.fail(f"{value!r} is not MEANING=NAME with one of {', '.join(KNOWN)}", param, ctx)
        return meaning, name


class Tolerance(click.ParamType[int]):
    """An amount in whatever currency is compared, in nano-units."""

    name = "amount"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click gives what was typed
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Read it."""
        if isinstance(value, int):
            return value
        try:
            nano = Money.parse(value, "USD").nano
        except ValueError:
            nano = -1
        if nano < 0:
            self.fail(f"{value!r} is no amount; write it like 0.01", param, ctx)
        return nano
