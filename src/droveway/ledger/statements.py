"""This file knows the SQL of the ledger; entries and holds are written nowhere else."""

from typing import Final

# Accounts. What of their credit has expired is told beside them, swept or not.
_ACCOUNTS: Final = """
SELECT id, name, currency, posted_nano, promo_nano, held_nano, created_at_us, frozen_at_us,
  (SELECT coalesce(sum(left_nano), 0) FROM credit
   WHERE credit.account_id = account.id AND left_nano > 0 AND expires_at_us <= ?1)
FROM account WHERE kind = 'customer'
"""
CUSTOMERS: Final = f"{_ACCOUNTS} ORDER BY created_at_us, id"
CUSTOMER: Final = f"{_ACCOUNTS} AND (id = ?2 OR name = ?2) ORDER BY id = ?2 DESC LIMIT 1"
OPEN_ACCOUNT: Final = """
INSERT INTO account (id, name, kind, currency, created_at_us) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
FREEZE: Final = "UPDATE account SET frozen_at_us = ? WHERE id = ? AND frozen_at_us IS NULL"
THAW: Final = "UPDATE account SET frozen_at_us = NULL WHERE id = ? AND frozen_at_us IS NOT NULL"
BALANCE: Final = "SELECT posted_nano FROM account WHERE id = ?"
# What is available, where no credit has expired: a tenth of the time of a whole account.
FREE: Final = """
SELECT posted_nano + promo_nano - held_nano, currency FROM account
WHERE id = ? AND kind = 'customer' AND (promo_until_us IS NULL OR promo_until_us > ?)
"""
FUNDS: Final = "SELECT posted_nano, promo_nano, held_nano, currency FROM account WHERE id = ?"
WARN: Final = """
UPDATE account SET warned_below_nano = ?1 WHERE id = ?2 AND (warned_below_nano IS NULL OR ?3)
"""
ADD_NOTICE: Final = """
INSERT INTO notice (id, kind, about, body, made_at_us, due_at_us) VALUES (?, ?, ?, ?, ?, ?)
"""

# What moves money.
ADD_TRANSFER: Final = (
    "INSERT INTO transfer (id, kind, at_us, reference, told) VALUES (?, ?, ?, ?, ?)"
)
# A balance that is again as high as when it was told to be low will be told again.
POST: Final = """
UPDATE account SET posted_nano = posted_nano + ?1, warned_below_nano =
  CASE WHEN posted_nano + promo_nano + ?1 >= warned_below_nano THEN NULL ELSE warned_below_nano END
WHERE id = ?2 AND currency = ?3
"""
MOVE: Final = """
UPDATE account SET held_nano = held_nano + ?, posted_nano = posted_nano + ?,
  promo_nano = promo_nano + ? WHERE id = ?
"""
ENTRIES_OF: Final = """
SELECT kind, at_us, reference, told, fund, amount_nano FROM entry
JOIN transfer ON transfer.id = transfer_id
WHERE account_id = ?1 AND at_us >= ?2 AND at_us < ?3 ORDER BY entry.seq
"""
USED_SINCE: Final = """
SELECT coalesce(-sum(amount_nano), 0) FROM entry JOIN transfer ON transfer.id = transfer_id
WHERE account_id = ? AND kind = 'usage' AND at_us >= ?
"""

# Top-ups and refunds.
_TOPUPS: Final = """
SELECT id, account_id, reference, source, at_us, amount_nano, currency, paid_nano, paid_currency,
  rate, rate_on, refunded_nano, refunded_paid_nano FROM topup
"""
TOPUP_BY_REFERENCE: Final = f"{_TOPUPS} WHERE reference = ?"
TOPUPS_OF: Final = f"{_TOPUPS} WHERE account_id = ? ORDER BY at_us, id"
ADD_TOPUP: Final = """
INSERT INTO topup (id, account_id, reference, source, at_us, amount_nano, currency, paid_nano,
  paid_currency, rate, rate_on) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
NOTE_REFUND: Final = """
UPDATE topup SET refunded_nano = refunded_nano + ?, refunded_paid_nano = refunded_paid_nano + ?
WHERE id = ?
"""
REFUND_BY_REFERENCE: Final = """
SELECT transfer.id, reference, told, amount_nano, currency FROM transfer
JOIN entry ON entry.transfer_id = transfer.id
JOIN account ON account.id = account_id AND account.kind = 'customer'
WHERE transfer.kind = 'refund' AND reference = ?
"""

