"""This file knows where the catalog's tables lie and how one is read."""

from importlib.resources import files
from typing import TypeVar

import msgspec

Table = TypeVar("Table")


def read_table(name: str, shape: type[Table]) -> Table:
    """Read one table of the package, checked against its shape.

    Args:
        name: File name without its ending.
        shape: A msgspec struct; an unknown or missing key is an error.

    Raises:
        msgspec.ValidationError: The table does not have that shape.
    """
    raw = files("droveway.catalog").joinpath("data", f"{name}.toml").read_bytes()
    return msgspec.toml.decode(raw, type=shape)
