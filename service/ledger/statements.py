"""Every SQL statement of the ledger, portable between SQLite and PostgreSQL, with named parameters.

Each step of a call is one UPDATE, guarded by the states that it may come from and, except in recovery, by the owner: if
it returns no row, another process was first.
"""

from service.callers import NAMED, NAMELESS
from service.ledger.rows import OPEN, CallRow, EventRow, OwnerRow, RequestRow, columns, placeholders

# The principal of the lines of `days` that count for all callers.
ALL = ""
_OPEN = ", ".join(f"'{state}'" for state in OPEN)
_CALL = columns(CallRow)
_REQUEST = columns(RequestRow)
# In place of a condition that `of_principals` writes.
_OWN = "{own}"

READ_VERSION = "SELECT max(version) FROM schema"
CREATE_VERSION = "CREATE TABLE IF NOT EXISTS schema (version BIGINT NOT NULL)"
INSERT_PROBE = "INSERT INTO probes (data) VALUES (:data)"
DELETE_PROBE = "DELETE FROM probes"
WRITE_VERSION = "INSERT INTO schema (version) VALUES (:version)"

# Requests and their events

INSERT_REQUEST = (
    f"INSERT INTO requests ({_REQUEST}) VALUES ({placeholders(RequestRow)}) ON CONFLICT DO NOTHING RETURNING id"
)
READ_REQUEST = f"SELECT {_REQUEST} FROM requests WHERE id = :id"
HOLDER_OF_KEY = (
    f"SELECT {_REQUEST} FROM requests"
    " WHERE principal = :principal AND route = :route AND idempotency_key = :idempotency_key AND key_held = 1"
)
NEWEST_OF_KEY = (
    f"SELECT {_REQUEST} FROM requests WHERE {_OWN}"
    " AND route = :route AND idempotency_key = :idempotency_key AND deleted IS NULL"
    " ORDER BY created DESC, id DESC LIMIT 1"
)
NEWEST = f"SELECT {_REQUEST} FROM requests WHERE {_OWN} AND deleted IS NULL ORDER BY created DESC, id DESC LIMIT :limit"
NEWEST_BEFORE = (
    f"SELECT {_REQUEST} FROM requests WHERE {_OWN} AND deleted IS NULL"
    " AND (created < :created OR (created = :created AND id < :id))"
    " ORDER BY created DESC, id DESC LIMIT :limit"
)
# Requests of one body that an automatic retry may join: known to have cost nothing are those that ended unbilled.
_JOINABLE = (
    f"SELECT {_REQUEST} FROM requests WHERE {_OWN} AND route = :route AND fingerprint = :fingerprint"
    " AND (finished IS NULL OR finished > :ended_after) AND deleted IS NULL AND (finished IS NULL OR EXISTS"
    " (SELECT 1 FROM calls WHERE request_id = requests.id AND (billed IS NULL OR billed = 1)))"
)
OLDEST_UNDELIVERED = f"{_JOINABLE} AND delivered IS NULL AND joined IS NULL ORDER BY created, id LIMIT 1"
NEWEST_JOINABLE = f"{_JOINABLE} ORDER BY created DESC, id DESC LIMIT 1"
JOIN_REQUEST = "UPDATE requests SET joined = :now WHERE id = :id AND joined IS NULL"
DELIVER_REQUEST = "UPDATE requests SET delivered = :now WHERE id = :id AND delivered IS NULL"
FREE_KEY = "UPDATE requests SET key_held = 0 WHERE id = :id"
CANCEL_REQUEST = "UPDATE requests SET cancelled = :now WHERE id = :id AND cancelled IS NULL AND finished IS NULL"
FINISH_REQUEST = "UPDATE requests SET finished = :now WHERE id = :id"
REOPEN_REQUEST = "UPDATE requests SET finished = NULL, owner = :owner WHERE id = :id"
BLANK_REQUEST = "UPDATE requests SET deleted = :now, spec = '', upload = NULL WHERE id = :id"
BLANK_CALLS = "UPDATE calls SET result = NULL, error = NULL, usage = NULL WHERE request_id = :id"
FORGET_EVENTS = "DELETE FROM events WHERE request_id = :id"
FORGET_REQUESTS = (
    "DELETE FROM requests WHERE finished < :finished_before AND (key_held = 0 OR created < :created_before)"
)
# Locks the request's row until the end of the transaction, so that events are numbered without a gap.
NEXT_EVENT = "UPDATE requests SET last_event = last_event + 1 WHERE id = :id RETURNING last_event"
INSERT_EVENT = f"INSERT INTO events ({columns(EventRow)}) VALUES ({placeholders(EventRow)})"
READ_EVENTS = (
    f"SELECT {columns(EventRow)} FROM events"
    " WHERE request_id = :id AND sequence > :after ORDER BY sequence LIMIT :limit"
)

