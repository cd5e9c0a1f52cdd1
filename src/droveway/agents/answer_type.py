"""This file knows the type of an agent's answers: str, unless an `output_type` says otherwise."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Checkers ship these stubs; at run time nothing needs the default (PEP 696, Python 3.13).
    from typing_extensions import TypeVar

    T = TypeVar("T", default=str)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["T"]
