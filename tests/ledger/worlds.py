"""This file knows how worlds begin and end: each in a folder of its own, and all alike."""

import shutil
from collections import Counter
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from books import AT
from droveway.ledger.book import open_account
from droveway.ledger.vouchers import Terms, issue
from droveway.money import Money
from droveway.storage import Connection, Store
from droveway.storage.opening import connect
from ledger import deeds
from ledger.model import Model
from ledger.mortals import names
from ledger.pictures import Kept, Slip
from ledger.simulation import STORE, World


def beginning(file: Path) -> Model:
    """Make the store that every world begins with; returns what the model says of it."""
    Store(file).close()
    driver, model = connect(file), Model()
    db = Connection(driver)
    with names("start"), driver:
        for number, currency in enumerate(("USD", "USD", "CNY")):
            at = AT - timedelta(hours=number + 1)
            account = open_account(db, f"account {number}", currency=currency, at=at)
            model.accounts[account] = Kept(currency)
            paid = Money(80, currency)
            first = deeds.top_up(account, paid, reference=f"first of {number}", at=at)
            assert first.real(db) == first.foretold(model)
            days = 1 if number else None
            ((slip, code),) = issue(db, Terms(amount=paid, credit_days=days), count=1, at=at)
            model.vouchers[code] = Slip(80, currency, days, None, slip.id)
    driver.close()
    return model


def simulate(seed: int, start: Path, model: Model) -> Counter[str]:
    """Live through one world.

    Args:
        seed: Which one.
        start: The store that it begins with; it lives beside it.
        model: What the model says of that; it is left as it is.

    Returns:
        What happened in it, and how often.

    Raises:
        Exception: Something in it was not as it must be.
    """
    folder = start.with_name(f"world-{seed}")
    folder.mkdir()
    try:
        shutil.copy(start, folder / STORE)
        with names(seed):
            world = World(seed, folder, deepcopy(model))
            try:
                world.run()
            finally:
                for process in [*world.living, world.observer]:
                    world._bury(process)
            return world.seen
    finally:
        shutil.rmtree(folder)


def live_through(which: range, folder: Path) -> Counter[str]:
    """Live through some worlds; what happened in them, and how often."""
    start = folder / "start.db"
    model = beginning(start)
    happened: Counter[str] = Counter()
    for seed in which:
        try:
            happened += simulate(seed, start, model)
        except Exception as error:
            error.add_note(f"in the world of this seed; again: DROVEWAY_SEED={seed}")
            raise
    return happened


def live_through_elsewhere(which: range) -> Counter[str]:
    """The same in a folder that is gone then, for a process that has none."""
    with TemporaryDirectory() as folder:
        return live_through(which, Path(folder))
