-- How long a request waited for a turn or between attempts, in whole microseconds; and of a role that
-- moves to another model, by what its conversation is known again.
ALTER TABLE request ADD COLUMN waited_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request ADD COLUMN conversation BLOB;
CREATE INDEX request_conversation ON request (conversation, at_us)
  WHERE conversation IS NOT NULL;

-- Which of the provider's accounts was asked (last), from 1 on: each has its own key and its own bill.
ALTER TABLE request ADD COLUMN account INTEGER NOT NULL DEFAULT 1;
ALTER TABLE attempt ADD COLUMN account INTEGER NOT NULL DEFAULT 1;
CREATE TABLE balance_of_account (
  provider TEXT NOT NULL,
  account INTEGER NOT NULL,
  currency TEXT NOT NULL,
  at_us INTEGER NOT NULL,
  total_nano INTEGER NOT NULL,
  PRIMARY KEY (provider, account, currency, at_us)
) STRICT, WITHOUT ROWID;
INSERT INTO balance_of_account SELECT provider, 1, currency, at_us, total_nano FROM vendor_balance;
DROP TABLE vendor_balance;
ALTER TABLE balance_of_account RENAME TO vendor_balance;

-- How many turns a key gets where others get one.
ALTER TABLE key ADD COLUMN weight INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000);