# Calls

INSERT_CALL = f"INSERT INTO calls ({_CALL}) VALUES ({placeholders(CallRow)})"
READ_CALL = f"SELECT {_CALL} FROM calls WHERE request_id = :request_id AND number = :number AND attempt = :attempt"
READ_CALLS = f"SELECT {_CALL} FROM calls WHERE request_id = :id ORDER BY number, attempt"
COUNT_OPEN = f"SELECT count(*) FROM calls WHERE request_id = :id AND state IN ({_OPEN})"
_ONE = "WHERE request_id = :request_id AND number = :number AND attempt = :attempt"
SEND = (
    "UPDATE calls SET state = 'sending', sent = :now, tries = tries + 1"
    f" {_ONE} AND owner = :owner AND state = 'planned' AND NOT EXISTS (SELECT 1 FROM requests"
    " WHERE id = :request_id AND cancelled IS NOT NULL) RETURNING number"
)
REFUSE = f"UPDATE calls SET state = 'planned' {_ONE} AND owner = :owner AND state = 'sending' RETURNING number"
# Without a guard for the owner: a picture may be found after its call was given up, by any process.
RECEIVE = (
    "UPDATE calls SET state = 'received', received = :now, finished = NULL, billed = 1, raw = :raw, sha256 = :sha256,"
    " size = :size, usage = :usage, estimated = :estimated, error = NULL, owner = :owner"
    f" {_ONE} AND (state IN ('sending', 'unknown') OR (state = 'failed' AND error LIKE :missing)) RETURNING number"
)
EXPORT = (
    "UPDATE calls SET state = 'exported', finished = :now, result = :result"
    f" {_ONE} AND owner = :owner AND state = 'received' RETURNING number"
)
_END = (
    "UPDATE calls SET state = '{state}', finished = :now, error = :error, billed = CAST(:billed AS BIGINT),"
    " raw = COALESCE(CAST(:raw AS TEXT), raw), usage = COALESCE(CAST(:usage AS TEXT), usage),"
    " estimated = CASE WHEN state = 'received' THEN estimated ELSE CAST(:estimated AS BIGINT) END"
    f" {_ONE} AND {{guard}} RETURNING number"
)
FAIL = _END.format(state="failed", guard=f"owner = :owner AND state IN ({_OPEN})")
LOSE = _END.format(state="unknown", guard="owner = :owner AND state = 'sending'")
CANCEL = _END.format(state="cancelled", guard="(CAST(:owner AS TEXT) IS NULL OR owner = :owner) AND state = 'planned'")
PRICE = f"UPDATE calls SET reserved = :reserved, possible = :possible, cost = :cost {_ONE}"
OPEN_DAY = (
    "INSERT INTO days (day, principal, reserved, spent, possible) VALUES (:day, :principal, 0, 0, 0)"
    " ON CONFLICT DO NOTHING"
)
MOVE_MONEY = (
    "UPDATE days SET reserved = reserved + :reserved, spent = spent + :spent, possible = possible + :possible"
    " WHERE day = :day AND principal = :principal"
)
RESERVE = (
    "UPDATE days SET reserved = reserved + :reserved WHERE day = :day AND principal = :principal"
    " AND (CAST(:budget AS BIGINT) IS NULL OR reserved + spent + possible + :reserved <= CAST(:budget AS BIGINT))"
    " RETURNING reserved"
)
SUM_DAYS = (
    "SELECT CAST(:day AS TEXT), CAST(COALESCE(sum(reserved), 0) AS BIGINT), CAST(COALESCE(sum(spent), 0) AS BIGINT),"
    f" CAST(COALESCE(sum(possible), 0) AS BIGINT) FROM days WHERE day = :day AND {_OWN}"
)
SUM_DAY = (
    "SELECT COALESCE(sum(reserved), 0), COALESCE(sum(cost), 0), COALESCE(sum(possible), 0) FROM calls WHERE day = :day"
)

# Token buckets

