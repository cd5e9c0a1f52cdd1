-- A caller's own name for a request, by which it is served once. What became of it is what became
-- of its hold.
CREATE TABLE claim (
  key_id TEXT NOT NULL,
  word TEXT NOT NULL CHECK (word <> ''),
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  request_id TEXT NOT NULL,
  at_us INTEGER NOT NULL,
  PRIMARY KEY (key_id, word)
) STRICT, WITHOUT ROWID;

CREATE INDEX claim_at ON claim (at_us);

-- The whole answer of a claimed request, for as long as it is given out again.
CREATE TABLE answer (
  request_id TEXT PRIMARY KEY,
  at_us INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX answer_at ON answer (at_us);
