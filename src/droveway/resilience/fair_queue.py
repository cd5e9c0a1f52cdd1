"""This file knows whose turn is next among those who wait, and who must go when they are too many.

Theory of operation
-------------------
Turns are shared on three levels, on each by the same rule:

    level       who shares                    weight
    priority    interactive, normal, batch    16, 4, 1: batch goes slowly, but it goes
    key         the callers' keys             the key's own, 1 unless it was given another
    role        the roles of one key          1 each

Within a role the lowest number goes first: the order in which the requests came. A key that has a
thousand waiting gets as many turns as one with a single request has, until that one is served.

The rule is stride scheduling (Waldspurger and Weihl, 1995): everybody who shares has passed so far
along a road; the one who is behind goes next and moves on by 1 / weight. Who joins begins where the
others are: nothing is saved up by staying away, nor forgiven by leaving for a moment. A turn that
was in vain, because the vendor refused the request, is given back.

A turn is a request, long or short. With a single level of sharing (one key, one role) this is the
order of the numbers.

Some who wait rest until a moment of their own, and share in nothing until then. When too many wait,
one of the key that has most is put out, the newest of its lowest priority: nobody can fill the line
for others.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Priority = Literal["interactive", "normal", "batch"]
PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
# From here on, who left is looked through for those whom the others have caught up with.
GONE_MIN: Final = 64
WEIGHTS: Final[Mapping[Priority, int]] = {"interactive": 16, "normal": 4, "batch": 1}


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place in line.

    Attributes:
        number: Its place among those of its role; kept through refusals.
        tokens: Input and output tokens it may use, by estimate.
        jitter: In [0, 1); where in a spread it goes.
        not_before: Its earliest moment within a spread.
        key: Whose turn it uses.
        weight: How many turns that key gets where others get one.
        role: Whose turn within the key.
        priority: How urgent it is.
        in_vain: Whether its last turn was refused by the vendor, and is given back.
    """

    number: int
    tokens: int
    jitter: float
    not_before: float = 0.0
    key: str = ""
    weight: int = 1
    role: str = ""
    priority: Priority = "normal"
    in_vain: bool = False

    def __lt__(self, other: "Ticket") -> bool:
        return self.number < other.number


class _Share:
    """One who shares: its tickets, or those among whom it shares its own turns."""

    __slots__ = ("_gone", "_gone_max", "passed", "road", "sharers", "stride", "tickets")

    def __init__(self, weight: int, passed: float) -> None:
        self.stride = 1.0 / weight
        self.passed = passed
        self.road = 0.0  # how far the one who went last had passed, among `sharers`
        self.sharers: dict[str, _Share] = {}
        self.tickets: list[Ticket] = []
        # How far those had passed who left, as long as that is further than the others are.
        self._gone: dict[str, float] = {}
        self._gone_max = GONE_MIN

    def enter(self, name: str, weight: int, *, in_vain: bool) -> "_Share":
        share = self.sharers.get(name)
        if share is None:
            passed = max(self.road, self._gone.pop(name, self.road))
            share = self.sharers[name] = _Share(weight, passed)
        if in_vain:
            share.passed -= share.stride
        return share

    def leave(self, name: str) -> None:
        passed = self.sharers.pop(name).passed
        if passed > self.road:
            self._gone[name] = passed
        if len(self._gone) > self._gone_max:
            self._gone = {name: passed for name, passed in self._gone.items() if passed > self.road}
            self._gone_max = max(GONE_MIN, 2 * len(self._gone))

    def next(self) -> "_Share":
        # The first of those that are equally far behind has waited longest.
        return min(self.sharers.values(), key=_passed)


def _passed(share: _Share) -> float:
    return share.passed


def _path(ticket: Ticket) -> tuple[tuple[str, int], ...]:
    return (
        (ticket.priority, WEIGHTS[ticket.priority]),
        (ticket.key, ticket.weight),
        (ticket.role, 1),
    )


def _turns_amid(turns: int, count: int, ratio: float) -> int:
    """Return how many of `count` have a turn until others have had `turns` and one more."""
    return min(count, round(turns * ratio) + 1)