CREATE_BUCKETS = "CREATE TABLE IF NOT EXISTS buckets (principal TEXT PRIMARY KEY, full_at BIGINT NOT NULL)"
# A full bucket is the same as none.
REMOVE_FULL_BUCKETS = "DELETE FROM buckets WHERE full_at < :now"
READ_BUCKET = "SELECT full_at FROM buckets WHERE principal = :principal"
SWAP_BUCKET = (
    "INSERT INTO buckets (principal, full_at) VALUES (:principal, :full_at)"
    " ON CONFLICT (principal) DO UPDATE SET full_at = :full_at WHERE buckets.full_at = :was RETURNING full_at"
)

# Owners, recovery and retention

# An owner that has lost its connection connects again.
INSERT_OWNER = f"INSERT INTO owners ({columns(OwnerRow)}) VALUES ({placeholders(OwnerRow)}) ON CONFLICT DO NOTHING"
REMOVE_OWNER = "DELETE FROM owners WHERE id = :id"
READ_OWNERS = f"SELECT {columns(OwnerRow)} FROM owners WHERE id <> :id"
OPEN_REQUESTS_OF = f"SELECT {_REQUEST} FROM requests WHERE owner = :owner AND finished IS NULL ORDER BY created, id"
TAKE_OVER_REQUEST = "UPDATE requests SET owner = :owner WHERE id = :id AND owner = :was RETURNING id"
TAKE_OVER_CALLS = f"UPDATE calls SET owner = :owner WHERE request_id = :id AND state IN ({_OPEN})"
HEALABLE = (
    f"SELECT {_CALL} FROM calls WHERE (state = 'unknown' OR (state = 'failed' AND error LIKE :missing))"
    " AND EXISTS (SELECT 1 FROM requests WHERE id = request_id AND finished IS NOT NULL AND deleted IS NULL)"
    " ORDER BY planned DESC LIMIT :limit"
)
UNFINISHED_UPLOADS = "SELECT upload FROM requests WHERE finished IS NULL AND upload IS NOT NULL"
RECEIVED_RAWS = "SELECT raw FROM calls WHERE state = 'received' AND raw IS NOT NULL"
SENDING = "SELECT request_id, number FROM calls WHERE state = 'sending'"
NAMES_RAW = "SELECT 1 FROM calls WHERE request_id = :id AND raw = :key"
NAMES_UPLOAD = "SELECT 1 FROM requests WHERE id = :id AND upload = :key"
COUNT_STATES = "SELECT state, count(*) FROM calls GROUP BY state"

# Usage leaves out the calls that certainly cost nothing.
_OUTCOME = "CASE WHEN state IN ('sending', 'received') THEN 'open' ELSE state END"
_COUNTED = "state NOT IN ('planned', 'cancelled') AND (billed IS NULL OR billed = 1)"


def _usage(key_name: str) -> str:
    return (
        f"SELECT day, {key_name} AS key_name, model, image_size, tier, {_OUTCOME} AS outcome, count(*) AS calls,"
        " count(CASE WHEN state IN ('received', 'exported') THEN 1 END) AS pictures,"
        " CAST(COALESCE(sum(cost), 0) AS BIGINT) AS cost, CAST(COALESCE(sum(possible), 0) AS BIGINT) AS possible,"
        " count(CASE WHEN list_price IS NULL AND cost IS NULL THEN 1 END) AS unpriced,"
        " count(CASE WHEN estimated = 1 THEN 1 END) AS estimated"
        f" FROM calls WHERE {_COUNTED} AND day BETWEEN :first AND :last AND {_OWN}"
        " GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"
    )


USAGE = _usage(f"CAST('{NAMELESS}' AS TEXT)")
USAGE_BY_NAME = _usage(
    f"CASE WHEN substr(principal, 1, {len(NAMED)}) = '{NAMED}'"
    f" THEN substr(principal, {len(NAMED) + 1}) ELSE '{NAMELESS}' END"
)


def of_principals(statement: str, principals: tuple[str, ...] | None) -> tuple[str, dict[str, str]]:
    """A statement for the rows of these principals (None: of all), and the parameters that name them."""
    if principals is None:
        return statement.replace(_OWN, "1 = 1"), {}
    names = {f"principal_{number}": principal for number, principal in enumerate(principals)}
    return statement.replace(_OWN, f"principal IN ({', '.join(f':{name}' for name in names)})"), names
