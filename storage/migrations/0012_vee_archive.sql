-- A change of the archive marks the judged days it reaches in its own transaction: ratios, exchanges, contract capacity.

CREATE FUNCTION archive_marks_dirty() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    low  date := (NEW.valid_from AT TIME ZONE INTERVAL '08:00')::date;
    high date := 'infinity';
    ids  int4[];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        -- It was ended: from then on it no longer counts.
        low := (NEW.valid_to AT TIME ZONE INTERVAL '08:00')::date;
    ELSIF NEW.valid_to IS NOT NULL THEN
        high := (NEW.valid_to AT TIME ZONE INTERVAL '08:00')::date;
    END IF;
    IF NEW.entity = 'points' THEN
        SELECT array_agg(p.id) INTO ids FROM point p
        WHERE p.name = coalesce(nullif(NEW.content ->> 'device_point', ''), NEW.key);
    ELSIF NEW.entity = 'meter_readings' THEN
        -- An exchange is told by one instant; the day before ends where it begins.
        low := low - 1;
        high := low + 2;
        SELECT array_agg(DISTINCT p.id) INTO ids FROM point p
        WHERE p.name = NEW.content ->> 'point'
           OR p.name IN (SELECT v.content ->> 'device_point' FROM archive_version v
                         WHERE v.entity = 'points' AND v.key = NEW.content ->> 'point');
    ELSE
        SELECT array_agg(DISTINCT p.id) INTO ids FROM archive_version v
        JOIN point p ON p.name = coalesce(nullif(v.content ->> 'device_point', ''), v.key)
        WHERE v.entity = 'points' AND v.content ->> 'customer' = NEW.key;
    END IF;
    IF ids IS NOT NULL THEN
        PERFORM mark_dirty(ids, low, high, 2::int2);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER archive_marks_dirty AFTER INSERT OR UPDATE ON archive_version
    FOR EACH ROW WHEN (NEW.entity IN ('points', 'meter_readings', 'customers')) EXECUTE FUNCTION archive_marks_dirty();

-- For a table of exemptions (device, point or NULL, since, until or NULL, kind): confirmed outages are judged as zero (O).
CREATE FUNCTION outage_marks_dirty() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids int4[];
BEGIN
    SELECT array_agg(p.id) INTO ids FROM point p
    WHERE p.device_id = NEW.device AND (NEW.point IS NULL OR p.id = NEW.point);
    IF NEW.kind = 'outage' AND ids IS NOT NULL THEN
        PERFORM mark_dirty(ids, (NEW.since AT TIME ZONE INTERVAL '08:00')::date,
                           coalesce((NEW.until AT TIME ZONE INTERVAL '08:00')::date, 'infinity'), 4::int2);
    END IF;
    RETURN NULL;
END $$;
DO $$
BEGIN
    IF to_regclass('exemption') IS NOT NULL THEN
        CREATE TRIGGER outage_marks_dirty AFTER INSERT OR UPDATE ON exemption
            FOR EACH ROW EXECUTE FUNCTION outage_marks_dirty();
    END IF;
END $$;
