"""This file knows how fast the sandbox answers and how much it says."""

import math
import random

import msgspec

# A year of waiting is a typing error, and a draw from the tail of a distribution must stay finite.
_SIGMA_MAX = 3.0


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pace and length of answers; each is drawn from a log-normal, seeded by the request.

    Attributes:
        first_token_s: Median time to first token.
        first_token_sigma: Its spread (standard deviation of the logarithm).
        token_s: Median time between tokens.
        token_sigma: Its spread.
        tokens_per_chunk: Tokens in one event of a stream.
        answer_tokens: Median length of an answer.
        answer_sigma: Its spread.
        reasoning_tokens: Median length of the reasoning of a model that thinks.
        instant: No waiting at all; for tests and benchmarks.
    """

    first_token_s: float = 0.15
    first_token_sigma: float = 0.3
    token_s: float = 0.008
    token_sigma: float = 0.25
    tokens_per_chunk: int = 1
    answer_tokens: int = 120
    answer_sigma: float = 0.5
    reasoning_tokens: int = 60
    instant: bool = False

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} is {value!r}; it must be a number of at least 0")
        for name in ("tokens_per_chunk", "answer_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def first_wait_s(self, chance: random.Random) -> float:
        """Draw a time to first token."""
        return 0.0 if self.instant else _draw(chance, self.first_token_s, self.first_token_sigma)

    def chunk_wait_s(self, chance: random.Random, tokens: int) -> float:
        """Draw the time that so many tokens take."""
        return 0.0 if self.instant else tokens * _draw(chance, self.token_s, self.token_sigma)

    def answer_length(self, chance: random.Random) -> int:
        """Draw the length of an answer in tokens."""
        return max(1, round(_draw(chance, self.answer_tokens, self.answer_sigma)))

    def reasoning_length(self, chance: random.Random) -> int:
        """Draw the length of the reasoning in tokens."""
        return max(1, round(_draw(chance, self.reasoning_tokens, self.answer_sigma)))


def _draw(chance: random.Random, median: float, sigma: float) -> float:
    """Draw from a log-normal of this median."""
    return median * math.exp(chance.gauss(0.0, min(sigma, _SIGMA_MAX)))
