"""This file knows the SQL of the ledger; entries and holds are written nowhere else."""

from typing import Final

ACCOUNT_FIELDS: Final = "id, name, currency, posted_nano, held_nano, created_at_us, frozen_at_us"

OPEN_ACCOUNT: Final = """
INSERT INTO account (id, name, kind, currency, created_at_us) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
CUSTOMERS: Final = (
    f"SELECT {ACCOUNT_FIELDS} FROM account WHERE kind = 'customer' ORDER BY created_at_us, id"  # noqa: S608 - constants of this file
)
CUSTOMER: Final = f"""
SELECT {ACCOUNT_FIELDS} FROM account WHERE kind = 'customer' AND (id = ?1 OR name = ?1)
ORDER BY id = ?1 DESC LIMIT 1
"""  # noqa: S608 - as above
FREEZE: Final = "UPDATE account SET frozen_at_us = ? WHERE id = ? AND frozen_at_us IS NULL"
THAW: Final = "UPDATE account SET frozen_at_us = NULL WHERE id = ? AND frozen_at_us IS NOT NULL"

BALANCE: Final = "SELECT posted_nano FROM account WHERE id = ?"

ADD_TRANSFER: Final = (
    "INSERT INTO transfer (id, kind, at_us, reference, told) VALUES (?, ?, ?, ?, ?)"
)
TRANSFER_OF: Final = """
SELECT transfer.id, at_us, told, account_id, amount_nano FROM transfer
JOIN entry ON entry.transfer_id = transfer.id
JOIN account ON account.id = account_id AND account.kind = 'customer'
WHERE transfer.kind = ? AND reference = ?
"""
ADD_ENTRY: Final = "INSERT INTO entry (transfer_id, account_id, amount_nano) VALUES (?, ?, ?)"
POST: Final = "UPDATE account SET posted_nano = posted_nano + ? WHERE id = ? AND currency = ?"
ENTRIES_OF: Final = """
SELECT entry.seq, transfer.id, kind, at_us, reference, told, amount_nano FROM entry
JOIN transfer ON transfer.id = transfer_id
WHERE account_id = ?1 AND at_us >= ?2 AND at_us < ?3 ORDER BY entry.seq
"""

# The guard of all guards: what is not there cannot be held, whoever else holds at this moment.
SET_ASIDE: Final = """
UPDATE account SET held_nano = held_nano + ?1
WHERE id = ?2 AND kind = 'customer' AND currency = ?3 AND frozen_at_us IS NULL
  AND posted_nano - held_nano >= ?1
"""
ADD_HOLD: Final = """
INSERT INTO hold (id, account_id, epoch_id, amount_nano, state, taken_at_us)
VALUES (?, ?, ?, ?, 'held', ?)
"""
EXTEND_HOLD: Final = """
UPDATE hold SET amount_nano = amount_nano + ?1
WHERE id = ?2 AND account_id = ?3 AND state = 'held'
"""
HOLD: Final = "SELECT account_id, amount_nano, state FROM hold WHERE id = ?"
END_HOLD: Final = """
UPDATE hold SET state = ?2, ended_at_us = ?3, charged_nano = ?4 WHERE id = ?1 AND state = 'held'
RETURNING account_id, amount_nano
"""
GIVE_BACK: Final = """
UPDATE account SET held_nano = held_nano - ?1 WHERE id = ?2
RETURNING posted_nano - held_nano, currency
"""

ADD_EPOCH: Final = "INSERT INTO epoch (id, began_at_us) VALUES (?, ?)"
END_EPOCH: Final = "UPDATE epoch SET ended_at_us = ? WHERE id = ? AND ended_at_us IS NULL"
EPOCHS: Final = "SELECT id FROM epoch WHERE ended_at_us IS NULL AND id <> ?"
HOLDS_OF_EPOCH: Final = "SELECT id FROM hold WHERE epoch_id = ? AND state = 'held'"

SIZES: Final = """
SELECT (SELECT count(*) FROM account WHERE kind = 'customer'), (SELECT count(*) FROM transfer),
  (SELECT count(*) FROM hold)
