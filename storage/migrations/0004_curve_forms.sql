-- Curve days in two bytes a slot where the day's span fits, and one partition a business day, packed once it is cold.

ALTER TABLE curve_day DROP CONSTRAINT curve_day_one_form;
-- Slot i of short, vals or wide: value = (base + short[i]) / 10^decimals, (base + vals[i]) / 10^decimals or
-- wide[i] / 10^decimals; the narrowest that holds the day's span; the lowest number of the type = no value.
ALTER TABLE curve_day ADD COLUMN short int2[];
ALTER TABLE curve_day ADD CONSTRAINT curve_day_one_form CHECK (
    num_nonnulls(short, vals, wide) = 1 AND coalesce(cardinality(short), cardinality(vals), cardinality(wide)) = 86400 / step_s);

CREATE OR REPLACE VIEW curve AS
SELECT (c.day::timestamp AT TIME ZONE INTERVAL '08:00') + s.slot * c.step_s * INTERVAL '1 second' AS time,
       c.point, c.quantity, c.source,
       s.number::float8 / power(10::float8, c.decimals) AS value,
       coalesce(c.quality[s.slot], 0::int2) AS quality,
       c.day, c.step_s
FROM curve_day c
CROSS JOIN LATERAL (
    SELECT i::int4 AS slot, c.base + v AS number FROM unnest(c.short) WITH ORDINALITY AS h(v, i) WHERE v <> -32768
    UNION ALL
    SELECT i::int4, c.base + v FROM unnest(c.vals) WITH ORDINALITY AS n(v, i) WHERE v <> -2147483648
    UNION ALL
    SELECT i::int4, v FROM unnest(c.wide) WITH ORDINALITY AS w(v, i) WHERE v <> -9223372036854775808
) s;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM set_chunk_time_interval('curve_day', INTERVAL '7 days');
        ALTER TABLE curve_day SET (timescaledb.compress, timescaledb.compress_segmentby = 'quantity, source, step_s',
                                   timescaledb.compress_orderby = 'point, day');
    END IF;
END $$;

-- As before, but one partition a day for curve_day as well; a month made by an earlier version keeps taking its days.
CREATE OR REPLACE FUNCTION ensure_partition(parent text, wanted date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    name  text := parent || to_char(wanted, '_YYYYMMDD');
    month text := parent || to_char(wanted, '_YYYYMM');
    low   text;
    high  text;
    field text;
BEGIN
    IF parent = 'sample' THEN
        low := to_char(wanted, 'YYYY-MM-DD') || ' 00:00:00+08';
        high := to_char(wanted + 1, 'YYYY-MM-DD') || ' 00:00:00+08';
        field := 'time';
    ELSIF parent = 'curve_day' THEN
        low := to_char(wanted, 'YYYY-MM-DD');
        high := to_char(wanted + 1, 'YYYY-MM-DD');
        field := 'day';
        IF to_regclass(month) IS NOT NULL THEN
            RETURN month;
        END IF;
    ELSE
        RAISE EXCEPTION 'no partitions in %', parent;
    END IF;
    IF to_regclass(name) IS NOT NULL THEN
        RETURN name;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ensure_partition'));
    IF to_regclass(name) IS NOT NULL THEN
        RETURN name;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
    IF parent = 'curve_day' THEN
        EXECUTE format('ALTER TABLE %I SET (fillfactor = 50)', name);
    END IF;
    EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= %L AND %I < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
                   parent || '_default', field, low, field, high, name);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, low, high);
    EXECUTE format('GRANT SELECT, INSERT ON %I TO fuhe_app', name);
    RETURN name;
END $$;
