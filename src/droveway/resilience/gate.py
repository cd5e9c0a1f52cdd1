"""This file knows whether a line lets anybody go: the breaker of one vendor account and model.

A vendor that says "later", one that fails again and again, and one that does not take our key are
kept from being asked by the same three states, which every breaker has: closed, the requests flow;
open, nobody goes until a moment; half open, one goes alone, the probe, and decides for all.

`TABLE` is the whole of it. An event that is not in a state's row changes nothing there.

What differs is for how long it is open, and what becomes of those who wait:

    cause      open for                                      who waits
    refused    as long as the vendor asks; else 1, 2, 4 …    stays in line, keeps its place
               30 s
    failing    1, 2, 4 … 30 s, doubled by each probe that    stays until the probe fails; then is
               fails                                         sent away, as is who comes while it is
                                                             open for more than 5 s
    shut_out   30 s                                          is sent away

A probe that is neither answered nor refused in time counts as answered: refusals come at once,
answers may take minutes. Nothing here waits or reads a clock; moments are seconds of any monotonic
clock.
"""

from collections.abc import Mapping
from typing import Final, Literal

State = Literal["closed", "open", "half_open"]
Cause = Literal["refused", "failing", "shut_out"]
Event = Literal["answered", "refused", "failed", "down", "shut_out", "elapsed"]

# The states of a line, and what comes of each event.
TABLE: Final[Mapping[State, Mapping[Event, State]]] = {
    "closed": {"refused": "open", "down": "open", "shut_out": "open"},
    "open": {"refused": "open", "shut_out": "open", "elapsed": "half_open"},
    "half_open": {"answered": "closed", "refused": "open", "down": "open", "shut_out": "open"},
}
EVENTS: Final[Mapping[Event, str]] = {
    "answered": "a good answer began; in half open: to the probe",
    "refused": "429, or 503 or 529 with a Retry-After",
    "failed": "a failure that says nothing yet; in half open: the next one is the probe",
    "down": "the fifth failure in a row, of two requests at least; or a probe of a failing line",
    "shut_out": "401 or 402: the vendor does not take our key, or our account is empty",
    "elapsed": "the moment has come until which nobody goes",
}

# Five in a row are no accident, unless all are of one request, which may be at fault itself.
FAILURES_IN_A_ROW: Final = 5
REQUESTS_IN_A_ROW: Final = 2
# Doubled with each refusal, or each probe that fails, in a row.
OPEN_BASE_S: Final = 1.0
OPEN_MAX_S: Final = 30.0
# A key is not mended, nor an account filled, in a second; but soon after it is, we shall notice.
SHUT_OUT_S: Final = 30.0
# A vendor that says "0 seconds" means "not now" all the same.
OPEN_MIN_S: Final = 0.05
# For so long a request rather waits for a probe than fails.
PATIENCE_S: Final = 5.0
# A probe that was not refused for so long has passed; to fail may take as long as to connect.
PROBE_S: Final = 2.0
FAILING_PROBE_S: Final = 10.0


class Gate:
    """The state of one line.

    Args:
        failures_max: How many failures in a row open it; 0 for never.

    Attributes:
        state: As breakers call it.
        cause: Why it is not closed; None while it is.
        until: Until when nobody goes, while it is open.
    """

    __slots__ = (
        "_downs_in_a_row",
        "_failing",
        "_failures",
        "_failures_max",
        "_refusals_in_a_row",
        "cause",
        "state",
        "until",
    )

    def __init__(self, *, failures_max: int = FAILURES_IN_A_ROW) -> None:
        self._failures_max = failures_max
        self.state: State = "closed"
        self.cause: Cause | None = None
        self.until = 0.0
        self._refusals_in_a_row = 0
        self._downs_in_a_row = 0
        self._failures = 0
        self._failing: set[int] = set()

    @property
    def probe_s(self) -> float:
        """After how long a silent probe counts as answered."""
        return FAILING_PROBE_S if self.cause == "failing" else PROBE_S

    def sends_away(self, now: float) -> bool:
        """Whether who comes now had better go elsewhere, or fail, than wait."""
        if self.cause == "failing":
            return self.state == "open" and self.until - now > PATIENCE_S
        return self.cause == "shut_out" and self.state == "open" and now < self.until

    def elapsed(self, now: float) -> bool:
        """Let the probe go once the moment has come; whether the gate is half open now."""
        if self.state == "open" and now >= self.until:
            self._turn("elapsed")
        return self.state == "half_open"

    def answered(self, *, probe: bool) -> bool:
        """Note that a good answer began; whether that has closed the gate."""
        self._refusals_in_a_row = 0
        return probe and self._turn("answered")

    def succeeded(self) -> None:
        """Note an answer that is whole: whatever failed before was no row."""
        if self._failures or self._downs_in_a_row:
            self._failures = self._downs_in_a_row = 0
            self._failing.clear()

    def refused(self, now: float, *, retry_after_s: float | None) -> None:
        """Note that the vendor said "later", for so long or without a word."""
        # The answers to a volley that was sent before the first refusal are one refusal.
        if self.state != "open" or not self._refusals_in_a_row:
            self._refusals_in_a_row += 1
        if self.state != "open":
            self.cause = "refused"
        if retry_after_s is None:
            retry_after_s = _doubled(self._refusals_in_a_row)
        self._turn("refused")
        self.until = max(self.until, now + max(OPEN_MIN_S, retry_after_s))

    def failed(self, now: float, *, request: int, probe: bool) -> bool:
        """Note a failure of the vendor's, or of the way there.

        Args:
            now: The moment.
            request: The number of the request that failed, the same for all its attempts.
            probe: Whether it was the probe.

        Returns:
            Whether those who wait shall wait no more.
        """
        self._failures += 1
        if len(self._failing) < REQUESTS_IN_A_ROW:
            self._failing.add(request)
        lost = probe and self.cause == "failing"
        # In half open only the probe decides: what is back from before is an old story.
        heard = probe or self.state == "closed"
        many = 0 < self._failures_max <= self._failures
        in_a_row = many and len(self._failing) >= REQUESTS_IN_A_ROW
        if heard and (lost or in_a_row) and self._turn("down"):
            self._downs_in_a_row += 1
            self.cause = "failing"
            self.until = now + _doubled(self._downs_in_a_row)
        return lost

    def shut_out(self, now: float) -> None:
        """Note that the vendor takes neither our key nor our account; all who wait shall go."""
        self._turn("shut_out")
        self.cause = "shut_out"
        self.until = max(self.until, now + SHUT_OUT_S)

    def passed(self) -> None:
        """Let a silent probe count as answered."""
        self._turn("answered")

    def _turn(self, event: Event) -> bool:
        """Go where the table says; whether it says anything."""
        then = TABLE[self.state].get(event)
        if then is None:
            return False
        self.state = then
        if then == "closed":
            self.cause = None
            self._failures = 0
            self._failing.clear()
        return True


def _doubled(times: int) -> float:
    return min(OPEN_MAX_S, OPEN_BASE_S * 2.0 ** min(times - 1, 30))