# Promotional credit.
CREDIT_OF: Final = """
SELECT credit.id, account_id, amount_nano, left_nano, expires_at_us, currency, reference
FROM transfer JOIN credit ON credit.id = transfer.id JOIN account ON account.id = account_id
WHERE transfer.kind = 'grant' AND reference = ?
"""
CREDITS_OF: Final = """
SELECT credit.id, account_id, amount_nano, left_nano, expires_at_us, currency, reference
FROM credit JOIN transfer ON transfer.id = credit.id JOIN account ON account.id = account_id
WHERE account_id = ? ORDER BY expires_at_us, credit.id
"""
ADD_CREDIT: Final = """
INSERT INTO credit (id, account_id, amount_nano, left_nano, expires_at_us)
VALUES (?1, ?2, ?3, ?3, ?4)
"""
POST_PROMO: Final = """
UPDATE account SET promo_nano = promo_nano + ?1, warned_below_nano =
    CASE WHEN posted_nano + promo_nano + ?1 >= warned_below_nano THEN NULL
      ELSE warned_below_nano END,
  promo_until_us = CASE WHEN ?2 IS NULL THEN promo_until_us
    ELSE min(coalesce(promo_until_us, ?2), ?2) END
WHERE id = ?3 AND currency = ?4
"""
CREDITS_LEFT: Final = """
SELECT id, left_nano FROM credit WHERE account_id = ? AND left_nano > 0
ORDER BY expires_at_us, id
"""
CREDITS_EXPIRED: Final = """
SELECT id, left_nano FROM credit WHERE account_id = ? AND left_nano > 0 AND expires_at_us <= ?
ORDER BY expires_at_us, id
"""
SPEND_CREDIT: Final = "UPDATE credit SET left_nano = left_nano - ? WHERE id = ?"
NEXT_EXPIRY: Final = """
UPDATE account SET promo_until_us =
  (SELECT min(expires_at_us) FROM credit WHERE account_id = account.id AND left_nano > 0)
WHERE id = ?
"""
EXPIRIES_OF: Final = """
SELECT count(*) FROM transfer
WHERE kind = 'expiry' AND reference > ?1 || '/' AND reference < ?1 || '0'
"""
WITH_EXPIRED: Final = """
SELECT DISTINCT account_id FROM credit WHERE left_nano > 0 AND expires_at_us <= ?
"""

# Vouchers.
_VOUCHERS: Final = """
SELECT id, shown, amount_nano, currency, credit_days, issued_at_us, expires_at_us, account_id,
  redeemed_at_us FROM voucher
"""
VOUCHERS: Final = f"{_VOUCHERS} ORDER BY issued_at_us, id"
VOUCHER_BY_DIGEST: Final = f"{_VOUCHERS} WHERE digest = ?"
ADD_VOUCHER: Final = """
INSERT INTO voucher (id, shown, amount_nano, currency, credit_days, issued_at_us, expires_at_us,
  digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
REDEEM: Final = """
UPDATE voucher SET account_id = ?, redeemed_at_us = ? WHERE id = ? AND account_id IS NULL
"""

# Budgets.
BUDGETS: Final = """
SELECT id, subject, period, amount_nano, currency FROM budget WHERE ended_at_us IS NULL
ORDER BY subject, period
"""
BUDGET_OF: Final = """
SELECT id, subject, period, amount_nano, currency FROM budget
WHERE subject = ? AND period = ? AND ended_at_us IS NULL
"""
BUDGETS_OF: Final = """
SELECT id, subject, period, amount_nano FROM budget
WHERE subject IN (?) AND ended_at_us IS NULL AND currency = ?
"""
ADD_BUDGET: Final = """
INSERT INTO budget (id, subject, period, amount_nano, currency, created_at_us)
VALUES (?, ?, ?, ?, ?, ?)
"""
CHANGE_BUDGET: Final = """
UPDATE budget SET amount_nano = ?
WHERE currency = ? AND subject = ? AND period = ? AND ended_at_us IS NULL
"""
END_BUDGET: Final = """
UPDATE budget SET ended_at_us = ? WHERE subject = ? AND period = ? AND ended_at_us IS NULL
"""
SPELL: Final = "SELECT spent_nano, held_nano FROM spell WHERE budget_id = ? AND starts_at_us = ?"
OPEN_SPELL: Final = (
    "INSERT INTO spell (budget_id, starts_at_us) VALUES (?, ?) ON CONFLICT DO NOTHING"
)
# What is not left of a budget cannot be held, whoever else holds at this moment; one that has ended
# bounds nothing any more.
HOLD_IN_SPELL: Final = """
UPDATE spell SET held_nano = held_nano + ?1 WHERE budget_id = ?2 AND starts_at_us = ?3
  AND (SELECT ended_at_us IS NOT NULL OR amount_nano - spent_nano - held_nano >= ?1
       FROM budget WHERE id = ?2)
