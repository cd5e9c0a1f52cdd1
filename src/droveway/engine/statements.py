"""This file knows the SQL of the journal: rows, what they sum up to, and what is let go."""

from functools import cache
from typing import Final

_USAGE: Final = "input, cached_read, cache_write, output, reasoning, usage_source"
REQUEST_FIELDS: Final = (
    "id, at_us, key_id, tags, asked, sent, served, provider, price_row, "
    f"{_USAGE}, cost_nano, currency, own_cost_nano, own_currency, "
    "first_token_us, total_us, overhead_us, attempts, outcome, code, client_gone, drift, "
    "waited_us, conversation, account"
)
ATTEMPT_FIELDS: Final = (
    "request_id, number, at_us, provider, model, outcome, code, status, price_row, "
    f"{_USAGE}, cost_nano, currency, first_token_us, total_us, account"
)

BY_ID: Final = f"SELECT seq, {REQUEST_FIELDS} FROM request WHERE id = ?"  # noqa: S608 - constants of this file
ATTEMPTS_OF: Final = f"SELECT {ATTEMPT_FIELDS} FROM attempt WHERE request_id = ? ORDER BY number"  # noqa: S608 - as above
_OF_MODEL: Final = "(?2 IS NULL OR asked = ?2 OR sent = ?2 OR served = ?2)"
RECENT: Final = f"""
SELECT seq, {REQUEST_FIELDS} FROM request
WHERE at_us >= ?1 AND {_OF_MODEL} AND (?3 IS NULL OR key_id = ?3)
ORDER BY at_us DESC, seq DESC LIMIT ?4
"""  # noqa: S608 - as above
FOLLOWING: Final = f"""
SELECT seq, {REQUEST_FIELDS} FROM request WHERE seq > ?1 AND {_OF_MODEL} ORDER BY seq LIMIT ?3
"""  # noqa: S608 - as above

LAST_ARM: Final = """
SELECT json_extract(tags, '$.arm') FROM request WHERE conversation = ? AND at_us >= ?
ORDER BY at_us DESC, seq DESC LIMIT 1
"""
LAST: Final = "SELECT coalesce(max(seq), 0) FROM request"

ROLLED_UP: Final = "SELECT number FROM mark WHERE name = 'rolled_up'"
ROLLED_UP_TO: Final = "UPDATE mark SET number = ? WHERE name = 'rolled_up'"
# Where a step of so many rows ends, and how many there are.
STEP_END: Final = """
SELECT max(seq), count(*) FROM (SELECT seq FROM request WHERE seq > ? ORDER BY seq LIMIT ?)
"""
ROLL_UP: Final = """
INSERT INTO hour
SELECT at_us - at_us % 3600000000, coalesce(key_id, ''), coalesce(provider, ''),
  coalesce(sent, asked), outcome, coalesce(currency, own_currency, ''), count(*),
  coalesce(sum(input), 0), coalesce(sum(cached_read), 0), coalesce(sum(cache_write), 0),
  coalesce(sum(output), 0), coalesce(sum(reasoning), 0), coalesce(sum(cost_nano), 0),
  coalesce(sum(own_cost_nano), 0),
  sum(total_us), sum(drift)
FROM request WHERE seq > ? AND seq <= ? GROUP BY 1, 2, 3, 4, 5, 6
ON CONFLICT DO UPDATE SET
  requests = requests + excluded.requests,
  input = input + excluded.input,
  cached_read = cached_read + excluded.cached_read,
  cache_write = cache_write + excluded.cache_write,
  output = output + excluded.output,
  reasoning = reasoning + excluded.reasoning,
  cost_nano = cost_nano + excluded.cost_nano,
  own_cost_nano = own_cost_nano + excluded.own_cost_nano,
  total_us = total_us + excluded.total_us,
  drifted = drifted + excluded.drifted
"""
HOURS: Final = "SELECT * FROM hour WHERE hour_us >= ? ORDER BY hour_us, provider, model, key_id"
# Rows that are not summed up yet are kept, however old they are.
FORGET_ATTEMPTS: Final = """
DELETE FROM attempt WHERE request_id IN (
  SELECT id FROM request
  WHERE at_us < ?1 AND seq <= (SELECT number FROM mark WHERE name = 'rolled_up')
  ORDER BY at_us, seq LIMIT ?2)
"""
FORGET: Final = """
DELETE FROM request WHERE seq IN (
  SELECT seq FROM request
  WHERE at_us < ?1 AND seq <= (SELECT number FROM mark WHERE name = 'rolled_up')
  ORDER BY at_us, seq LIMIT ?2)
"""
FORGET_BODIES: Final = """
DELETE FROM body WHERE request_id IN (
  SELECT id FROM request
  WHERE at_us < ?1 AND seq <= (SELECT number FROM mark WHERE name = 'rolled_up')
  ORDER BY at_us, seq LIMIT ?2)
"""
ADD_BODY: Final = "INSERT INTO body (request_id, request, answer) VALUES (?, ?, ?)"
BODY_OF: Final = "SELECT request, answer FROM body WHERE request_id = ?"


@cache
def add_requests(rows: int) -> str:
    """Return the statement that adds so many requests at once.

    One statement for many rows, because between two statements the writer's thread has to get
    hold of the interpreter again, and a busy event loop does not give it up easily.
    """
    return f"INSERT INTO request ({REQUEST_FIELDS}) VALUES {_places(REQUEST_FIELDS, rows)}"  # noqa: S608 - as above


