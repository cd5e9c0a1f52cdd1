-- Money: whole nano-units of one currency. Accounts cache what their entries sum up to; entries are
-- added and never changed. Moments are whole microseconds since 1970, UTC.
--
-- A customer has two funds: money that was paid in, and promotional credit, which expires and is
-- spent first. What is held is held on both together.
CREATE TABLE account (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE CHECK (name <> ''),
  kind TEXT NOT NULL CHECK (
    kind IN ('customer', 'clearing', 'revenue', 'loss', 'promotion', 'exchange', 'cost', 'payable')
  ),
  currency TEXT NOT NULL,
  posted_nano INTEGER NOT NULL DEFAULT 0,
  promo_nano INTEGER NOT NULL DEFAULT 0 CHECK (promo_nano >= 0),
  held_nano INTEGER NOT NULL DEFAULT 0 CHECK (held_nano >= 0),
  -- How far below zero requests were ever allowed to go; zero unless the operator said otherwise.
  floor_nano INTEGER NOT NULL DEFAULT 0 CHECK (floor_nano <= 0),
  -- When the first of its credits expires.
  promo_until_us INTEGER,
  -- Below what it was told to be low; NULL once it has been as high again.
  warned_below_nano INTEGER,
  created_at_us INTEGER NOT NULL,
  frozen_at_us INTEGER,
  -- What is held can be paid: no customer's balance ever falls below its floor.
  CHECK (kind <> 'customer' OR posted_nano + promo_nano - held_nano >= floor_nano),
  CHECK (kind <> 'customer' OR posted_nano >= floor_nano),
  CHECK (kind = 'customer' OR promo_nano = 0)
) STRICT, WITHOUT ROWID;

-- What moved money: its entries sum to zero in each currency.
CREATE TABLE transfer (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('topup', 'refund', 'grant', 'expiry', 'usage', 'cost')),
  at_us INTEGER NOT NULL,
  reference TEXT NOT NULL,
  told TEXT NOT NULL CHECK (json_type(told) = 'object'),
  UNIQUE (kind, reference)
) STRICT, WITHOUT ROWID;

CREATE TABLE entry (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  transfer_id TEXT NOT NULL REFERENCES transfer (id),
  account_id TEXT NOT NULL REFERENCES account (id),
  fund TEXT NOT NULL CHECK (fund IN ('money', 'promo')),
  amount_nano INTEGER NOT NULL CHECK (amount_nano <> 0),
  UNIQUE (transfer_id, account_id, fund)
) STRICT;

CREATE INDEX entry_of_account ON entry (account_id, seq);

CREATE TRIGGER transfer_stays BEFORE UPDATE ON transfer BEGIN
  SELECT raise(ABORT, 'transfers are never changed');
END;

CREATE TRIGGER transfer_is_kept BEFORE DELETE ON transfer BEGIN
  SELECT raise(ABORT, 'transfers are never deleted');
END;

CREATE TRIGGER entry_stays BEFORE UPDATE ON entry BEGIN
  SELECT raise(ABORT, 'entries are never changed');
END;

CREATE TRIGGER entry_is_kept BEFORE DELETE ON entry BEGIN
  SELECT raise(ABORT, 'entries are never deleted');
END;

-- Money that came in. Where it came in another currency, what was paid and the declared rate are
-- kept, and a refund goes back the same way.
CREATE TABLE topup (
  id TEXT PRIMARY KEY REFERENCES transfer (id),
  account_id TEXT NOT NULL REFERENCES account (id),
  reference TEXT NOT NULL UNIQUE,
  source TEXT NOT NULL CHECK (source <> ''),
  at_us INTEGER NOT NULL,
  amount_nano INTEGER NOT NULL CHECK (amount_nano > 0),
  currency TEXT NOT NULL,
  paid_nano INTEGER NOT NULL CHECK (paid_nano > 0),
  paid_currency TEXT NOT NULL,
  rate TEXT,
  rate_on TEXT,
  refunded_nano INTEGER NOT NULL DEFAULT 0 CHECK (refunded_nano BETWEEN 0 AND amount_nano),
  refunded_paid_nano INTEGER NOT NULL DEFAULT 0
    CHECK (refunded_paid_nano BETWEEN 0 AND paid_nano),
  CHECK ((rate IS NULL) = (rate_on IS NULL)),
  CHECK (rate IS NOT NULL OR (amount_nano = paid_nano AND currency = paid_currency))
) STRICT, WITHOUT ROWID;

CREATE INDEX topup_of_account ON topup (account_id, at_us);

