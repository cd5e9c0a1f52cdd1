"""This file knows how new settings come into force: read, tried, put in place, and told to others.

Whoever is asked to reload reads the settings and puts them in place itself; only then it moves a
mark in the store. Every other process that serves the store looks at the mark once a second, and
reads its own settings anew. Settings that cannot be used change nothing anywhere. What only a
restart can change stays as it was, in every process: a worker that is started again must not open
another store than its neighbours.
"""

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Final

import msgspec

from droveway.clock import Clock
from droveway.errors import SettingsError, StoreUnavailableError
from droveway.gateway import statements
from droveway.settings import Settings
from droveway.storage import Connection, Store

LOG: Final = logging.getLogger("droveway.gateway")
LOOK_EVERY_S: Final = 1.0
# What a running process cannot change of itself.
FIXED: Final = (
    "server.host",
    "server.port",
    "server.workers",
    "server.drain_s",
    "server.admin_token",
    "storage.url",
    "billing.enabled",
    "billing.currency",
    "billing.low_balance",
    "billing.low_balance_url",
    "billing.low_balance_secret",
    "journal.keep_days",
)


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What became of new settings.

    Attributes:
        generation: How many settings were in force so far, the present ones among them.
        restart_needed: The keys whose new value waits for a restart, such as `server.port`.
    """

    generation: int
    restart_needed: tuple[str, ...] = ()


class Reloading:
    """Puts new settings in place, here and in every process that serves the store.

    Args:
        store: Where the mark is.
        started_with: The settings in force until now.
        read: Reads the settings anew.
        put_in_place: Puts settings in force, or raises a SettingsError and changes nothing.
        generation: Of `started_with`, where somebody else has read them; the present one otherwise.

    Attributes:
        generation: Of the settings that are in force here.
    """

    def __init__(
        self,
        store: Store,
        *,
        started_with: Settings,
        read: Callable[[], Settings],
        put_in_place: Callable[[Settings], None],
        generation: int | None = None,
    ) -> None:
        self._store = store
        self._started_with = started_with
        self._read = read
        self._put_in_place = put_in_place
        self.generation = self._told() if generation is None else generation

    async def reload(self) -> Reloaded:
        """Read the settings and put them in force, here at once and elsewhere within a second.

        Raises:
            SettingsError: They cannot be used, and the old ones stay.
            StoreUnavailableError: They are in force here, and the others cannot be told.
        """
        settings = self._read()
        self._use(settings)
        told = await self._store.write(_next_generation)
        # Somebody who reloaded in between may have read a younger file: `follow` reads it too.
        if told == self.generation + 1:
            self.generation = told
        return Reloaded(
            generation=told,
            restart_needed=tuple(
                key for key in FIXED if _value(settings, key) != _value(self._started_with, key)
            ),
        )

    async def reload_and_tell(self, tell: Callable[[str], None]) -> None:
        """Reload because of a signal, which has nobody to answer: say what came of it.

        Args:
            tell: Takes one line for the operator.
        """
        try:
            reloaded = await self.reload()
        except SettingsError as error:
            LOG.error("the new settings cannot be used, and the old ones stay: %s", error)  # noqa: TRY400 - one line says it
            return
        except StoreUnavailableError as error:
            LOG.error("the new settings are in force in this process alone: %s", error)  # noqa: TRY400 - as above
            return
        waits = ", ".join(reloaded.restart_needed)
        tell(
            f"settings of generation {reloaded.generation} are in force"
            + (f"; a restart is needed for {waits}" if waits else "")
        )

    async def follow(self, clock: Clock) -> None:
        """Put in force what others were told to reload, until cancelled."""
        while True:
            await clock.sleep(LOOK_EVERY_S)
            try:
                told = self._told()
                if told != self.generation:
                    self.generation = told
                    self._use(self._read())
            except SettingsError as error:
                LOG.error("the new settings cannot be used, and the old ones stay: %s", error)  # noqa: TRY400 - as above
            except StoreUnavailableError as error:
                LOG.warning("whether there are new settings cannot be seen: %s", error)

    def _use(self, settings: Settings) -> None:
        kept: defaultdict[str, dict[str, object]] = defaultdict(dict)
        for key in FIXED:
            section, _, name = key.partition(".")
            kept[section][name] = _value(self._started_with, key)
        # Each section at once: some of its keys go only together.
        sections = {
            section: msgspec.structs.replace(getattr(settings, section), **values)
            for section, values in kept.items()
        }
        self._put_in_place(msgspec.structs.replace(settings, **sections))

    def _told(self) -> int:
        ((number,),) = self._store.read(statements.GENERATION)
        return int(number)


def _next_generation(db: Connection) -> int:
    ((number,),) = db.rows(statements.NEXT_GENERATION)
    return int(number)


def _value(settings: Settings, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)
