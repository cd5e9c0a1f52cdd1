-- What was said, where the operator wants it kept; cut at a bound, and forgotten with its row.
CREATE TABLE body (
  request_id TEXT PRIMARY KEY,
  request BLOB NOT NULL,
  answer BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- How many settings were in force; whoever moves it has all servers of this store read theirs anew.
INSERT INTO mark (name, number) VALUES ('settings', 1);
