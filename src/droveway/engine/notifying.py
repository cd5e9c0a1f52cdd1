"""This file knows how a notice gets to somebody's server: tried again until it was taken.

Theory of operation. A notice was written down in the transaction that made it so. From there on:

    due ──claim──▶ held for 60 s ──2xx──▶ sent
     ▲                  │
     │                  ├──410, or after 3 days──▶ given up
     │                  │
     └──after a delay───┴──or when nobody came back within the 60 s

A process that dies between sending and writing that down leaves the notice due again. So it comes
at least once, with the same id each time, and never from two processes at the same moment.
"""

import asyncio
import logging
from functools import partial
from typing import Final

import msgspec

from droveway.clock import Clock
from droveway.engine import notice_statements as statements
from droveway.engine.receiver import TRY_S, Answer, Receiver
from droveway.errors import StoreUnavailableError
from droveway.settings import Secret
from droveway.storage import Connection, Store, Value
from droveway.storage.moments import micros
from droveway.transport import Pool

LOG: Final = logging.getLogger("droveway")
LOOK_EVERY_S: Final = 1.0
AT_ONCE_MAX: Final = 8
LEASE_S: Final = 60
# After the first try, the second one and so on; the last delay stays.
DELAYS_S: Final = (5, 30, 120, 600, 3_600, 21_600)
# Up to this part longer, so that what failed together does not come together again.
SPREAD: Final = 0.2
PATIENCE_S: Final = 3 * 86_400
_SECOND_US: Final = 1_000_000


class Notifier:
    """Sends the notices that are due to one URL; several processes may do so at once.

    Args:
        store: Where the notices are.
        url: Who is told; https, or http on this machine itself. It may have a query.
        secret: What notices are signed with: `whsec_` and base64, or any other text as its bytes.
        pool: Sends the requests.
        clock: Where time, waiting and jitter come from.

    Raises:
        SettingsError: The URL or the secret cannot be used.
    """

    def __init__(self, store: Store, *, url: str, secret: Secret, pool: Pool, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._receiver = Receiver(url=url, secret=secret, pool=pool, clock=clock)

    async def follow(self) -> None:
        """Send what falls due, until cancelled; what is on its way then is sent again later."""
        waits = False
        while True:
            try:
                await self.send_due()
                waits = False
            except StoreUnavailableError as error:
                if not waits:
                    LOG.warning("notices wait for the store: %s", error)
                waits = True
            await self._clock.sleep(LOOK_EVERY_S)

    async def send_due(self) -> int:
        """Send everything that is due by now, each notice once.

        Returns:
            How many were taken.

        Raises:
            StoreUnavailableError: The store cannot be read or written. What was sent and could not
                be written down is sent again.
        """
        until_us = self._now_us()
        taken = 0
        while rows := self._store.read(statements.DUE, (until_us, AT_ONCE_MAX)):
            tries = (self._try(_Notice(*row)) for row in rows)
            ended = await asyncio.gather(*tries, return_exceptions=True)
            errors = [each for each in ended if isinstance(each, BaseException)]
            # A fault of ours is told rather than a trouble of the store, which passes.
            for error in sorted(errors, key=lambda each: isinstance(each, StoreUnavailableError)):
                raise error
            taken += sum(each is True for each in ended)
        return taken

    async def _try(self, notice: "_Notice") -> bool:
        """Claim a notice, send it, and write down what came of it; say whether it was taken."""
        held_until_us = self._now_us() + LEASE_S * _SECOND_US
        if not await self._change(statements.CLAIM, (held_until_us, notice.id, notice.due_at_us)):
            return False  # another process was faster
        if self._now_us() + TRY_S * _SECOND_US > held_until_us:
            return False  # the store took so long that another process may begin amid this try
        answer = await self._receiver.tell(notice.id, notice.body.encode())
        tries = notice.tries + 1
        held = (answer.said, notice.id, held_until_us)
        if answer.taken:
            await self._change(statements.SENT, (self._now_us(), answer.said, notice.id))
        elif answer.gone or self._is_over(notice, tries):
            if await self._change(statements.GIVE_UP, (self._now_us(), *held)):
                self._tell_of_end(notice, answer, tries=tries)
        else:
            await self._change(statements.AGAIN, (self._again_at_us(tries), *held))
            if tries == 1:
                LOG.warning("%s did not take notice %s, and gets it again for 3 days: %s",
                            self._receiver.address, notice.id, answer.word)  # fmt: skip
        return answer.taken

    def _is_over(self, notice: "_Notice", tries: int) -> bool:
        # Where nobody sent anything for days, the short delays still come first.
        old = self._now_us() - notice.made_at_us >= PATIENCE_S * _SECOND_US
        return old and tries >= len(DELAYS_S)

    def _again_at_us(self, tries: int) -> int:
        delay_s = DELAYS_S[min(tries, len(DELAYS_S)) - 1] * (1 + SPREAD * self._clock.jitter())
        return self._now_us() + round(delay_s * _SECOND_US)

    def _tell_of_end(self, notice: "_Notice", answer: Answer, *, tries: int) -> None:
        LOG.error(
            "notice %s (%s of %s) is given up: %s did not take it in %d tries; the last word: %s",
            notice.id,
            notice.kind,
            notice.about,
            self._receiver.address,
            tries,
            answer.word,
        )

    def _now_us(self) -> int:
        return micros(self._clock.now())

    async def _change(self, sql: str, parameters: tuple[Value, ...]) -> bool:
        """Run a statement that changes a row, and say whether there was one to change."""
        return await self._store.write(partial(_changed, sql=sql, parameters=parameters)) > 0


class _Notice(msgspec.Struct, frozen=True):
    """A row as `statements.DUE` gives it."""

    id: str
    kind: str
    about: str
    body: str
    made_at_us: int
    due_at_us: int
    tries: int


def _changed(db: Connection, *, sql: str, parameters: tuple[Value, ...]) -> int:
    return db.run(sql, parameters)
