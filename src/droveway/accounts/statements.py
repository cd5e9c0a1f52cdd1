"""This file knows the SQL of keys; whatever a caller sends enters it as a bound parameter."""

from typing import Final

_FIELDS: Final = (
    "id, name, shown, models, expires_at_us, rpm, tpm, concurrency, tags, created_at_us, "
    "revoked_at_us, account_id, weight"
)

ADD: Final = f"""
INSERT INTO key ({_FIELDS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants of this file
BY_DIGEST: Final = f"SELECT {_FIELDS}, digest FROM key WHERE digest = ?"  # noqa: S608 - as above
# A name may have belonged to several keys, one after the other: the one in use comes first.
BY_WORD: Final = f"""
SELECT {_FIELDS} FROM key WHERE id = ?1 OR name = ?1
ORDER BY id = ?1 DESC, revoked_at_us IS NOT NULL, revoked_at_us DESC, created_at_us DESC LIMIT 1
"""  # noqa: S608 - as above
ALL: Final = f"SELECT {_FIELDS} FROM key ORDER BY created_at_us, id"  # noqa: S608 - as above
REVOKE: Final = "UPDATE key SET revoked_at_us = ? WHERE id = ? AND revoked_at_us IS NULL"
ROTATE: Final = "UPDATE key SET digest = ?, shown = ? WHERE id = ? AND revoked_at_us IS NULL"
GENERATION: Final = "SELECT number FROM mark WHERE name = 'keys'"
