"""This file knows which lines there are, one before each vendor account and model that is asked."""

from collections.abc import Mapping
from typing import Final

from droveway.catalog.models import limits
from droveway.clock import Clock
from droveway.engine.line import Line
from droveway.engine.provider import Provider
from droveway.resilience.pacing import Pacer
from droveway.routing.plan import Candidate

# A provider may take any name for a model, and so may a caller: lines that nobody uses any more
# are let go when there are so many. After so long a line has nothing to tell that still holds.
LINES_MAX: Final = 1024
FORGOTTEN_AFTER_S: Final = 60.0


class Lines:
    """The lines of an engine.

    Args:
        providers: By name; those who join it later are known as well.
        clock: Where time comes from.

    Attributes:
        providers: As they were given.
    """

    def __init__(self, providers: Mapping[str, Provider], clock: Clock) -> None:
        self.providers = providers
        self._clock = clock
        self._lines: dict[Candidate, Line] = {}
        self._lines_max = LINES_MAX

    @property
    def known(self) -> Mapping[Candidate, Line]:
        """Those there are, by whom they are before."""
        return self._lines

    def of(self, candidate: Candidate) -> Line:
        """Return the one line before a provider's account and model."""
        line = self._lines.get(candidate)
        if line is None:
            if len(self._lines) >= self._lines_max:
                self._let_go()
            line = self._lines[candidate] = self._made(candidate)
        return line

    def keep_those_of(self, former: "Lines") -> None:
        """Take over the lines before accounts that are the same, with the same limits."""
        for candidate, line in former.known.items():
            found = self.providers.get(candidate.provider)
            before = former.providers[candidate.provider]
            if found is not None and _account(found) == _account(before):
                self._lines[candidate] = line

    def _made(self, candidate: Candidate) -> Line:
        provider = self.providers[candidate.provider]
        ceiling = limits(provider.prices, candidate.model).concurrency
        pacer = Pacer(
            concurrency=provider.concurrency or ceiling,
            rpm=provider.rpm,
            tpm=provider.tpm,
            waiting_max=provider.waiting_max,
            failures_max=provider.failures_max,
        )
        pacer.used_at = self._clock.monotonic()
        return Line(pacer, self._clock, candidate)

    def _let_go(self) -> None:
        since = self._clock.monotonic() - FORGOTTEN_AFTER_S
        self._lines = {
            candidate: line
            for candidate, line in self._lines.items()
            if not line.pacer.is_unused(since)
        }
        # Not looked through again for each new one where all are in use.
        self._lines_max = max(LINES_MAX, 2 * len(self._lines))


def _account(provider: Provider) -> tuple[object, ...]:
    keys = tuple(key.reveal() for key in provider.keys)
    bounds = ("prices", "concurrency", "rpm", "tpm", "waiting_max", "failures_max")
    return (provider.origin, provider.path, keys, *(getattr(provider, each) for each in bounds))
