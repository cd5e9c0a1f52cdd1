"""This file knows how many bytes of a request a token takes, learned from what vendors count."""

from droveway.routing.plan import Candidate

# Until a model has told: two bytes a token, which is dense for any language.
_FIRST_PPM = 500_000
_PPM = 1_000_000
# One request weighs so much of what is known: an old word fades after some hundreds.
_WEIGHT = 64


class Calibration:
    """Tokens in a byte, by model; whole millionths, so that no float comes near money."""

    __slots__ = ("_ppm",)

    def __init__(self) -> None:
        self._ppm: dict[Candidate, int] = {}

    def note(self, candidate: Candidate, *, size: int, tokens: int) -> None:
        """Learn from a request of so many bytes that a vendor counted as so many tokens."""
        if size > 0:
            known = self._ppm.get(candidate, _FIRST_PPM)
            seen = tokens * _PPM // size
            self._ppm[candidate] = known + (seen - known) // _WEIGHT

    def estimate(self, candidate: Candidate, size: int) -> int:
        """Return about how many tokens so many bytes are, rounded up."""
        return -(-size * self._ppm.get(candidate, _FIRST_PPM) // _PPM)
