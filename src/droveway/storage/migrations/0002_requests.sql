-- One row a request. `seq` is the order of writing and never used twice, so that whoever follows
-- the journal, or sums it up, knows where they were. Moments and spans are whole microseconds.
CREATE TABLE request (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  at_us INTEGER NOT NULL,
  key_id TEXT,
  tags TEXT NOT NULL,
  asked TEXT NOT NULL,
  sent TEXT,
  served TEXT,
  provider TEXT,
  price_row TEXT,
  input INTEGER,
  cached_read INTEGER,
  cache_write INTEGER,
  output INTEGER,
  reasoning INTEGER,
  usage_source TEXT,
  cost_nano INTEGER,
  currency TEXT,
  own_cost_nano INTEGER,
  own_currency TEXT,
  first_token_us INTEGER,
  total_us INTEGER NOT NULL,
  overhead_us INTEGER,
  attempts INTEGER NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('completed', 'failed', 'cancelled')),
  code TEXT,
  client_gone INTEGER NOT NULL,
  drift INTEGER NOT NULL,
  CHECK ((cost_nano IS NULL) = (currency IS NULL)),
  CHECK ((own_cost_nano IS NULL) = (own_currency IS NULL))
) STRICT;

CREATE INDEX request_at ON request (at_us);

-- The attempts of a request that needed more than one.
CREATE TABLE attempt (
  request_id TEXT NOT NULL,
  number INTEGER NOT NULL,
  at_us INTEGER NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  outcome TEXT NOT NULL,
  code TEXT,
  status INTEGER,
  price_row TEXT,
  input INTEGER,
  cached_read INTEGER,
  cache_write INTEGER,
  output INTEGER,
  reasoning INTEGER,
  usage_source TEXT,
  cost_nano INTEGER,
  currency TEXT,
  first_token_us INTEGER,
  total_us INTEGER NOT NULL,
  PRIMARY KEY (request_id, number)
) STRICT, WITHOUT ROWID;

-- Sums of each hour; an empty word stands for none.
CREATE TABLE hour (
  hour_us INTEGER NOT NULL,
  key_id TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  outcome TEXT NOT NULL,
  currency TEXT NOT NULL,
  requests INTEGER NOT NULL,
  input INTEGER NOT NULL,
  cached_read INTEGER NOT NULL,
  cache_write INTEGER NOT NULL,
  output INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  cost_nano INTEGER NOT NULL,
  own_cost_nano INTEGER NOT NULL,
  total_us INTEGER NOT NULL,
  drifted INTEGER NOT NULL,
  PRIMARY KEY (hour_us, key_id, provider, model, outcome, currency)
) STRICT, WITHOUT ROWID;

-- Up to which row of the journal the hours are summed up.
INSERT INTO mark (name, number) VALUES ('rolled_up', 0);
