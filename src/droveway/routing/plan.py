"""This file knows who may answer a request: from an asked name to candidates in order."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from droveway.errors import NotFoundError, SettingsError


class Candidate(NamedTuple):
    """One provider, the name by which it knows the model, and which of its accounts is asked."""

    provider: str
    model: str
    account: int = 0

    @property
    def name(self) -> str:
        """Its name for people and logs."""
        further = f"#{self.account + 1}" if self.account else ""
        return f"{self.provider}{further}/{self.model}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one provider has.

    Attributes:
        provider: Its name in the settings.
        models: Names it is known to have.
        any_model: Whether it is asked for names it is not known to have.
    """

    provider: str
    models: frozenset[str] = field(default=frozenset())
    any_model: bool = False


def plan(
    asked: str, *, offers: Sequence[Offer], aliases: Mapping[str, Sequence[str]]
) -> tuple[Candidate, ...]:
    """Return who may answer, best first; never empty.

    A name is looked up as an alias of the settings, as `provider/model`, then as a vendor's plain
    name: the first provider known to have it, else the first that takes any name.

    Raises:
        NotFoundError: Nobody has it; the message names the nearest names.
        SettingsError: An alias names a candidate that nobody has.
    """
    if asked in aliases:
        return tuple(_of_alias(asked, entry, offers) for entry in aliases[asked])
    found = _find(asked, offers)
    if found is None:
        raise NotFoundError(_unknown(asked, offers, aliases))
    return (found,)


def _of_alias(alias: str, entry: str, offers: Sequence[Offer]) -> Candidate:
    found = _find(entry, offers)
    if found is None:
        raise SettingsError(
            f"[models.{alias!r}] names {entry!r}, which no configured provider has; "
            "write provider/model of a provider in [providers]"
        )
    return found


def _find(name: str, offers: Sequence[Offer]) -> Candidate | None:
    provider, slash, model = name.partition("/")
    if slash and model and any(offer.provider == provider for offer in offers):
        return Candidate(provider, model)
    for offer in offers:
        if name in offer.models:
            return Candidate(offer.provider, name)
    for offer in offers:
        if offer.any_model and name:
            return Candidate(offer.provider, name)
    return None


def _unknown(asked: str, offers: Sequence[Offer], aliases: Mapping[str, Sequence[str]]) -> str:
    known = {*aliases, *(model for offer in offers for model in offer.models)}
    near = difflib.get_close_matches(asked, sorted(known), n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else (
        "write provider/model, or add a provider that has it"
    )  # fmt: skip
    return f"no configured provider has the model {asked!r}; {hint}"
