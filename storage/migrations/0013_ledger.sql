-- The completeness ledger: when the slots of stored curves arrived first, and slots that need not be there.

-- Since when a device is in the list; NULL = since before this was kept. It is not in service before.
ALTER TABLE device ADD COLUMN imported timestamptz;
ALTER TABLE device ALTER COLUMN imported SET DEFAULT now();

-- One row a point, marking quantity, step and business day; byte i (from 0) of delay belongs to the label day + (i+1) * step_s:
-- 0 = never arrived, else how long after its label it was received for the first time, in steps (storage/arrivals.py).
DO $$
DECLARE
    columns text := 'day date NOT NULL, point int4 NOT NULL, quantity int2 NOT NULL, step_s int4 NOT NULL, delay bytea NOT NULL,
                     CONSTRAINT curve_arrival_key PRIMARY KEY (day, quantity, point, step_s),
                     CONSTRAINT curve_arrival_slots CHECK (octet_length(delay) = 86400 / step_s)';
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        EXECUTE format('CREATE TABLE curve_arrival (%s) WITH (fillfactor = 50)', columns);
        PERFORM create_hypertable('curve_arrival', by_range('day', INTERVAL '7 days'), create_default_indexes => false);
        ALTER TABLE curve_arrival SET (timescaledb.compress, timescaledb.compress_segmentby = 'quantity, step_s',
                                       timescaledb.compress_orderby = 'point, day');
    ELSE
        EXECUTE format('CREATE TABLE curve_arrival (%s) PARTITION BY RANGE (day)', columns);
        CREATE TABLE curve_arrival_default PARTITION OF curve_arrival DEFAULT;
    END IF;
END $$;
GRANT SELECT, INSERT, UPDATE ON curve_arrival TO fuhe_app;

-- Slots that need not be there (domain: listed apart, never silently removed): a slot with label L is exempt where
-- since < L <= until. point NULL = all points of the device, until NULL = still in force. Withdrawn rows stay.
CREATE TABLE exemption (
    id           int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device       int4 NOT NULL REFERENCES device,
    point        int4 REFERENCES point,
    since        timestamptz NOT NULL,
    until        timestamptz,
    kind         text NOT NULL CHECK (kind IN ('suspension', 'outage', 'commissioning')),
    reason       text NOT NULL CHECK (reason <> ''),
    made_by      text NOT NULL,
    made_at      timestamptz NOT NULL,
    withdrawn_by text,
    withdrawn_at timestamptz,
    withdrawn_reason text,
    CHECK (until IS NULL OR since < until),
    CHECK (num_nulls(withdrawn_by, withdrawn_at, withdrawn_reason) IN (0, 3))
);
CREATE INDEX exemption_device ON exemption (device) WHERE withdrawn_at IS NULL;
GRANT SELECT, INSERT, UPDATE ON exemption TO fuhe_app;
