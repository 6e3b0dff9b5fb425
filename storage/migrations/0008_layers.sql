-- Layers above the raw readings (VEE, domain chapter 6): CHECKED and FINAL, in versions, only ever added to.
-- A point's business day is judged once it is over; each later change of anything it rests on adds the next version.

-- Why a day is to be computed again, bits: 1 new data, 2 archive, 4 outage, 8 edit, 16 a neighbouring day, 32 by hand.
ALTER TABLE dirty_day ADD COLUMN why int2 NOT NULL DEFAULT 1;
CREATE INDEX dirty_day_day ON dirty_day (day, since);
GRANT SELECT, INSERT, UPDATE, DELETE ON dirty_day TO fuhe_app;

DO $$
DECLARE
    -- One row a version. basis: where the load's power came from (CurveSource). net_kwh: the final load's energy, primary, NULL
    -- with a hole; import_kwh, export_kwh: by registers, exact. The counts are slots of the load. like_days: days whose
    -- measured values stand behind its estimates (EST3). edits: ids of vee_edit in force.
    versions text := 'day date NOT NULL, point int4 NOT NULL, version int2 NOT NULL CHECK (version > 0), why int2 NOT NULL,
                      basis int2 NOT NULL, suspect int2 NOT NULL, rejected int2 NOT NULL, missing int2 NOT NULL,
                      estimated int2 NOT NULL, edited int2 NOT NULL, person int2 NOT NULL, made timestamptz NOT NULL,
                      net_kwh float8, import_kwh float8, export_kwh float8, like_days date[], edits int8[],
                      CONSTRAINT vee_version_key PRIMARY KEY (day, point, version)';
    -- Bit (n - 1) of failed[slot]: check Kn failed. A quantity that never failed one has no row.
    checks text := 'day date NOT NULL, point int4 NOT NULL, quantity int2 NOT NULL, version int2 NOT NULL, step_s int4 NOT NULL,
                    failed int2[] NOT NULL,
                    CONSTRAINT checked_day_key PRIMARY KEY (day, quantity, point, step_s, version),
                    CONSTRAINT checked_day_slots CHECK (cardinality(failed) = 86400 / step_s)';
    -- As curve_day. The load (primary kW) always; a measured quantity only once something was decided about it: until then
    -- its raw row is its final one. An empty slot of quality 2 (X) was rejected.
    finals text := 'day date NOT NULL, point int4 NOT NULL, quantity int2 NOT NULL, version int2 NOT NULL, step_s int4 NOT NULL,
                    decimals int2 NOT NULL, base int8 NOT NULL, short int2[], vals int4[], wide int8[], quality int2[],
                    made timestamptz NOT NULL,
                    CONSTRAINT final_day_key PRIMARY KEY (day, quantity, point, step_s, version),
                    CONSTRAINT final_day_one_form CHECK (num_nonnulls(short, vals, wide) = 1 AND
                        coalesce(cardinality(short), cardinality(vals), cardinality(wide)) = 86400 / step_s)';
    names text[] := ARRAY['vee_version', 'checked_day', 'final_day'];
    defs  text[] := ARRAY[versions, checks, finals];
BEGIN
    FOR i IN 1..3 LOOP
        IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
            EXECUTE format('CREATE TABLE %I (%s)', names[i], defs[i]);
            PERFORM create_hypertable(names[i]::regclass, by_range('day', INTERVAL '7 days'), create_default_indexes => false);
            EXECUTE format('ALTER TABLE %I SET (timescaledb.compress, timescaledb.compress_segmentby = %L,
                            timescaledb.compress_orderby = %L)', names[i],
                           CASE i WHEN 1 THEN '' ELSE 'quantity, step_s' END, 'point, day, version');
        ELSE
            EXECUTE format('CREATE TABLE %I (%s) PARTITION BY RANGE (day)', names[i], defs[i]);
            EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', names[i] || '_default', names[i]);
            EXECUTE format('GRANT SELECT, INSERT ON %I TO fuhe_app', names[i] || '_default');
        END IF;
        EXECUTE format('GRANT SELECT, INSERT ON %I TO fuhe_app', names[i]);
    END LOOP;
