"""This file knows how a ledger can be damaged, and which rules must find it."""

from typing import Final

from books import EPOCH

SUMS = "the entries of a transfer sum to zero in each currency, and are two at least"
TWO = "only money that was paid in another currency is in two"
BALANCE = "a balance is the sum of its entries"
PROMO = "promotional credit is the sum of its entries"
CREDITS = "promotional credit is what is left of the credits"
GRANT = "a credit was given by its transfer"
HELD = "what is held is the sum of the open holds"
CHARGED = "a hold was charged what it says, and once"
USAGE = "only a hold that was charged is used, by its account"
TOPUP = "a top-up goes from clearing to one customer, as it says"
REFUND = "what of a top-up went back is the sum of its refunds"
VOUCHER = "a voucher that was redeemed was booked, once"
BUDGET_HELD = "what a budget holds is the sum of its open holds"
BUDGET_SPENT = "what a budget spent is the sum of its charges"
COUNTED = "a hold counts in as many budgets as it says"
STUCK = "a process that has ended holds nothing"
MISSING = "whatever is named is there"
SETTLED = "a request that has ended is settled"
JOURNAL = "a request costs in the journal what it was charged"
BELOW = "nobody has less than their floor"

OTHER = "(SELECT id FROM account WHERE name = 'other')"
A_REQUEST = """
INSERT INTO request (id, at_us, tags, asked, total_us, attempts, outcome, client_gone, drift)
VALUES ('held', 0, '{}', 'fast', 1, 1, 'completed', 0, 0)
"""


def booked(kind: str, reference: str, **nano: int) -> str:
    """SQL that moves money between accounts, by name, and keeps their balances right."""
    sql = f"""
        INSERT INTO transfer (id, kind, at_us, reference, told)
        VALUES ('x', '{kind}', 0, '{reference}', '{{}}');
    """
    for name, amount in nano.items():
        account = f"(SELECT id FROM account WHERE name IN ('{name}', ':{name}:USD'))"
        sql += f"""
            INSERT INTO entry (transfer_id, account_id, fund, amount_nano)
            VALUES ('x', {account}, 'money', {amount});
            UPDATE account SET posted_nano = posted_nano + {amount} WHERE id = {account};
        """
    return sql


