"""What the tests of the ledger share: a store that is sound when the test has ended."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from books import add_epoch
from droveway.ledger import Book, faults
from droveway.storage import Store
from lab import run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "a.db") as made:
        run(add_epoch(made))
        yield made
        assert faults(made) == []


@pytest.fixture
def book(store: Store) -> Book:
    return Book(store)
