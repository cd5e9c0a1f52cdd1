"""This file knows who sits at a shared table, and which places died with their process.

Every process holds the lock of its seat for as long as it lives; the kernel frees it on death. Each
taking of a seat has a number, its epoch, odd while somebody sits there. Places are written down
with the epoch, and those of any other epoch do not count: where a seat is found taken and its lock
free, its epoch is ended, and with it all places of the dead process, in every slot at once.
"""

from typing import Final, TypeAlias

from droveway.storage.byte_locks import WAIT, freeing, lock_now, locked_by_others, set_lock
from droveway.storage.table_file import EPOCHS, HEAD, SEAT_LOCKS, SEATS, SEATS_USED

# In quotes: before Python 3.14 it cannot be subscripted when it runs.
Numbers: TypeAlias = "memoryview[int]"
_COUNT_BITS: Final = 24
_COUNT: Final = 2**_COUNT_BITS - 1


class Seats:
    """The seats of one table, and the one that this process has.

    All of it but `places_of`, `take_place` and `give_place_back` is done under the table's lock.

    Args:
        table: All numbers of the table.
        file: The table's file; None for a table of this process alone.
    """

    def __init__(self, table: Numbers, file: int | None) -> None:
        self._table = table
        self._epochs = table[EPOCHS:HEAD]
        self._file = file
        self._mine = -1
        self._epoch = 0

    def sit_down(self) -> bool:
        """Take the first seat whose lock is free; False where there is none."""
        for seat in range(SEATS):
            if self._file is None or lock_now(self._file, SEAT_LOCKS + seat):
                # The next odd number, whether the one before got up or died.
                self._epochs[seat] = (self._epochs[seat] + 1) | 1
                self._table[SEATS_USED] = max(self._table[SEATS_USED], seat + 1)
                self._mine = seat
                self._epoch = self._epochs[seat] << _COUNT_BITS
                return True
        return False

    def get_up(self) -> None:
        """Leave the seat; the places of this process are free."""
        self._epochs[self._mine] += 1
        if self._file is not None:
            set_lock(self._file, WAIT, freeing(SEAT_LOCKS + self._mine))
        self._epochs.release()

    def bury_the_dead(self) -> bool:
        """End the epochs of processes that have died; whether there were any."""
        found = False
        if self._file is not None:
            for seat in range(self._table[SEATS_USED]):
                taken = self._epochs[seat] % 2 == 1 and seat != self._mine
                if taken and not locked_by_others(self._file, SEAT_LOCKS + seat):
                    self._epochs[seat] += 1
                    found = True
        return found

    def places_of(self, places: Numbers) -> int:
        """Return how many places of a slot are taken, by all who are not known to be dead."""
        epochs = self._epochs
        total = 0
        for seat in range(self._table[SEATS_USED]):
            taken = places[seat]
            if taken and taken >> _COUNT_BITS == epochs[seat]:
                total += taken & _COUNT
        return total

    def take_place(self, places: Numbers) -> None:
        """Take one place of a slot that is locked."""
        # What an earlier epoch left there is smaller, and forgotten.
        places[self._mine] = max(places[self._mine], self._epoch) + 1

    def give_place_back(self, places: Numbers) -> None:
        """Give one place of a slot back; the slot need not be locked."""
        assert places[self._mine] > self._epoch, "a place was taken"
        places[self._mine] -= 1
