"""The tables, as numbered migrations: portable SQL for SQLite and PostgreSQL.

Times are microseconds since 1970 (UTC), money is nano-dollars, days are UTC days as `YYYY-MM-DD`. Orders, answers and
errors are JSON text, which has a version of its own.
"""

_TABLES = """
CREATE TABLE owners (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    started BIGINT NOT NULL
);
CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    route TEXT NOT NULL,
    idempotency_key TEXT,
    key_held BIGINT NOT NULL,
    fingerprint TEXT NOT NULL,
    mode TEXT NOT NULL,
    backend TEXT NOT NULL,
    spec TEXT NOT NULL,
    upload TEXT,
    count BIGINT NOT NULL,
    last_event BIGINT NOT NULL,
    owner TEXT NOT NULL,
    cancelled BIGINT,
    created BIGINT NOT NULL,
    finished BIGINT,
    deleted BIGINT
);
CREATE UNIQUE INDEX requests_by_key ON requests (principal, route, idempotency_key) WHERE key_held = 1;
CREATE INDEX requests_by_age ON requests (principal, created, id);
CREATE INDEX requests_open ON requests (owner) WHERE finished IS NULL;
CREATE INDEX requests_finished ON requests (finished);
CREATE TABLE calls (
    request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,
    principal TEXT NOT NULL,
    tries BIGINT NOT NULL,
    model TEXT NOT NULL,
    image_size TEXT NOT NULL,
    tier TEXT NOT NULL,
    day TEXT NOT NULL,
    list_price BIGINT,
    reserved BIGINT NOT NULL,
    possible BIGINT NOT NULL,
    cost BIGINT,
    estimated BIGINT NOT NULL,
    billed BIGINT,
    usage TEXT,
    raw TEXT,
    sha256 TEXT,
    size BIGINT,
    stem TEXT NOT NULL,
    result TEXT,
    error TEXT,
    planned BIGINT NOT NULL,
    sent BIGINT,
    received BIGINT,
    finished BIGINT,
    PRIMARY KEY (request_id, number, attempt)
);
CREATE INDEX calls_by_state ON calls (state);
CREATE INDEX calls_by_day ON calls (day);
CREATE TABLE events (
    request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    number BIGINT,
    attempt BIGINT,
    data TEXT,
    PRIMARY KEY (request_id, sequence)
);
CREATE TABLE probes (data TEXT NOT NULL);
CREATE TABLE days (
    day TEXT NOT NULL,
    principal TEXT NOT NULL,
    reserved BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    possible BIGINT NOT NULL,
    PRIMARY KEY (day, principal)
);
"""

# What an automatic retry without an idempotency key needs to find its request: see `retries.join`.
_RETRIES = """
ALTER TABLE requests ADD COLUMN delivered BIGINT;
ALTER TABLE requests ADD COLUMN joined BIGINT;
CREATE INDEX requests_by_body ON requests (principal, route, fingerprint, finished);
"""

# Number n (from 1) brings a database of version n - 1 to version n. Released ones are never changed.
MIGRATIONS: tuple[str, ...] = (_TABLES, _RETRIES)

LATEST = len(MIGRATIONS)