DAMAGES: Final[dict[str, tuple[str, set[str]]]] = {
    "an entry is changed": (
        "UPDATE entry SET amount_nano = amount_nano + 1 WHERE seq = 1",
        {SUMS, BALANCE, TOPUP},
    ),
    "an entry is of the other fund": (
        "UPDATE entry SET fund = 'promo' WHERE transfer_id = 'use_captured' AND amount_nano < 0",
        {BALANCE, PROMO},
    ),
    "an entry is gone": ("DELETE FROM entry WHERE seq = 1", {SUMS, BALANCE, TOPUP}),
    "all entries of a transfer are gone": (
        "DELETE FROM entry WHERE transfer_id = 'use_captured'",
        {SUMS, BALANCE, CHARGED},
    ),
    "a transfer is gone": ("DELETE FROM transfer WHERE id = 'use_captured'", {MISSING, CHARGED}),
    "a transfer has one entry": (booked("topup", "x", acme=7), {SUMS, TOPUP}),
    "a transfer does not sum to zero": (booked("topup", "x", acme=7, clearing=-6), {SUMS, TOPUP}),
    "an entry is of another currency": (
        "UPDATE entry SET account_id = (SELECT id FROM account WHERE name = 'cn') WHERE seq = 1",
        {SUMS, BALANCE, TOPUP},
    ),
    "money was used in two currencies": (
        booked("expiry", "x", acme=5, other=-5, cn=7, **{":clearing:CNY": -7}),
        {TWO},
    ),
    "promotional credit is written by hand": (
        "UPDATE account SET promo_nano = promo_nano + 1 WHERE name = 'gifted'",
        {PROMO, CREDITS},
    ),
    "what is left of a credit is written by hand": (
        "UPDATE credit SET left_nano = left_nano + 1 WHERE id = 'crd_half'",
        {CREDITS},
    ),
    "nobody knows when credit expires": (
        "UPDATE account SET promo_until_us = NULL WHERE name = 'gifted'",
        {CREDITS},
    ),
    "credit expires later than its account knows": (
        "UPDATE credit SET expires_at_us = expires_at_us + 1 WHERE id = 'crd_gone'",
        {CREDITS},
    ),
    "a credit says another amount": (
        "UPDATE credit SET amount_nano = amount_nano + 1 WHERE id = 'crd_spent'",
        {GRANT},
    ),
    "a credit is another account's": (
        f"UPDATE credit SET account_id = {OTHER} WHERE id = 'crd_spent'",
        {GRANT},
    ),
    "a credit is gone": ("DELETE FROM credit WHERE id = 'crd_spent'", {GRANT}),
    "a credit is gone of which some is left": (
        "DELETE FROM credit WHERE id = 'crd_kept'",
        {GRANT, CREDITS},
    ),
    "a balance is written by hand": (
        "UPDATE account SET posted_nano = posted_nano + 1 WHERE name = 'acme'",
        {BALANCE},
    ),
    "our own balance is written by hand": (
        "UPDATE account SET posted_nano = 0 WHERE id = ':revenue:USD'",
        {BALANCE},
    ),
    "an account is gone": ("DELETE FROM account WHERE name = 'other'", {SUMS, MISSING, TOPUP}),
    "held is written by hand": ("UPDATE account SET held_nano = 0 WHERE name = 'other'", {HELD}),
    "a hold is larger than what is held": (
        "UPDATE hold SET amount_nano = amount_nano + 1 WHERE id = 'held'",
        {HELD},
    ),
    "a hold ended and nothing was given back": (
        "UPDATE hold SET state = 'released', ended_at_us = 1 WHERE id = 'held'",
        {HELD},
    ),
    "a hold is gone": ("DELETE FROM hold WHERE id = 'held'", {HELD}),
    "a captured hold is gone": ("DELETE FROM hold WHERE id = 'captured'", {USAGE}),
    "a hold was captured without a charge": (
        "UPDATE hold SET state = 'captured', charged_nano = 3 WHERE id = 'released'",
        {CHARGED, JOURNAL},
    ),
    "a hold says another charge": (
        "UPDATE hold SET charged_nano = charged_nano + 1 WHERE id = 'captured'",
        {CHARGED, JOURNAL},
    ),
    "a released hold was charged": (
        booked("usage", "released", other=-5, revenue=5),
        {USAGE},
    ),
    "a released hold was charged to its account": (
        booked("usage", "released", acme=-5, revenue=5),
        {CHARGED, USAGE},
    ),
    "what was never held was charged": (
        booked("usage", "never", other=-5, revenue=5),
        {USAGE},
    ),
    "a loss was booked for what was never held": (
        booked("usage", "never", loss=-5, revenue=5),
        {USAGE},
    ),
    "a hold was charged to another account": (
        booked("usage", "free", other=-5, revenue=5),
        {USAGE},
    ),
    "a top-up takes money from another customer": (
        booked("topup", "x", acme=7, other=-7),
        {TOPUP},
    ),
    "a process ended and went on holding": (
        f"UPDATE epoch SET ended_at_us = 1 WHERE id = '{EPOCH}'",
        {STUCK},
    ),
    "a process was never there": (f"DELETE FROM epoch WHERE id = '{EPOCH}'", {MISSING}),
    "a request ended and is still held for": (A_REQUEST, {SETTLED}),
    "a request ended without a row": ("DELETE FROM request WHERE id = 'captured'", {JOURNAL}),
    "a row says another cost": (
        "UPDATE request SET cost_nano = cost_nano + 1 WHERE id = 'captured'",
        {JOURNAL},
    ),
    "a row says a cost of what was given back": (
        "UPDATE request SET cost_nano = 1, currency = 'USD' WHERE id = 'released'",
        {JOURNAL},
    ),
    "a balance fell below zero": (
        f"""
        INSERT INTO hold (id, account_id, epoch_id, amount_nano, spells, state, taken_at_us)
        VALUES ('x', {OTHER}, '{EPOCH}', 4000000000, 0, 'held', 0);
        UPDATE account SET held_nano = held_nano + 4000000000 WHERE id = {OTHER}
        """,
        {BELOW},
    ),
    "a balance is below its floor": (
        "UPDATE account SET floor_nano = floor_nano + 1 WHERE name = 'deep'",
        {BELOW},
    ),
    "a top-up says another amount": (
        "UPDATE topup SET amount_nano = amount_nano + 1 WHERE reference = 'first-of-other'",
        {TOPUP},
    ),
    "a top-up is gone": ("DELETE FROM topup WHERE reference = 'first-of-other'", {TOPUP}),
    "a top-up of which some went back is gone": (
        "DELETE FROM topup WHERE reference = 'yuan'",
        {TOPUP, REFUND},
    ),
    "more of a top-up went back than its refunds say": (
        "UPDATE topup SET refunded_nano = refunded_nano + 1 WHERE reference = 'yuan'",
        {REFUND},
    ),
    "more of a top-up was paid out than its refunds say": (
        "UPDATE topup SET refunded_paid_nano = refunded_paid_nano - 1 WHERE reference = 'yuan'",
        {REFUND},
    ),
    "a refund is of no top-up": (booked("refund", "x", acme=-5, clearing=5), {REFUND}),
    "a voucher was redeemed and not booked": (
        f"""
        UPDATE voucher SET account_id = {OTHER}, redeemed_at_us = 1
        WHERE account_id IS NULL AND credit_days IS NULL
        """,
        {VOUCHER},
    ),
    "a voucher was booked and not redeemed": (
        """
        UPDATE voucher SET account_id = NULL, redeemed_at_us = NULL
        WHERE account_id IS NOT NULL AND credit_days IS NULL
        """,
        {VOUCHER},
    ),
    "a voucher of credit was booked and not redeemed": (
        """
        UPDATE voucher SET account_id = NULL, redeemed_at_us = NULL
        WHERE account_id IS NOT NULL AND credit_days > 0
        """,
        {VOUCHER},
    ),
    "a voucher was worth something else": (
        "UPDATE voucher SET amount_nano = amount_nano + 1 WHERE credit_days > 0",
        {VOUCHER},
    ),
    "another account has redeemed a voucher": (
        f"UPDATE voucher SET account_id = {OTHER} WHERE account_id IS NOT NULL",
        {VOUCHER},
    ),
    "what a budget holds is written by hand": (
        "UPDATE spell SET held_nano = held_nano + 1",
        {BUDGET_HELD},
    ),
    "a hold counts in no budget any more": (
        "DELETE FROM hold_spell WHERE hold_id = 'bound-held'",
        {BUDGET_HELD, COUNTED},
    ),
    "what a budget spent is written by hand": (
        "UPDATE spell SET spent_nano = 0",
        {BUDGET_SPENT},
    ),
    "a charge counts in no budget any more": (
        "DELETE FROM hold_spell WHERE hold_id = 'bound-captured'",
        {BUDGET_SPENT, COUNTED},
    ),
    "a charge counts in a budget that it was never held on": (
        """
        INSERT INTO hold_spell (hold_id, budget_id, starts_at_us)
        SELECT 'captured', budget_id, starts_at_us FROM spell LIMIT 1
        """,
        {BUDGET_SPENT, COUNTED},
    ),
    "a hold says that it counts in more budgets": (
        "UPDATE hold SET spells = spells + 1 WHERE id = 'bound-held'",
        {COUNTED},
    ),
    "a spell is gone": ("DELETE FROM spell", {MISSING}),
    "a budget is gone": ("DELETE FROM budget", {MISSING}),
    "a hold of a budget is gone": (
        "DELETE FROM hold WHERE id = 'bound-released'",
        {MISSING},
    ),
    "a claim is of nothing": (
        "UPDATE claim SET request_id = 'never' WHERE word = 'claimed'",
        {MISSING},
    ),
    "an answer is of nothing that was charged": (
        "UPDATE answer SET request_id = 'released'",
        {MISSING},
    ),
    "the dead were charged otherwise than was booked": (
        "UPDATE hold SET charged_nano = NULL WHERE id = 'of-the-dead'",
        {CHARGED, USAGE, JOURNAL},
    ),
}
