"""This file knows what the answers of one server came to: times, failures, tokens and money."""

from array import array
from collections import Counter
from typing import Final

from droveway.bench.measure import Reading
from droveway.catalog.pricebook import PriceBook, price
from droveway.chat import NO_USAGE
from droveway.clock import Clock
from droveway.engine.provider import Provider
from droveway.errors import UnpricedModelError
from droveway.money import Money

# ISO 4217's code for "no currency": a gateway tells an amount and not of what.
NO_CURRENCY: Final = "XXX"


class Tally:
    """Keeps what was measured of one server.

    Args:
        provider: The server.
        model: What is asked for.
        book: Prices.
        clock: Tells which price holds.

    Attributes:
        ok: Answers that are whole.
        failed: How often each kind of failure happened.
        first_s: Times to the first content, from sending.
        gaps_s: Times between pieces of content.
        answer_s: Times from sending to the end of the answer.
        scheduled_s: Times from when it was due to the end of the answer.
        late_s: How long after it was due each request was sent.
        ended_at: When the last one ended.
        usage: Tokens of the answers that told them.
        uncounted: Answers that told none.
        cost: What they cost by the price book; None when none of them has a price.
        unpriced: Answers without a price.
        gateway_cost: What a Droveway gateway said it charges; None when it said nothing.
    """

    def __init__(self, provider: Provider, *, model: str, book: PriceBook, clock: Clock) -> None:
        self._provider = provider
        self._model = model
        self._book = book
        self._clock = clock
        self.ok = 0
        self.failed: Counter[str] = Counter()
        self.first_s = array("d")
        self.gaps_s = array("d")
        self.answer_s = array("d")
        self.scheduled_s = array("d")
        self.late_s = array("d")
        self.ended_at = 0.0
        self.usage = NO_USAGE
        self.uncounted = 0
        self.cost: Money | None = None
        self.unpriced = 0
        self.gateway_cost: Money | None = None

    @property
    def sent(self) -> int:
        """How many were measured, failed ones among them."""
        return self.ok + self.failed.total()

    def add(self, reading: Reading) -> None:
        """Take a request that is over; only whole answers have times."""
        assert reading.ended_at is not None, "it is over"
        self.ended_at = max(self.ended_at, reading.ended_at)
        self.late_s.append(reading.sent_at - reading.scheduled_at)
        if reading.error is not None:
            self.failed[reading.error] += 1
            return
        self.ok += 1
        self.answer_s.append(reading.ended_at - reading.sent_at)
        self.scheduled_s.append(reading.ended_at - reading.scheduled_at)
        if reading.first_at is not None:
            self.first_s.append(reading.first_at - reading.sent_at)
        self.gaps_s.extend(reading.gaps_s)
        self._count(reading)

    def never_sent(self, kind: str, count: int) -> None:
        """Count requests that were due and could not be sent before the end."""
        if count:
            self.failed[kind] += count

    def _count(self, reading: Reading) -> None:
        charged = _amount(reading.cost_told())
        if charged is not None:
            self.gateway_cost = charged + (self.gateway_cost or Money.zero(NO_CURRENCY))
        usage = reading.usage()
        if usage is None:
            self.uncounted += 1
            self.unpriced += 1
            return
        self.usage += usage
        try:
            row = self._book.lookup(
                provider=self._provider.name,
                prices=self._provider.prices,
                model=reading.answered_by or self._model,
                at=self._clock.now(),
                input_tokens=usage.input_total,
            )
        except UnpricedModelError:
            self.unpriced += 1
            return
        cost = price(usage, row)
        self.cost = cost if self.cost is None else self.cost + cost


def _amount(told: str | None) -> Money | None:
    """Read an amount that a server told; None where it is none."""
    try:
        return None if told is None else Money.parse(told, NO_CURRENCY)
    except ValueError:
        return None
