"""This file knows which store a command works on; a server may be working on it too."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from droveway.cli.providers import SETTINGS_FILE
from droveway.engine.desk import Desk
from droveway.settings import BillingSettings, Settings, load_settings
from droveway.storage import Store


class OpenDesk(NamedTuple):
    """A desk, and what it stands on.

    Attributes:
        desk: What is asked.
        store: Where its books are.
        billing: The operator's terms.
    """

    desk: Desk
    store: Store
    billing: BillingSettings


def open_store(config: Path | None, *, create: bool = False) -> Store:
    """Open the store of `--config`, else of `droveway.toml` of this directory, else the default.

    Raises:
        SettingsError: The settings or the store cannot be used, or there is no store yet.
    """
    return Store(_settings(config).storage.url, create=create)


@contextmanager
def open_desk(config: Path | None, *, create: bool = False) -> Iterator[OpenDesk]:
    """Open the desk on that store, with the terms of the same settings.

    Raises:
        SettingsError: As `open_store`.
    """
    settings = _settings(config)
    with Store(settings.storage.url, create=create) as store:
        yield OpenDesk(Desk(store, settings.billing), store, settings.billing)


def _settings(config: Path | None) -> Settings:
    if config is None and SETTINGS_FILE.exists():
        config = SETTINGS_FILE
    return Settings() if config is None else load_settings(config)