"""
# Each returns what is wrong, a row a fault.
UNBALANCED_TRANSFERS: Final = """
SELECT transfer.id, coalesce(sum(amount_nano), 0) FROM transfer
LEFT JOIN entry ON entry.transfer_id = transfer.id
GROUP BY transfer.id HAVING coalesce(sum(amount_nano), 0) <> 0 OR count(entry.seq) < 2
"""
MIXED_TRANSFERS: Final = """
SELECT transfer_id, count(DISTINCT currency) FROM entry JOIN account ON account.id = account_id
GROUP BY transfer_id HAVING count(DISTINCT currency) > 1
"""
WRONG_BALANCES: Final = """
SELECT account.id, posted_nano, coalesce(sum(amount_nano), 0) FROM account
LEFT JOIN entry ON entry.account_id = account.id
GROUP BY account.id HAVING posted_nano <> coalesce(sum(amount_nano), 0)
"""
WRONG_HELD: Final = """
SELECT account.id, held_nano, coalesce(sum(amount_nano), 0) FROM account
LEFT JOIN hold ON hold.account_id = account.id AND hold.state = 'held'
GROUP BY account.id HAVING held_nano <> coalesce(sum(amount_nano), 0)
"""
WRONG_CHARGES: Final = """
SELECT hold.id, charged_nano, coalesce(-amount.amount_nano, 0) FROM hold
LEFT JOIN transfer ON transfer.kind = 'usage' AND transfer.reference = hold.id
LEFT JOIN entry AS amount
  ON amount.transfer_id = transfer.id AND amount.account_id = hold.account_id
WHERE coalesce(charged_nano, 0) <> coalesce(-amount.amount_nano, 0)
"""
WRONG_USAGE: Final = """
SELECT transfer.id, entry.account_id, entry.amount_nano FROM transfer
JOIN entry ON entry.transfer_id = transfer.id
LEFT JOIN account ON account.id = entry.account_id
LEFT JOIN hold ON hold.id = transfer.reference AND hold.state = 'captured'
WHERE transfer.kind = 'usage'
  AND (hold.id IS NULL OR (account.kind = 'customer' AND account.id <> hold.account_id))
"""
WRONG_TOPUPS: Final = """
SELECT transfer.id, count(entry.seq) FROM transfer
JOIN entry ON entry.transfer_id = transfer.id
JOIN account ON account.id = entry.account_id
WHERE transfer.kind = 'topup' GROUP BY transfer.id
HAVING count(entry.seq) <> 2 OR sum(account.kind = 'customer' AND amount_nano > 0) <> 1
  OR sum(account.kind = 'clearing' AND amount_nano < 0) <> 1
"""
STUCK_HOLDS: Final = """
SELECT hold.id, epoch_id FROM hold JOIN epoch ON epoch.id = epoch_id
WHERE hold.state = 'held' AND epoch.ended_at_us IS NOT NULL
"""
MISSING: Final = """
SELECT 'entry ' || seq, transfer_id FROM entry
WHERE NOT EXISTS (SELECT 1 FROM transfer WHERE transfer.id = transfer_id)
UNION ALL
SELECT 'entry ' || seq, account_id FROM entry
WHERE NOT EXISTS (SELECT 1 FROM account WHERE account.id = account_id)
UNION ALL
SELECT hold.id, account_id FROM hold
WHERE NOT EXISTS (SELECT 1 FROM account WHERE account.id = account_id)
UNION ALL
SELECT hold.id, epoch_id FROM hold
WHERE NOT EXISTS (SELECT 1 FROM epoch WHERE epoch.id = epoch_id)
"""
UNSETTLED_REQUESTS: Final = """
SELECT request.id, hold.state FROM request JOIN hold ON hold.id = request.id
WHERE hold.state = 'held'
"""
BELOW_ZERO: Final = """
SELECT id, posted_nano, held_nano FROM account
WHERE kind = 'customer' AND posted_nano - held_nano < 0
"""