END $$;

-- As before, for every table that is partitioned by `day`; vee_version and checked_day, being small, by the month.
CREATE OR REPLACE FUNCTION ensure_partition(parent text, wanted date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    month_ text := parent || to_char(wanted, '_YYYYMM');
    name  text := parent || to_char(wanted, '_YYYYMMDD');
    low   text := to_char(wanted, 'YYYY-MM-DD');
    high  text := to_char(wanted + 1, 'YYYY-MM-DD');
    field text := 'day';
BEGIN
    IF parent = 'sample' THEN
        low := low || ' 00:00:00+08';
        high := high || ' 00:00:00+08';
        field := 'time';
    ELSIF parent IN ('vee_version', 'checked_day') THEN
        name := month_;
        low := to_char(date_trunc('month', wanted), 'YYYY-MM-DD');
        high := to_char(date_trunc('month', wanted) + INTERVAL '1 month', 'YYYY-MM-DD');
    ELSIF parent NOT IN ('curve_day', 'curve_arrival', 'final_day') THEN
        RAISE EXCEPTION 'no partitions in %', parent;
    END IF;
    IF field = 'day' AND to_regclass(month_) IS NOT NULL THEN
        RETURN month_;
    END IF;
    IF to_regclass(name) IS NOT NULL THEN
        RETURN name;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ensure_partition'));
    IF to_regclass(name) IS NOT NULL THEN
        RETURN name;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
    IF parent IN ('curve_day', 'curve_arrival') THEN
        EXECUTE format('ALTER TABLE %I SET (fillfactor = 50)', name);
    END IF;
    EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= %L AND %I < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
                   parent || '_default', field, low, field, high, name);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, low, high);
    EXECUTE format('GRANT SELECT, INSERT ON %I TO fuhe_app', name);
    RETURN name;
END $$;

-- The newest version of the final values as ordinary rows; days that were not judged yet are not here. The load is
-- quantity 48 (load_power), primary kW; everything else is secondary. Give `day` in the condition as well as `time`.
CREATE VIEW final AS
WITH newest AS (
    SELECT f.day, f.point, f.quantity, f.version, f.step_s, f.decimals, f.base, f.short, f.vals, f.wide, f.quality
    FROM final_day f
    WHERE NOT EXISTS (SELECT FROM final_day n WHERE n.day = f.day AND n.quantity = f.quantity AND n.point = f.point
                        AND n.step_s = f.step_s AND n.version > f.version)
    UNION ALL
    SELECT c.day, c.point, c.quantity, 0::int2, c.step_s, c.decimals, c.base, c.short, c.vals, c.wide, c.quality
    FROM curve_day c
    WHERE EXISTS (SELECT FROM vee_version v WHERE v.day = c.day AND v.point = c.point)
      AND NOT EXISTS (SELECT FROM final_day n WHERE n.day = c.day AND n.quantity = c.quantity AND n.point = c.point
                        AND n.step_s = c.step_s)
)
SELECT (c.day::timestamp AT TIME ZONE INTERVAL '08:00') + s.slot * c.step_s * INTERVAL '1 second' AS time,
       c.point, c.quantity, s.number::float8 / power(10::float8, c.decimals) AS value,
       coalesce(c.quality[s.slot], 0::int2) AS quality, c.version, c.day, c.step_s
FROM newest c
CROSS JOIN LATERAL (
    SELECT i::int4 AS slot, c.base + v AS number FROM unnest(c.short) WITH ORDINALITY AS h(v, i) WHERE v <> -32768
    UNION ALL
    SELECT i::int4, c.base + v FROM unnest(c.vals) WITH ORDINALITY AS n(v, i) WHERE v <> -2147483648
    UNION ALL
    SELECT i::int4, v FROM unnest(c.wide) WITH ORDINALITY AS w(v, i) WHERE v <> -9223372036854775808
) s;
GRANT SELECT ON final TO fuhe_app;

