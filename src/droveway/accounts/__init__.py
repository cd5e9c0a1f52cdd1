"""Who is asking: keys, and what each of them may do."""

from droveway.accounts.key import Key
from droveway.accounts.keyring import KeyRing

__all__ = ["Key", "KeyRing"]
