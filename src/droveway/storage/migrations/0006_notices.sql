-- What somebody else must be told; written down together with what made it so, and sent until it
-- was taken or has been tried for long enough.
CREATE TABLE notice (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  about TEXT NOT NULL,
  body TEXT NOT NULL CHECK (json_type(body) = 'object'),
  made_at_us INTEGER NOT NULL,
  due_at_us INTEGER NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0,
  said TEXT,
  sent_at_us INTEGER,
  given_up_at_us INTEGER,
  CHECK (sent_at_us IS NULL OR given_up_at_us IS NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX notice_due ON notice (due_at_us) WHERE sent_at_us IS NULL AND given_up_at_us IS NULL;