-- What people decide about slots [first, last) of a quantity's day. value: primary kW for the load, else secondary.
-- signatures: 2 where billing is touched. before_, after_: what the drafter was shown.
CREATE TABLE vee_edit (
    id            int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    point         int4 NOT NULL REFERENCES point,
    day           date NOT NULL,
    quantity      int2 NOT NULL,
    first         int2 NOT NULL,
    last          int2 NOT NULL,
    action        text NOT NULL CHECK (action IN ('value', 'estimate', 'reject', 'accept')),
    value         float8 CHECK ((action = 'value') = (value IS NOT NULL)),
    method        int2 CHECK ((action = 'estimate') = (method IS NOT NULL)),
    reason        text NOT NULL CHECK (reason <> ''),
    signatures    int2 NOT NULL CHECK (signatures IN (1, 2)),
    state         text NOT NULL CHECK (state IN ('proposed', 'approved', 'refused')),
    before_       jsonb NOT NULL,
    after_        jsonb NOT NULL,
    drafted_by    text NOT NULL,
    draft_account int4 NOT NULL REFERENCES account,
    draft_session int8 NOT NULL,
    drafted_at    timestamptz NOT NULL,
    decided_by    text,
    decided_account int4 REFERENCES account,
    decided_session int8,
    decided_at    timestamptz,
    decision      text NOT NULL DEFAULT '',
    CHECK (first >= 0 AND first < last),
    CHECK (state = 'proposed' OR num_nulls(decided_by, decided_account, decided_session, decided_at) = 0),
    CHECK (state <> 'approved' OR signatures = 1
           OR (decided_account <> draft_account AND decided_session <> draft_session))
);
CREATE INDEX vee_edit_day ON vee_edit (point, day) WHERE state = 'approved';

CREATE FUNCTION vee_edit_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> 'proposed' THEN
        RAISE EXCEPTION 'edit % is %, which is final', OLD.id, OLD.state;
    END IF;
    IF ROW(NEW.point, NEW.day, NEW.quantity, NEW.first, NEW.last, NEW.action, NEW.value, NEW.method, NEW.reason,
           NEW.signatures, NEW.draft_account, NEW.draft_session)
       IS DISTINCT FROM
       ROW(OLD.point, OLD.day, OLD.quantity, OLD.first, OLD.last, OLD.action, OLD.value, OLD.method, OLD.reason,
           OLD.signatures, OLD.draft_account, OLD.draft_session) THEN
        RAISE EXCEPTION 'what an edit says never changes: refuse it and make another one';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER vee_edit_guard BEFORE UPDATE ON vee_edit FOR EACH ROW EXECUTE FUNCTION vee_edit_guard();
GRANT SELECT, INSERT, UPDATE ON vee_edit TO fuhe_app;

-- Marks the judged days of a point from `low` to `high` dirty; to be called in the transaction of the change itself.
CREATE FUNCTION mark_dirty(points int4[], low date, high date, reason int2) RETURNS int8 LANGUAGE plpgsql AS $$
DECLARE
    n int8;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1684632180);
    INSERT INTO dirty_day (point, day, why)
    SELECT DISTINCT v.point, v.day, reason FROM vee_version v WHERE v.point = ANY(points) AND v.day BETWEEN low AND high
    ON CONFLICT (point, day) DO UPDATE SET taken = NULL,
        since = CASE WHEN dirty_day.taken IS NULL THEN dirty_day.since ELSE now() END,
        why = CASE WHEN dirty_day.taken IS NULL THEN dirty_day.why | excluded.why ELSE excluded.why END;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;

-- Days whose points were all marked once when the day was over, so that a point that sent nothing is judged too.
CREATE TABLE vee_closed (
    day    date PRIMARY KEY,
    points int4 NOT NULL,
    made   timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT ON vee_closed TO fuhe_app;
