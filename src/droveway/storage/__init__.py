"""Where things are kept: drivers, the writer thread, transactions and numbered migrations."""

from droveway.storage.connection import Connection, Value
from droveway.storage.store import Store

__all__ = ["Connection", "Store", "Value"]
