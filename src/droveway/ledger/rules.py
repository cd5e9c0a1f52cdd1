"""This file knows what must be true of a ledger: each rule is a question for what breaks it."""

from collections.abc import Mapping
from typing import Final

# What each returns is wrong, a row a fault.
RULES: Final[Mapping[str, str]] = {
    "the entries of a transfer sum to zero in each currency, and are two at least": """
SELECT transfer.id, coalesce(sum(amount_nano), 0), coalesce(currency, '') FROM transfer
LEFT JOIN entry ON entry.transfer_id = transfer.id
LEFT JOIN account ON account.id = account_id
GROUP BY transfer.id, currency
HAVING coalesce(sum(amount_nano), 0) <> 0 OR count(entry.seq) < 2
""",
    "only money that was paid in another currency is in two": """
SELECT transfer.id, kind, count(DISTINCT currency) FROM transfer
JOIN entry ON entry.transfer_id = transfer.id
JOIN (SELECT id AS account, currency FROM account) ON account = account_id
GROUP BY transfer.id
HAVING count(DISTINCT currency) > (CASE WHEN kind IN ('topup', 'refund') THEN 2 ELSE 1 END)
""",
    "a balance is the sum of its entries": """
SELECT account.id, posted_nano, coalesce(sum(amount_nano), 0) FROM account
LEFT JOIN entry ON entry.account_id = account.id AND fund = 'money'
GROUP BY account.id HAVING posted_nano <> coalesce(sum(amount_nano), 0)
""",
    "promotional credit is the sum of its entries": """
SELECT account.id, promo_nano, coalesce(sum(amount_nano), 0) FROM account
LEFT JOIN entry ON entry.account_id = account.id AND fund = 'promo'
GROUP BY account.id HAVING promo_nano <> coalesce(sum(amount_nano), 0)
""",
    "promotional credit is what is left of the credits": """
SELECT account.id, promo_nano, coalesce(sum(left_nano), 0), promo_until_us FROM account
LEFT JOIN credit ON credit.account_id = account.id AND left_nano > 0
GROUP BY account.id
HAVING promo_nano <> coalesce(sum(left_nano), 0) OR promo_until_us IS NOT min(expires_at_us)
""",
    "a credit was given by its transfer": """
SELECT credit.id, credit.amount_nano, coalesce(entry.amount_nano, 0) FROM credit
LEFT JOIN transfer ON transfer.id = credit.id AND transfer.kind = 'grant'
LEFT JOIN entry ON entry.transfer_id = transfer.id AND entry.account_id = credit.account_id
  AND fund = 'promo'
WHERE credit.amount_nano <> coalesce(entry.amount_nano, 0)
UNION ALL
SELECT id, kind, 'no credit' FROM transfer
WHERE kind = 'grant' AND NOT EXISTS (SELECT 1 FROM credit WHERE credit.id = transfer.id)
""",
    "what is held is the sum of the open holds": """
SELECT account.id, held_nano, coalesce(sum(amount_nano), 0) FROM account
LEFT JOIN hold ON hold.account_id = account.id AND hold.state = 'held'
GROUP BY account.id HAVING held_nano <> coalesce(sum(amount_nano), 0)
""",
    "a hold was charged what it says, and once": """
SELECT hold.id, charged_nano, coalesce(-sum(entry.amount_nano), 0) FROM hold
LEFT JOIN transfer ON transfer.kind = 'usage' AND transfer.reference = hold.id
LEFT JOIN entry
  ON entry.transfer_id = transfer.id AND entry.account_id = hold.account_id
GROUP BY hold.id HAVING coalesce(charged_nano, 0) <> coalesce(-sum(entry.amount_nano), 0)
""",
    "only a hold that was charged is used, by its account": """
SELECT transfer.id, entry.account_id, entry.amount_nano FROM transfer
JOIN entry ON entry.transfer_id = transfer.id
LEFT JOIN account ON account.id = entry.account_id
LEFT JOIN hold ON hold.id = transfer.reference AND hold.charged_nano IS NOT NULL
WHERE transfer.kind = 'usage'
  AND (hold.id IS NULL OR (account.kind = 'customer' AND account.id <> hold.account_id))
""",
    "a top-up goes from clearing to one customer, as it says": """
SELECT topup.id, topup.amount_nano, coalesce(entry.amount_nano, 0) FROM topup
LEFT JOIN transfer ON transfer.id = topup.id AND transfer.kind = 'topup'
  AND transfer.reference = topup.reference
LEFT JOIN entry ON entry.transfer_id = transfer.id AND entry.account_id = topup.account_id
  AND fund = 'money'
WHERE topup.amount_nano <> coalesce(entry.amount_nano, 0)
UNION ALL
SELECT transfer.id, count(*), sum(account.kind = 'customer') FROM transfer
JOIN entry ON entry.transfer_id = transfer.id JOIN account ON account.id = entry.account_id
WHERE transfer.kind = 'topup' GROUP BY transfer.id
HAVING sum(account.kind = 'customer') <> 1 OR sum(account.kind = 'clearing') <> 1
  OR NOT EXISTS (SELECT 1 FROM topup WHERE topup.id = transfer.id)
""",
    "what of a top-up went back is the sum of its refunds": """
SELECT topup.id, refunded_nano, coalesce(-sum(mine.amount_nano), 0), refunded_paid_nano,
  coalesce(sum(paid.amount_nano), 0)
FROM topup
LEFT JOIN transfer ON transfer.kind = 'refund' AND transfer.told ->> 'topup' = topup.id
LEFT JOIN entry AS mine
  ON mine.transfer_id = transfer.id AND mine.account_id = topup.account_id
LEFT JOIN entry AS paid
  ON paid.transfer_id = transfer.id AND paid.account_id = ':clearing:' || topup.paid_currency
GROUP BY topup.id HAVING refunded_nano <> coalesce(-sum(mine.amount_nano), 0)
  OR refunded_paid_nano <> coalesce(sum(paid.amount_nano), 0)
UNION ALL
SELECT id, kind, 'no top-up', 0, 0 FROM transfer WHERE kind = 'refund'
  AND NOT EXISTS (SELECT 1 FROM topup WHERE topup.id = transfer.told ->> 'topup')
""",
    "a voucher that was redeemed was booked, once": """
SELECT voucher.id, account_id, amount_nano FROM voucher
WHERE account_id IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM topup WHERE topup.reference = voucher.id
    AND topup.account_id = voucher.account_id AND topup.amount_nano = voucher.amount_nano
  UNION ALL
  SELECT 1 FROM credit WHERE credit.id = 'crd_' || voucher.id
    AND credit.account_id = voucher.account_id AND credit.amount_nano = voucher.amount_nano)
UNION ALL
SELECT id, account_id, amount_nano FROM voucher WHERE account_id IS NULL AND (
  EXISTS (SELECT 1 FROM topup WHERE topup.reference = voucher.id AND source = 'voucher')
  OR EXISTS (SELECT 1 FROM credit WHERE credit.id = 'crd_' || voucher.id))
""",
    "what a budget holds is the sum of its open holds": """
SELECT spell.budget_id || ' ' || spell.starts_at_us, spell.held_nano,
  coalesce(sum(hold.amount_nano), 0)
FROM spell LEFT JOIN hold_spell USING (budget_id, starts_at_us)
LEFT JOIN hold ON hold.id = hold_id AND hold.state = 'held'
GROUP BY spell.budget_id, spell.starts_at_us
HAVING spell.held_nano <> coalesce(sum(hold.amount_nano), 0)
""",
    "what a budget spent is the sum of its charges": """
SELECT spell.budget_id || ' ' || spell.starts_at_us, spell.spent_nano,
  coalesce(sum(hold.charged_nano), 0)
FROM spell LEFT JOIN hold_spell USING (budget_id, starts_at_us)
LEFT JOIN hold ON hold.id = hold_id
GROUP BY spell.budget_id, spell.starts_at_us
HAVING spell.spent_nano <> coalesce(sum(hold.charged_nano), 0)
""",
    "a hold counts in as many budgets as it says": """
SELECT hold.id, spells, count(budget_id) FROM hold LEFT JOIN hold_spell ON hold_id = hold.id
GROUP BY hold.id HAVING spells <> count(budget_id)
""",
    "a process that has ended holds nothing": """
SELECT hold.id, epoch_id FROM hold JOIN epoch ON epoch.id = epoch_id
WHERE hold.state = 'held' AND epoch.ended_at_us IS NOT NULL
""",
    "whatever is named is there": """
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
UNION ALL
SELECT 'spell of ' || budget_id, starts_at_us FROM spell
WHERE NOT EXISTS (SELECT 1 FROM budget WHERE budget.id = budget_id)
UNION ALL
SELECT 'budget of ' || hold_id, budget_id FROM hold_spell
WHERE NOT EXISTS (SELECT 1 FROM spell WHERE spell.budget_id = hold_spell.budget_id
    AND spell.starts_at_us = hold_spell.starts_at_us)
  OR NOT EXISTS (SELECT 1 FROM hold WHERE hold.id = hold_id)
UNION ALL
SELECT 'claim ' || word, request_id FROM claim
WHERE NOT EXISTS (SELECT 1 FROM hold WHERE hold.id = request_id)
UNION ALL
SELECT 'answer ' || request_id, request_id FROM answer
WHERE NOT EXISTS (SELECT 1 FROM hold WHERE hold.id = request_id AND charged_nano IS NOT NULL)
""",
    "a request that has ended is settled": """
SELECT request.id, hold.state FROM request JOIN hold ON hold.id = request.id
WHERE hold.state = 'held'
""",
    "a request costs in the journal what it was charged": """
SELECT request.id, cost_nano, charged_nano FROM request JOIN hold ON hold.id = request.id
WHERE coalesce(cost_nano, 0) <> coalesce(charged_nano, 0)
UNION ALL
SELECT hold.id, 'no row', charged_nano FROM hold
WHERE charged_nano IS NOT NULL AND NOT EXISTS (SELECT 1 FROM request WHERE request.id = hold.id)
  -- Rows are let go with time; whoever held an hour after the oldest that is kept has one.
  AND taken_at_us > (SELECT min(at_us) + 3600000000 FROM request)
""",
    "nobody has less than their floor": """
SELECT id, posted_nano, promo_nano, held_nano, floor_nano FROM account
WHERE kind = 'customer'
  AND (posted_nano + promo_nano - held_nano < floor_nano OR posted_nano < floor_nano)
""",
}