"""
ADD_HOLD_SPELL: Final = "INSERT INTO hold_spell (hold_id, budget_id, starts_at_us) VALUES (?, ?, ?)"
SPELLS_OF_HOLD: Final = """
SELECT spell.budget_id, spell.starts_at_us, subject, period, amount_nano,
  max(0, amount_nano - spent_nano - held_nano)
FROM hold_spell JOIN spell USING (budget_id, starts_at_us) JOIN budget ON budget.id = budget_id
WHERE hold_id = ?
"""
END_IN_SPELLS: Final = """
UPDATE spell SET held_nano = held_nano - ?1, spent_nano = spent_nano + ?2
WHERE (budget_id, starts_at_us) IN
  (SELECT budget_id, starts_at_us FROM hold_spell WHERE hold_id = ?3)
"""

# Holds. The guard of all guards: what is not there cannot be held, whoever else holds at this
# moment. Credit that has expired stops it, and must go first.
SET_ASIDE: Final = """
UPDATE account SET held_nano = held_nano + ?1, floor_nano = min(floor_nano, ?4)
WHERE id = ?2 AND kind = 'customer' AND currency = ?3 AND frozen_at_us IS NULL
  AND posted_nano + promo_nano - held_nano - ?1 >= ?4
  AND (promo_until_us IS NULL OR ?5 IS NULL OR promo_until_us > ?5)
"""
ADD_HOLD: Final = """
INSERT INTO hold (id, account_id, epoch_id, amount_nano, spells, state, taken_at_us)
VALUES (?, ?, ?, ?, ?, 'held', ?)
"""
EXTEND_HOLD: Final = """
UPDATE hold SET amount_nano = amount_nano + ?1
WHERE id = ?2 AND account_id = ?3 AND state = 'held'
"""
NOTE_PROGRESS: Final = """
UPDATE hold SET progress_nano = ?, progress_told = ? WHERE id = ? AND state = 'held'
"""
# Asked apart from its account: a join of the two took five times as long.
OPEN_HOLD: Final = """
SELECT account_id, amount_nano, spells, progress_nano FROM hold WHERE id = ? AND state = 'held'
"""
PURSE: Final = """
SELECT posted_nano, promo_nano, held_nano, floor_nano, currency FROM account WHERE id = ?
"""
PROGRESS_TOLD: Final = "SELECT progress_told FROM hold WHERE id = ?"
END_HOLD: Final = """
UPDATE hold SET state = ?2, ended_at_us = ?3, charged_nano = ?4, progress_told = NULL
WHERE id = ?1 AND state = 'held'
"""
END_HOLD_FREE: Final = """
UPDATE hold SET state = ?2, ended_at_us = ?3, progress_told = NULL
WHERE id = ?1 AND state = 'held'
RETURNING account_id, amount_nano, spells
"""

# Claims.
CLAIM: Final = """
SELECT digest, claim.request_id, state, charged_nano, currency FROM claim
JOIN hold ON hold.id = claim.request_id JOIN account ON account.id = hold.account_id
WHERE key_id = ? AND word = ? AND at_us > ?
"""
STAKE: Final = """
INSERT INTO claim (key_id, word, digest, request_id, at_us) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
  digest = excluded.digest, request_id = excluded.request_id, at_us = excluded.at_us
"""
KEEP_ANSWER: Final = "INSERT INTO answer (request_id, at_us, body) VALUES (?, ?, ?)"
ANSWER: Final = "SELECT body FROM answer WHERE request_id = ? AND at_us > ?"
FORGET_ANSWERS: Final = """
DELETE FROM answer WHERE request_id IN
  (SELECT request_id FROM answer WHERE at_us <= ? ORDER BY at_us LIMIT ?)
"""
FORGET_CLAIMS: Final = """
DELETE FROM claim WHERE (key_id, word) IN
  (SELECT key_id, word FROM claim WHERE at_us <= ? ORDER BY at_us LIMIT ?)
"""

# Epochs.
ADD_EPOCH: Final = "INSERT INTO epoch (id, began_at_us) VALUES (?, ?)"
END_EPOCH: Final = "UPDATE epoch SET ended_at_us = ? WHERE id = ? AND ended_at_us IS NULL"
EPOCHS: Final = "SELECT id FROM epoch WHERE ended_at_us IS NULL AND id <> ?"
HOLDS_OF_EPOCH: Final = "SELECT id FROM hold WHERE epoch_id = ? AND state = 'held'"

SIZES: Final = """
SELECT (SELECT count(*) FROM account WHERE kind = 'customer'), (SELECT count(*) FROM transfer),
  (SELECT count(*) FROM hold)
"""
