"""This file knows which store a command works on; a server may be working on it too."""

from pathlib import Path

from droveway.cli.providers import SETTINGS_FILE
from droveway.settings import Settings, load_settings
from droveway.storage import Store


def open_store(config: Path | None, *, create: bool = False) -> Store:
    """Open the store of `--config`, else of `droveway.toml` of this directory, else the default.

    Raises:
        SettingsError: The settings or the store cannot be used, or there is no store yet.
    """
    if config is None and SETTINGS_FILE.exists():
        config = SETTINGS_FILE
    settings = Settings() if config is None else load_settings(config)
    return Store(settings.storage.url, create=create)