@cache
def add_attempts(rows: int) -> str:
    """Return the statement that adds so many attempts at once."""
    return f"INSERT INTO attempt ({ATTEMPT_FIELDS}) VALUES {_places(ATTEMPT_FIELDS, rows)}"  # noqa: S608 - as above


def _places(fields: str, rows: int) -> str:
    row = f"({', '.join('?' * len(fields.split(',')))})"
    return ", ".join([row] * rows)


# What may stand on a vendor's bill: attempts with tokens or a cost. The one attempt of a request
# is told by its row, whose moment is that of the request; of more, each has its own. An attempt
# is looked for by its request's moment, which is a day older at most.
_GUESSED: Final = "coalesce(usage_source, 'counted') <> 'provider'"
_BILLABLE: Final = f"""
  SELECT at_us, at_us + total_us AS settled_us, provider, account, sent AS model,
    own_currency AS currency, own_cost_nano AS cost_nano, {_GUESSED} AS guessed,
    input + cached_read + cache_write AS input, cached_read, output
  FROM request
  WHERE attempts = 1 AND at_us >= ?2 - 86400000000 AND at_us < ?3
    AND (usage_source IS NOT NULL OR own_cost_nano IS NOT NULL)
  UNION ALL
  SELECT a.at_us, r.at_us + r.total_us, a.provider, a.account, a.model,
    a.currency, a.cost_nano, coalesce(a.usage_source, 'counted') <> 'provider',
    a.input + a.cached_read + a.cache_write, a.cached_read, a.output
  FROM request AS r JOIN attempt AS a ON a.request_id = r.id
  WHERE r.attempts > 1 AND r.at_us >= ?2 - 86400000000 AND r.at_us < ?3
    AND (a.usage_source IS NOT NULL OR a.cost_nano IS NOT NULL)
"""  # noqa: S608 - as above
# In quarters of an hour, of which the days of all time zones consist; an empty word for no price.
OWN_BY_QUARTER: Final = f"""
SELECT at_us - at_us % 900000000, coalesce(model, ''), coalesce(currency, ''), count(*),
  coalesce(sum(input), 0), coalesce(sum(cached_read), 0), coalesce(sum(output), 0),
  coalesce(sum(cost_nano), 0),
  sum(guessed), coalesce(sum(CASE WHEN guessed THEN cost_nano END), 0)
FROM ({_BILLABLE})
WHERE provider = ?1 AND at_us >= ?2 AND at_us < ?3 AND (?4 IS NULL OR account = ?4)
GROUP BY 1, 2, 3
"""  # noqa: S608 - as above
# By the moment a request was over: only then is it in the journal, so that no row is counted in
# two spans, and none in no span.
OWN_SETTLED: Final = f"""
SELECT coalesce(currency, ''), count(*), coalesce(sum(cost_nano), 0)
FROM ({_BILLABLE})
WHERE provider = ?1 AND settled_us > ?2 AND settled_us <= ?3 AND account = ?4 GROUP BY 1
"""  # noqa: S608 - as above
OLDEST: Final = "SELECT min(at_us) FROM request"
PROVIDERS_KNOWN: Final = """
SELECT provider FROM request WHERE provider IS NOT NULL
UNION SELECT provider FROM attempt ORDER BY 1
"""

ADD_BALANCE: Final = """
INSERT INTO vendor_balance (provider, account, currency, at_us, total_nano)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET total_nano = excluded.total_nano
"""
BALANCE_BEFORE: Final = """
SELECT at_us, total_nano FROM vendor_balance
WHERE provider = ? AND account = ? AND currency = ? AND at_us < ? ORDER BY at_us DESC LIMIT 1
"""

# Both sides of every role that moves. Latencies are those of what completed: an error is quick.
_MOVED: Final = f"""
  SELECT coalesce(json_extract(tags, '$.role'), '') AS role, json_extract(tags, '$.arm') AS arm,
    outcome, total_us, cost_nano, currency, {_USAGE}
  FROM request
  WHERE at_us >= ?1 AND {_OF_MODEL} AND json_extract(tags, '$.arm') IN ('new', 'old')
"""  # noqa: S608 - as above
_PLACES: Final = "OVER (PARTITION BY role, arm, outcome"
ARMS: Final = f"""
SELECT role, arm, count(*), sum(outcome = 'completed'), sum(outcome = 'failed'),
  max(CASE WHEN outcome = 'completed' AND place = (places * 50 + 99) / 100 THEN total_us END),
  max(CASE WHEN outcome = 'completed' AND place = (places * 95 + 99) / 100 THEN total_us END),
  coalesce(sum(input), 0), coalesce(sum(cached_read), 0), coalesce(sum(cache_write), 0),
  coalesce(sum(output), 0)
FROM (
  SELECT *, row_number() {_PLACES} ORDER BY total_us) AS place, count(*) {_PLACES}) AS places
  FROM ({_MOVED})
) GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608 - as above
ARM_COSTS: Final = f"""
SELECT role, arm, currency, count(*), sum(cost_nano) FROM ({_MOVED})
WHERE cost_nano IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""  # noqa: S608 - as above
