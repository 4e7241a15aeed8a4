-- The queue of one relay. `body` is the record as JSON; the columns beside it are what is searched, kept equal to it.

CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY,
    room TEXT NOT NULL,
    user_name TEXT NOT NULL,
    idempotency_key TEXT,
    ask TEXT,
    model TEXT,
    status BIGINT NOT NULL,
    mode BIGINT NOT NULL,
    source BIGINT,
    rank BIGINT NOT NULL,
    finished BIGINT,
    took_ms BIGINT,
    lease_owner TEXT,
    lease_until BIGINT,
    body TEXT NOT NULL,
    UNIQUE (room, user_name, idempotency_key)
);
CREATE INDEX jobs_waiting ON jobs (rank, id) WHERE status = 0;
CREATE INDEX jobs_waiting_in_room ON jobs (room, rank, id) WHERE status = 0;
CREATE INDEX jobs_processing ON jobs (room) WHERE status = 1;
CREATE INDEX jobs_finished ON jobs (finished, id) WHERE status >= 2;
CREATE INDEX jobs_finished_in_room ON jobs (room, finished, id, status, source) WHERE status >= 2;
CREATE INDEX jobs_completed ON jobs (ask, source, finished, id, took_ms) WHERE status = 2;
CREATE INDEX jobs_leased_by ON jobs (lease_owner) WHERE lease_owner IS NOT NULL;
CREATE INDEX jobs_leased_until ON jobs (lease_until) WHERE lease_until IS NOT NULL;

-- What jobs stream until it is fetched; each item a JSON text within a JSON string.
CREATE TABLE chunks (
    job TEXT NOT NULL,
    number BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, number)
);

-- Paid attempts, kept for ever. `counted` is what an attempt takes of the budgets.
CREATE TABLE attempts (
    job TEXT NOT NULL,
    number BIGINT NOT NULL,
    nonce TEXT NOT NULL UNIQUE,
    is_settled BIGINT NOT NULL,
    day BIGINT NOT NULL,
    room TEXT NOT NULL,
    user_name TEXT NOT NULL,
    counted BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, number)
);
CREATE INDEX attempts_unsettled ON attempts (job, number) WHERE is_settled = 0;
CREATE INDEX attempts_of_day ON attempts (day, room, user_name, counted);

-- The sum of `counted` over all attempts, in its one row: changed by whoever changes an attempt, in the same transaction.
CREATE TABLE spent (
    amount BIGINT NOT NULL
);
INSERT INTO spent (amount) VALUES (0);

-- Written once, never changed.
CREATE TABLE ledger (
    seq BIGINT NOT NULL PRIMARY KEY,
    room TEXT NOT NULL,
    kind BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX ledger_sums ON ledger (room, kind, amount);
CREATE TRIGGER ledger_is_not_updated BEFORE UPDATE ON ledger
BEGIN
    SELECT RAISE(ABORT, 'the ledger is written once');
END;
CREATE TRIGGER ledger_is_not_deleted BEFORE DELETE ON ledger
BEGIN
    SELECT RAISE(ABORT, 'the ledger is written once');
END;

-- Completed jobs that are forgotten, for the report.
CREATE TABLE forgotten (
    room TEXT NOT NULL,
    source BIGINT NOT NULL,
    jobs BIGINT NOT NULL,
    PRIMARY KEY (room, source)
);

CREATE TABLE breakers (
    endpoint TEXT NOT NULL PRIMARY KEY,
    body TEXT NOT NULL
);