-- Promotional credit: given for nothing, spent first, gone when it expires, never paid out.
CREATE TABLE credit (
  id TEXT PRIMARY KEY REFERENCES transfer (id),
  account_id TEXT NOT NULL REFERENCES account (id),
  amount_nano INTEGER NOT NULL CHECK (amount_nano > 0),
  left_nano INTEGER NOT NULL CHECK (left_nano BETWEEN 0 AND amount_nano),
  expires_at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX credit_left ON credit (account_id, expires_at_us) WHERE left_nano > 0;

-- A code that is worth money once. Only its SHA-256 is kept.
CREATE TABLE voucher (
  id TEXT PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
  shown TEXT NOT NULL,
  amount_nano INTEGER NOT NULL CHECK (amount_nano > 0),
  currency TEXT NOT NULL,
  -- As credit that expires so many days after it was redeemed; as money where it is absent.
  credit_days INTEGER CHECK (credit_days >= 1),
  issued_at_us INTEGER NOT NULL,
  expires_at_us INTEGER,
  account_id TEXT REFERENCES account (id),
  redeemed_at_us INTEGER,
  CHECK ((account_id IS NULL) = (redeemed_at_us IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TRIGGER voucher_is_redeemed_once BEFORE UPDATE ON voucher WHEN OLD.account_id IS NOT NULL BEGIN
  SELECT raise(ABORT, 'a voucher is redeemed once');
END;

-- A process that may hold money. It has a lock on a file of that name, which the kernel frees when
-- the process dies: whoever can take the lock knows that nobody else ends its holds.
CREATE TABLE epoch (
  id TEXT PRIMARY KEY,
  began_at_us INTEGER NOT NULL,
  ended_at_us INTEGER
) STRICT, WITHOUT ROWID;

-- Money that is set aside for one request: held, and then exactly one of the others, once.
CREATE TABLE hold (
  id TEXT PRIMARY KEY,
  account_id TEXT NOT NULL REFERENCES account (id),
  epoch_id TEXT NOT NULL REFERENCES epoch (id),
  amount_nano INTEGER NOT NULL CHECK (amount_nano >= 0),
  -- On how many budgets it is held too.
  spells INTEGER NOT NULL DEFAULT 0 CHECK (spells >= 0),
  -- What the request had come to when that was last written down, and what is to be told of it
  -- then; only a crash asks for it.
  progress_nano INTEGER NOT NULL DEFAULT 0 CHECK (progress_nano >= 0),
  progress_told TEXT CHECK (progress_told IS NULL OR json_valid(progress_told)),
  state TEXT NOT NULL CHECK (state IN ('held', 'captured', 'released', 'resolved')),
  taken_at_us INTEGER NOT NULL,
  ended_at_us INTEGER,
  charged_nano INTEGER CHECK (charged_nano >= 0),
  CHECK ((state = 'held') = (ended_at_us IS NULL)),
  CHECK (state <> 'captured' OR charged_nano IS NOT NULL),
  CHECK (state IN ('captured', 'resolved') OR charged_nano IS NULL)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER hold_ends_once BEFORE UPDATE ON hold WHEN OLD.state <> 'held' BEGIN
  SELECT raise(ABORT, 'a hold ends once');
END;

CREATE INDEX hold_open ON hold (epoch_id) WHERE state = 'held';

-- What may be spent by a key, an account or a tag in each day, week, month, or ever.
CREATE TABLE budget (
  id TEXT PRIMARY KEY,
  subject TEXT NOT NULL CHECK (
    subject GLOB 'key:?*' OR subject GLOB 'account:?*' OR subject GLOB 'tag:?*=?*'
  ),
  period TEXT NOT NULL CHECK (period IN ('day', 'week', 'month', 'total')),
  amount_nano INTEGER NOT NULL CHECK (amount_nano >= 0),
  currency TEXT NOT NULL,
  created_at_us INTEGER NOT NULL,
  ended_at_us INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX budget_in_force ON budget (subject, period) WHERE ended_at_us IS NULL;

-- One day, week or month of a budget.
CREATE TABLE spell (
  budget_id TEXT NOT NULL REFERENCES budget (id),
  starts_at_us INTEGER NOT NULL,
  spent_nano INTEGER NOT NULL DEFAULT 0 CHECK (spent_nano >= 0),
  held_nano INTEGER NOT NULL DEFAULT 0 CHECK (held_nano >= 0),
  PRIMARY KEY (budget_id, starts_at_us)
) STRICT, WITHOUT ROWID;

-- Which spells a hold counts in.
CREATE TABLE hold_spell (
  hold_id TEXT NOT NULL REFERENCES hold (id),
  budget_id TEXT NOT NULL,
  starts_at_us INTEGER NOT NULL,
  PRIMARY KEY (hold_id, budget_id),
  FOREIGN KEY (budget_id, starts_at_us) REFERENCES spell (budget_id, starts_at_us)
) STRICT, WITHOUT ROWID;

CREATE INDEX hold_spell_of ON hold_spell (budget_id, starts_at_us);

ALTER TABLE key ADD COLUMN account_id TEXT;
