-- Money: whole nano-units of one currency. Accounts cache what their entries sum up to; entries are
-- added and never changed. Moments are whole microseconds since 1970, UTC.
CREATE TABLE account (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE CHECK (name <> ''),
  kind TEXT NOT NULL CHECK (kind IN ('customer', 'clearing', 'revenue', 'loss')),
  currency TEXT NOT NULL,
  posted_nano INTEGER NOT NULL DEFAULT 0,
  held_nano INTEGER NOT NULL DEFAULT 0 CHECK (held_nano >= 0),
  created_at_us INTEGER NOT NULL,
  frozen_at_us INTEGER,
  -- What is held can be paid: no customer's balance ever falls below zero.
  CHECK (kind <> 'customer' OR posted_nano - held_nano >= 0)
) STRICT, WITHOUT ROWID;

-- What moved money: its entries sum to zero.
CREATE TABLE transfer (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('topup', 'usage')),
  at_us INTEGER NOT NULL,
  reference TEXT,
  told TEXT NOT NULL CHECK (json_type(told) = 'object'),
  UNIQUE (kind, reference)
) STRICT, WITHOUT ROWID;

CREATE TABLE entry (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  transfer_id TEXT NOT NULL REFERENCES transfer (id),
  account_id TEXT NOT NULL REFERENCES account (id),
  amount_nano INTEGER NOT NULL CHECK (amount_nano <> 0),
  UNIQUE (transfer_id, account_id)
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
  state TEXT NOT NULL CHECK (state IN ('held', 'captured', 'released', 'resolved')),
  taken_at_us INTEGER NOT NULL,
  ended_at_us INTEGER,
  charged_nano INTEGER CHECK (charged_nano >= 0),
  CHECK ((state = 'held') = (ended_at_us IS NULL)),
  CHECK ((state = 'captured') = (charged_nano IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE TRIGGER hold_ends_once BEFORE UPDATE ON hold WHEN OLD.state <> 'held' BEGIN
  SELECT raise(ABORT, 'a hold ends once');
END;

CREATE INDEX hold_open ON hold (epoch_id) WHERE state = 'held';
CREATE INDEX hold_of_account ON hold (account_id) WHERE state = 'held';

ALTER TABLE key ADD COLUMN account_id TEXT;
