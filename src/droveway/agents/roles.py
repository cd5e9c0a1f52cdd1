"""This file knows the seventeen roles, how users replace them, and which role a query is for."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from droveway.errors import SettingsError, UnknownRoleError

RELEVANT_ROLES: Final = 3


class Role(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an agent is for.

    Attributes:
        title: For people.
        summary: One line: what it is asked for.
        keywords: Words by which a query is matched to it.
        instructions: Its system prompt.
        model: Its model; None takes the supervisor's.
    """

    title: str
    summary: str = ""
    keywords: tuple[str, ...] = ()
    instructions: str
    model: str | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    roles: dict[str, Role]


@cache
def built_in_roles() -> Mapping[str, Role]:
    """Return the seventeen roles that come with the package, in their order."""
    text = files("droveway.agents").joinpath("roles.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _File).roles


def load_roles(path: Path) -> Mapping[str, Role]:
    """Read roles of the user's own: `[roles.NAME]` with `title` and `instructions` at least.

    Returns:
        The built-in roles with the file's laid over them: new ones added, known ones replaced.

    Raises:
        SettingsError: The file cannot be used.
    """
    try:
        with path.open("rb") as file:
            own = msgspec.convert(tomllib.load(file), _File).roles
    except OSError as error:
        raise SettingsError(f"cannot read the roles {str(path)!r}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"{str(path)!r} cannot be used as roles: {error}") from error
    return {**built_in_roles(), **own}


def relevant_roles(
    query: str, roles: Mapping[str, Role], *, count: int = RELEVANT_ROLES
) -> list[str]:
    """Return the roles a query is for, best first.

    Each keyword that the query contains counts once, in any case; ties, and the rest when fewer
    match, go by the order of the roles.
    """
    lowered = query.lower()
    names = list(roles)
    hits = {name: sum(word in lowered for word in roles[name].keywords) for name in names}
    return sorted(names, key=lambda name: -hits[name])[:count]


def known_roles(names: Iterable[str], roles: Iterable[str]) -> Sequence[str]:
    """Return the names as they are, when the supervisor has all of them.

    Raises:
        UnknownRoleError: One is not there; raised before anything is sent.
    """
    asked, roles = list(names), list(roles)
    unknown = [name for name in asked if name not in roles]
    if unknown:
        raise UnknownRoleError(
            f"there is no role {unknown[0]!r}; the roles are: {', '.join(roles)}"
        )
    return asked
