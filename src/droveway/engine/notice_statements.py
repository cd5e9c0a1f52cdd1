"""This file knows the SQL of notices: which are due, who sends one, and what became of it.

Whoever wants to send a notice moves its moment ahead first, and only from the very moment that was
read: of several processes that try, one changes a row. The new moment is what it holds it by; when
that is over, the notice is due again for anybody.
"""

from typing import Final

_OPEN: Final = "sent_at_us IS NULL AND given_up_at_us IS NULL"
_HELD: Final = f"id = ? AND due_at_us = ? AND {_OPEN}"

DUE: Final = f"""
SELECT id, kind, about, body, made_at_us, due_at_us, tries FROM notice
WHERE {_OPEN} AND due_at_us <= ? ORDER BY due_at_us, id LIMIT ?
"""  # noqa: S608 - constants of this file
CLAIM: Final = f"UPDATE notice SET due_at_us = ?, tries = tries + 1 WHERE {_HELD}"  # noqa: S608 - as above
# Whoever holds it by now: it was taken.
SENT: Final = f"UPDATE notice SET sent_at_us = ?, said = ? WHERE id = ? AND {_OPEN}"  # noqa: S608 - as above
AGAIN: Final = f"UPDATE notice SET due_at_us = ?, said = ? WHERE {_HELD}"  # noqa: S608 - as above
GIVE_UP: Final = f"UPDATE notice SET given_up_at_us = ?, said = ? WHERE {_HELD}"  # noqa: S608 - as above
