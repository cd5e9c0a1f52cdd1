"""Who is asking: keys, and what each of them may do."""

from droveway.accounts.key import WEIGHT_MAX, Key
from droveway.accounts.keyring import KeyRing

__all__ = ["WEIGHT_MAX", "Key", "KeyRing"]
