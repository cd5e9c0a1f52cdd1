-- How long a request waited for a turn or between attempts, in whole microseconds; and of a role that
-- moves to another model, by what its conversation is known again.
ALTER TABLE request ADD COLUMN waited_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request ADD COLUMN conversation BLOB;
CREATE INDEX request_conversation ON request (conversation, at_us)
  WHERE conversation IS NOT NULL;

-- How many turns a key gets where others get one.
ALTER TABLE key ADD COLUMN weight INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000);
