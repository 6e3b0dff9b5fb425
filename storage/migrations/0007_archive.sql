-- The business archive (model/archive.py): versions of objects with the dates between which they are in force.
-- A version is never changed or deleted; it may be ended once. Versions of one object neither overlap nor leave a gap.

CREATE TABLE archive_version (
    id          int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity      text NOT NULL,
    key         text NOT NULL CHECK (key <> ''),
    valid_from  timestamptz NOT NULL,
    valid_to    timestamptz CHECK (valid_to > valid_from),
    content     jsonb NOT NULL,
    changed_by  text NOT NULL,
    reason      text NOT NULL CHECK (reason <> ''),
    recorded_at timestamptz NOT NULL,
    ended_by    text NOT NULL DEFAULT '',
    end_reason  text NOT NULL DEFAULT '',
    ended_at    timestamptz,
    UNIQUE (entity, key, valid_from)
);
CREATE INDEX archive_device_point ON archive_version (coalesce(nullif(content ->> 'device_point', ''), key))
    WHERE entity = 'points';
CREATE INDEX archive_customer ON archive_version ((content ->> 'customer'), entity);

CREATE FUNCTION archive_version_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.valid_to IS NOT NULL OR NEW.valid_to IS NULL
       OR ROW(NEW.id, NEW.entity, NEW.key, NEW.valid_from, NEW.content, NEW.changed_by, NEW.reason, NEW.recorded_at)
       IS DISTINCT FROM
       ROW(OLD.id, OLD.entity, OLD.key, OLD.valid_from, OLD.content, OLD.changed_by, OLD.reason, OLD.recorded_at) THEN
        RAISE EXCEPTION 'a version of % % is never overwritten: add one from a date', OLD.entity, OLD.key;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER archive_version_kept BEFORE UPDATE ON archive_version FOR EACH ROW EXECUTE FUNCTION archive_version_kept();
CREATE TRIGGER archive_version_no_delete BEFORE DELETE OR TRUNCATE ON archive_version
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

CREATE FUNCTION archive_version_joined() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before_ timestamptz;
    behind  timestamptz;
BEGIN
    SELECT valid_to INTO before_ FROM archive_version
    WHERE entity = NEW.entity AND key = NEW.key AND valid_from < NEW.valid_from ORDER BY valid_from DESC LIMIT 1;
    IF FOUND AND before_ IS DISTINCT FROM NEW.valid_from THEN
        RAISE EXCEPTION 'versions of % % overlap or leave a gap at %', NEW.entity, NEW.key, NEW.valid_from;
    END IF;
    SELECT valid_from INTO behind FROM archive_version
    WHERE entity = NEW.entity AND key = NEW.key AND valid_from > NEW.valid_from ORDER BY valid_from LIMIT 1;
    IF FOUND AND behind IS DISTINCT FROM (SELECT valid_to FROM archive_version WHERE id = NEW.id) THEN
        RAISE EXCEPTION 'versions of % % overlap or leave a gap at %', NEW.entity, NEW.key, behind;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER archive_version_joined AFTER INSERT OR UPDATE ON archive_version
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION archive_version_joined();

-- Changes that wait for a second person: rows as they were drafted, digest of what they would do.
CREATE TABLE archive_change (
    id               int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    drafter          int4 NOT NULL REFERENCES account,
    drafter_session  int8 NOT NULL REFERENCES session,
    drafted_at       timestamptz NOT NULL,
    reason           text NOT NULL CHECK (reason <> ''),
    rows_            jsonb NOT NULL,
    digest           text NOT NULL,
    why              text[] NOT NULL,
    roles            text[] NOT NULL,
    code             text NOT NULL,
    state            text NOT NULL DEFAULT 'submitted' CHECK (state IN ('submitted', 'approved', 'rejected')),
    decider          int4 REFERENCES account,
    decider_session  int8 REFERENCES session,
    decided_at       timestamptz,
    decide_reason    text NOT NULL DEFAULT '',
    CHECK (state <> 'approved' OR (decider <> drafter AND decider_session <> drafter_session))
);

-- The list of key customers (2.2): proposed by a program or a person, approved by the leading group, then a version.
CREATE TABLE key_list (
    id               int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    proposed_at      timestamptz NOT NULL,
    as_of            date NOT NULL,
    parameters       jsonb NOT NULL,
    rows_            jsonb NOT NULL,
    digest           text NOT NULL,
    drafter          int4 NOT NULL REFERENCES account,
    drafter_session  int8 NOT NULL REFERENCES session,
    version          int4 UNIQUE,
    approver         int4 REFERENCES account,
    approver_session int8 REFERENCES session,
    approved_at      timestamptz,
    CHECK ((version IS NULL) = (approved_at IS NULL)),
    CHECK (approver <> drafter), CHECK (approver_session <> drafter_session)
);

-- What the settings of a round were: the table `round` is what control uses now, this is its past.
CREATE TABLE round_version (
    device_id  int4 NOT NULL REFERENCES device,
    round      int2 NOT NULL,
    valid_from timestamptz NOT NULL,
    content    jsonb NOT NULL,
    PRIMARY KEY (device_id, round, valid_from)
);
CREATE TRIGGER round_version_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON round_version
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE FUNCTION round_remembered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR to_jsonb(NEW) - 'last_measured_kw' <> to_jsonb(OLD) - 'last_measured_kw' THEN
        INSERT INTO round_version VALUES (NEW.device_id, NEW.round, clock_timestamp(), to_jsonb(NEW) - 'last_measured_kw');
    END IF;
    RETURN NULL;
END $$;
INSERT INTO round_version SELECT device_id, round, now(), to_jsonb(r) - 'last_measured_kw' FROM round r;
CREATE TRIGGER round_remembered AFTER INSERT OR UPDATE ON round FOR EACH ROW EXECUTE FUNCTION round_remembered();

GRANT SELECT, INSERT ON archive_version, archive_change, key_list, round_version TO fuhe_app;
GRANT UPDATE (valid_to, ended_by, end_reason, ended_at) ON archive_version TO fuhe_app;
GRANT UPDATE (state, decider, decider_session, decided_at, decide_reason) ON archive_change TO fuhe_app;
GRANT UPDATE (version, approver, approver_session, approved_at) ON key_list TO fuhe_app;