class FairQueue:
    """Those who wait before one line."""

    def __init__(self) -> None:
        self._root = _Share(1, 0.0)
        self._resting: list[tuple[float, int, Ticket]] = []
        # Until when each rests; an entry above of one that left, or came again, is an old one.
        self._asleep: dict[Ticket, float] = {}
        # By key and priority, in the order in which they came.
        self._census: dict[str, dict[Priority, dict[Ticket, None]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._census.get(ticket.key, {}).get(ticket.priority, {})

    def __iter__(self) -> Iterator[Ticket]:
        """Iterate over all who wait, key by key."""
        for priorities in self._census.values():
            for tickets in priorities.values():
                yield from tickets

    def push(self, ticket: Ticket, now: float) -> None:
        """Let a ticket wait; one whose moment is still to come rests until then."""
        self._census.setdefault(ticket.key, {}).setdefault(ticket.priority, {})[ticket] = None
        self._count += 1
        self._settle(ticket, now)

    def remove(self, ticket: Ticket) -> bool:
        """Take a ticket out that gets no turn; whether it was there."""
        if ticket not in self:
            return False
        self._strike_off(ticket)
        if ticket in self._asleep:
            del self._asleep[ticket]
        else:
            self._unqueue(ticket, _path(ticket))
        return True

    def head(self, now: float) -> Ticket | None:
        """Return whose turn is next; None when all who wait rest, or none waits."""
        while self._resting and (self._resting[0][0] <= now or self._woken()):
            moment, _, ticket = heapq.heappop(self._resting)
            if self._asleep.get(ticket) == moment:
                del self._asleep[ticket]
                self._queue(ticket)
        share = self._root
        while share.sharers:
            share = share.next()
        return share.tickets[0] if share.tickets else None

    def take(self, ticket: Ticket) -> None:
        """Give the head its turn."""
        share, path = self._root, _path(ticket)
        for name, _ in path:
            sharer = share.sharers[name]
            share.road = max(share.road, sharer.passed)
            sharer.passed += sharer.stride
            share = sharer
        self._strike_off(ticket)
        self._unqueue(ticket, path)

    def wakes_at(self) -> float | None:
        """Return when the next of those who rest takes part; None when nobody rests."""
        while self._resting and self._woken():
            heapq.heappop(self._resting)
        return self._resting[0][0] if self._resting else None

    def rest_all(self, reach_s: float, now: float) -> None:
        """Spread all who wait over a time from now on, each by its own jitter."""
        waiting = sorted(self)
        self._root, self._resting = _Share(1, 0.0), []
        self._asleep.clear()
        for ticket in waiting:
            ticket.not_before = now + ticket.jitter * reach_s
            self._settle(ticket, now)

    def ahead_of(self, ticket: Ticket) -> int:
        """Return about how many turns others have before one that comes now has its own.

        A ticket that waits already is taken for one that leaves and comes anew.
        """
        counts = dict.fromkeys(PRIORITIES, 0)
        same: list[tuple[int, int]] = []  # the other keys of its priority: how many, and the weight
        for key, priorities in self._census.items():
            for priority, tickets in priorities.items():
                counts[priority] += len(tickets)
                if priority == ticket.priority and key != ticket.key:
                    same.append((len(tickets), next(iter(tickets)).weight))
        own = counts[ticket.priority] - sum(count for count, _ in same) - (ticket in self)
        # While it and those before it have their turns, everybody else has some by the weights.
        ahead = own + sum(_turns_amid(own, count, w / ticket.weight) for count, w in same)
        return ahead + sum(
            _turns_amid(ahead, counts[each], WEIGHTS[each] / WEIGHTS[ticket.priority])
            for each in PRIORITIES
            if each != ticket.priority
        )

    def surplus(self, newcomer: Ticket) -> Ticket:
        """Return who must go when one more is too many; it may be the newcomer."""
        key = max(self._census, key=self._of_key, default=newcomer.key)
        if self._of_key(newcomer.key) >= self._of_key(key):
            key = newcomer.key
        for priority in reversed(PRIORITIES):
            if newcomer.key == key and newcomer.priority == priority:
                return newcomer
            tickets = self._census.get(key, {}).get(priority)
            if tickets:
                return next(reversed(tickets))
        return newcomer

    def _of_key(self, key: str) -> int:
        return sum(map(len, self._census.get(key, {}).values()))

    def _woken(self) -> bool:
        moment, _, ticket = self._resting[0]
        return self._asleep.get(ticket) != moment

    def _settle(self, ticket: Ticket, now: float) -> None:
        if ticket.not_before > now:
            self._asleep[ticket] = ticket.not_before
            heapq.heappush(self._resting, (ticket.not_before, ticket.number, ticket))
        else:
            self._queue(ticket)

    def _queue(self, ticket: Ticket) -> None:
        share = self._root
        for name, weight in _path(ticket):
            share = share.enter(name, weight, in_vain=ticket.in_vain)
        ticket.in_vain = False
        insort(share.tickets, ticket)

    def _unqueue(self, ticket: Ticket, path: tuple[tuple[str, int], ...]) -> None:
        shares = [self._root]
        for name, _ in path:
            shares.append(shares[-1].sharers[name])
        tickets = shares[-1].tickets
        place = bisect_left(tickets, ticket)
        while tickets[place] is not ticket:
            place += 1
        del tickets[place]
        # Who has nothing left shares in nothing, and begins anew where the others are.
        for (name, _), share, above in zip(
            reversed(path), reversed(shares[1:]), reversed(shares[:-1]), strict=True
        ):
            if share.tickets or share.sharers:
                return
            above.leave(name)
        if not self._root.sharers:
            self._root = _Share(1, 0.0)  # nobody shares with anybody: all begin anew

    def _strike_off(self, ticket: Ticket) -> None:
        priorities = self._census[ticket.key]
        del priorities[ticket.priority][ticket]
        self._count -= 1
        if not priorities[ticket.priority]:
            del priorities[ticket.priority]
        if not priorities:
            del self._census[ticket.key]
