"""This file knows scripts: rules that say which requests suffer what, and their TOML form."""

import random
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from droveway.errors import SettingsError
from droveway.sandbox.faults import read_wish
from droveway.sandbox.limits import Limits
from droveway.sandbox.profile import Profile


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule: whom it concerns, how often, and what happens.

    Attributes:
        model: Glob on the model's name.
        contains: Text that the last user message must contain.
        nth: Only this one among the requests that match so far, counted from 1.
        probability: Chance with which a match takes effect; drawn from the sandbox's seed.
        times: At most so many times in all; None is always.
        fault: The fault, as in a model's name: `429-seconds:2`, or `500@1` for the first request
            of each body.
        answer: The answer's text, instead of an invented one.
    """

    model: str = "*"
    contains: str = ""
    nth: int | None = None
    probability: float = 1.0
    times: int | None = None
    fault: str | None = None
    answer: str | None = None

    def __post_init__(self) -> None:
        if self.fault is None and self.answer is None:
            raise ValueError("a rule needs a `fault` or an `answer`")
        if self.fault is not None:
            read_wish(self.fault)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is {self.probability!r}; it must be from 0 to 1")
        for name in ("nth", "times"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value!r}; it must be at least 1")


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a sandbox is told to do.

    Attributes:
        rules: Tried in order; the first that takes effect decides.
        seed: Seed of all chance, unless the sandbox was given one.
        profile: Pace, unless the sandbox was given one.
        limits: Limits, unless the sandbox was given some.
    """

    rules: tuple[Rule, ...] = ()
    seed: int | None = None
    profile: Profile | None = None
    limits: Limits | None = None


class Director:
    """Applies a script's rules and counts how often each matched and took effect."""

    def __init__(self, script: Script, seed: int) -> None:
        self._rules = script.rules
        self._matched = [0] * len(script.rules)
        self._applied = [0] * len(script.rules)
        self._chances = [random.Random(f"{seed}:{i}") for i in range(len(script.rules))]

    def choose(self, model: str, question: str) -> Rule | None:
        """Find the rule that this request suffers."""
        for i, rule in enumerate(self._rules):
            if not fnmatchcase(model, rule.model) or rule.contains not in question:
                continue
            self._matched[i] += 1
            if rule.nth is not None and self._matched[i] != rule.nth:
                continue
            if rule.times is not None and self._applied[i] >= rule.times:
                continue
            if self._chances[i].random() < rule.probability:
                self._applied[i] += 1
                return rule
        return None


def load_script(path: str | Path) -> Script:
    """Read a script from a TOML file.

    Raises:
        SettingsError: The file cannot be read, is not TOML, or says something unknown or wrong.
    """
    try:
        told = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot read the sandbox script {str(path)!r}: {error}") from None
    _refuse_unknown(told, path)
    try:
        return msgspec.convert(told, Script)
    except msgspec.ValidationError as error:
        raise SettingsError(f"sandbox script {str(path)!r}: {error}") from None


def _refuse_unknown(told: Mapping[str, Any], path: str | Path) -> None:
    """Name the nearest known key for one that is not; msgspec checks everything else."""
    sections: list[tuple[str, object, type[msgspec.Struct]]] = [("", told, Script)]
    sections += [(f"{name}.", told.get(name), kind) for name, kind in _SECTIONS.items()]
    rules = told.get("rules")
    for i, rule in enumerate(rules if isinstance(rules, list) else ()):
        sections.append((f"rules[{i}].", rule, Rule))
    for where, section, kind in sections:
        known = kind.__struct_fields__
        for key in section if isinstance(section, dict) else ():
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
                raise SettingsError(f"sandbox script {str(path)!r}: no key {where + key!r}{hint}")


_SECTIONS: dict[str, type[msgspec.Struct]] = {"profile": Profile, "limits": Limits}
