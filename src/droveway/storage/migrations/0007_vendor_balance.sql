-- What a vendor said that is left in an account there, when it was asked.
CREATE TABLE vendor_balance (
  provider TEXT NOT NULL,
  currency TEXT NOT NULL,
  at_us INTEGER NOT NULL,
  total_nano INTEGER NOT NULL,
  PRIMARY KEY (provider, currency, at_us)
) STRICT, WITHOUT ROWID;
