-- Numbers that only grow: how often the keys were changed, how far the journal is summed up.
CREATE TABLE mark (
  name TEXT PRIMARY KEY,
  number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO mark (name, number) VALUES ('keys', 1);

-- Moments are whole microseconds since 1970, UTC. Only the SHA-256 of a key is kept.
CREATE TABLE key (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL CHECK (name <> ''),
  shown TEXT NOT NULL,
  digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
  models TEXT CHECK (models IS NULL OR json_type(models) = 'array'),
  expires_at_us INTEGER,
  rpm INTEGER CHECK (rpm >= 1),
  tpm INTEGER CHECK (tpm >= 1),
  concurrency INTEGER CHECK (concurrency >= 1),
  tags TEXT NOT NULL CHECK (json_type(tags) = 'object'),
  created_at_us INTEGER NOT NULL,
  revoked_at_us INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX key_in_use ON key (name) WHERE revoked_at_us IS NULL;

-- Whoever changes a key, by whatever way, moves the mark with it.
CREATE TRIGGER key_added AFTER INSERT ON key BEGIN
  UPDATE mark SET number = number + 1 WHERE name = 'keys';
END;

CREATE TRIGGER key_changed AFTER UPDATE ON key BEGIN
  UPDATE mark SET number = number + 1 WHERE name = 'keys';
END;

CREATE TRIGGER key_gone AFTER DELETE ON key BEGIN
  UPDATE mark SET number = number + 1 WHERE name = 'keys';
END;
