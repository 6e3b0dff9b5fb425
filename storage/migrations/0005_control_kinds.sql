-- Control kinds beside the remote trip (domain 8.7, 9.3): power and energy controls of a terminal's total-sum groups,
-- states of a terminal (protection, exclusion, reminder), parameters. A command names its kind, a number in the kind's
-- scope (round, group, device) and parameters; `rounds` are the relays that it may open.

ALTER TABLE round ADD COLUMN contact int2 NOT NULL DEFAULT 0 CHECK (contact BETWEEN -8 AND 8);

ALTER TABLE plan_row ADD COLUMN kind text NOT NULL DEFAULT 'trip', ADD COLUMN params jsonb NOT NULL DEFAULT '{}';
ALTER TABLE plan_row DROP CONSTRAINT plan_row_plan_id_device_id_round_key;
ALTER TABLE plan_row ADD CONSTRAINT plan_row_once UNIQUE (plan_id, device_id, kind, round);
ALTER TABLE proposal_row ADD COLUMN limit_kw float8;

-- settings: what is to be written, or was; set_results: what came of it. reason: why, where no order says so.
ALTER TABLE command
    ADD COLUMN kind text NOT NULL DEFAULT 'trip',
    ADD COLUMN scope text NOT NULL DEFAULT 'round' CHECK (scope IN ('round', 'group', 'device')),
    ADD COLUMN rounds int2[] NOT NULL DEFAULT '{}',
    ADD COLUMN params jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN signatures int2 NOT NULL DEFAULT 2 CHECK (signatures IN (1, 2)),
    ADD COLUMN limit_kw float8,
    ADD COLUMN settings jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN set_results jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN set_at timestamptz,
    ADD COLUMN batch int8,
    ADD COLUMN reason text NOT NULL DEFAULT '',
    ALTER COLUMN order_id DROP NOT NULL, ALTER COLUMN proposal_id DROP NOT NULL, ALTER COLUMN position DROP NOT NULL,
    ALTER COLUMN plan_id DROP NOT NULL, ALTER COLUMN plan_row DROP NOT NULL,
    DROP CONSTRAINT command_device_id_round_fkey;
UPDATE command SET rounds = ARRAY[round];

CREATE FUNCTION takes_supply(kind text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT kind IN ('trip', 'period', 'rest', 'suspension', 'float', 'month', 'purchase')
$$;

ALTER TABLE command
    ADD CHECK (NOT takes_supply(kind)
               OR (signatures = 2 AND num_nulls(order_id, proposal_id, position, plan_id, plan_row) = 0)),
    ADD CHECK (kind NOT IN ('unprotect', 'unexclude') OR signatures = 2),
    ADD CHECK (order_id IS NOT NULL OR reason <> '');

DROP INDEX command_one_active;
CREATE UNIQUE INDEX command_one_active ON command (device_id, scope, round)
    WHERE takes_supply(kind)
      AND state IN ('CHECKING', 'SELECTED', 'SETTING', 'SET', 'SENT', 'UNKNOWN', 'ACKED', 'ALARMING', 'VERIFYING',
                    'EFFECTIVE', 'PARTIAL', 'INEFFECTIVE', 'AUTO_RELEASED', 'RELEASING', 'RELEASED');
CREATE INDEX command_device ON command (device_id, id);
CREATE INDEX command_batch ON command (batch) WHERE batch IS NOT NULL;

-- Protection (保电) as the server knows it: in force from the moment a person says so, whether or not the terminal answers.
CREATE TABLE protection (
    id        int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id int4 NOT NULL REFERENCES device,
    since     timestamptz NOT NULL,
    until     timestamptz,
    reason    text NOT NULL CHECK (reason <> ''),
    by_       text NOT NULL,
    lifted_at timestamptz,
    lifted_by text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX protection_one ON protection (device_id) WHERE lifted_at IS NULL;

-- What people have to decide: a device that came back otherwise than our commands say, a control past its end.
CREATE TABLE incident (
    id           int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id    int4 NOT NULL REFERENCES device,
    command_id   int8 REFERENCES command,
    what         text NOT NULL,
    text         text NOT NULL,
    opened_at    timestamptz NOT NULL,
    closed_at    timestamptz,
    closed_by    text NOT NULL DEFAULT '',
    close_reason text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX incident_open ON incident (device_id, what, command_id) NULLS NOT DISTINCT WHERE closed_at IS NULL;

-- Cheap rules row by row.
CREATE OR REPLACE FUNCTION command_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'DRAFT' THEN
            RAISE EXCEPTION 'a command begins as DRAFT';
        END IF;
        IF takes_supply(NEW.kind) AND (cardinality(NEW.rounds) = 0 OR EXISTS (
               SELECT FROM unnest(NEW.rounds) n
               WHERE NOT EXISTS (SELECT FROM round r WHERE r.device_id = NEW.device_id AND r.round = n))) THEN
            RAISE EXCEPTION 'a command opens only rounds that are in the list of rounds';
        END IF;
        RETURN NEW;
    END IF;
    IF ROW(NEW.device_id, NEW.kind, NEW.scope, NEW.round, NEW.rounds, NEW.params, NEW.signatures, NEW.order_id, NEW.plan_id,
           NEW.plan_row, NEW.environment)
       IS DISTINCT FROM
       ROW(OLD.device_id, OLD.kind, OLD.scope, OLD.round, OLD.rounds, OLD.params, OLD.signatures, OLD.order_id, OLD.plan_id,
           OLD.plan_row, OLD.environment) THEN
        RAISE EXCEPTION 'the target of a command never changes';
    END IF;
    IF NEW.settings IS DISTINCT FROM OLD.settings
       AND (NEW.kind = 'parameters' OR OLD.state <> 'SELECTED' OR NEW.state <> 'SETTING') THEN
        RAISE EXCEPTION 'the parameters of command % were fixed', OLD.id;
    END IF;
    IF NEW.state = OLD.state THEN
        RETURN NEW;
    END IF;
    IF OLD.state IN ('CANCELLED', 'REJECTED', 'EXPIRED', 'FAILED', 'ABANDONED', 'SUPERSEDED', 'CLOSED') THEN
        RAISE EXCEPTION 'command % is %, which is final', OLD.id, OLD.state;
    END IF;
    IF NEW.state = 'SETTING' AND (OLD.state <> 'SELECTED' OR OLD.sent_at IS NOT NULL OR NEW.settings = '[]') THEN
        RAISE EXCEPTION 'parameters of command % are written from SELECTED only, and only if there are any', OLD.id;
    END IF;
    -- Parameters first, engage last: nothing is engaged whose parameters were not read back as they should be.
    IF NEW.state = 'SET' AND (OLD.state <> 'SETTING' OR jsonb_array_length(NEW.set_results) <> jsonb_array_length(NEW.settings)
        OR EXISTS (SELECT FROM jsonb_array_elements(NEW.set_results) s WHERE (s ->> 'equal') IS DISTINCT FROM 'true')) THEN
        RAISE EXCEPTION 'command % has parameters that were not read back as they should be', OLD.id;
    END IF;
    IF NEW.state = 'SENT' AND (NEW.kind = 'parameters' OR OLD.sent_at IS NOT NULL OR NEW.sent_at IS NULL
        OR OLD.state <> CASE WHEN NEW.kind IN ('period', 'rest', 'suspension', 'float', 'month', 'purchase')
                             THEN 'SET' ELSE 'SELECTED' END) THEN
        RAISE EXCEPTION 'command % may be sent once, from SELECTED or (with parameters) from SET only', OLD.id;
    END IF;
    RETURN NEW;
END $$;

-- Signatures, interlocks and audit of everything that is about to leave, for the whole statement at once.
CREATE FUNCTION command_leaves() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    WITH leaving AS (
        SELECT a.id, a.state, a.kind, a.attempt, a.signatures, a.interlocks FROM after_ a JOIN before_ b USING (id)
        WHERE a.state IN ('SENT', 'SETTING') AND a.state <> b.state
    ), judged AS (
        SELECT c.id, c.signatures,
            EXISTS (
                SELECT FROM approval d LEFT JOIN approval a
                    ON a.command_id = d.command_id AND a.attempt = d.attempt AND a.signature = 'approve'
                   AND a.account_id <> d.account_id AND a.session_id <> d.session_id
                WHERE d.command_id = c.id AND d.attempt = c.attempt AND d.signature = 'draft'
                  AND (c.signatures = 1 OR a.command_id IS NOT NULL)) AS signed,
            (SELECT CASE WHEN takes_supply(c.kind) THEN count(DISTINCT i ->> 'number') = 16
                         ELSE count(DISTINCT i ->> 'number') FILTER (WHERE i ->> 'number' IN ('12', '14')) = 2 END
                AND coalesce(bool_and(
                    i ->> 'verdict' = 'pass'
                    OR ((i ->> 'overridden')::boolean AND (i ->> 'number')::int IN (8, 9, 11)
                        AND EXISTS (SELECT FROM override_ o
                                    WHERE o.command_id = c.id AND o.attempt = c.attempt
                                      AND o.interlock = (i ->> 'number')::int AND o.second_account IS NOT NULL))), false)
             FROM jsonb_array_elements(c.interlocks) i) AS passed,
            EXISTS (SELECT FROM audit WHERE object = 'command:' || c.id AND result = 'ok'
                      AND action = CASE c.state WHEN 'SENT' THEN 'command.send' ELSE 'command.set' END) AS recorded
        FROM leaving c
    )
    SELECT * INTO wrong FROM judged WHERE NOT (signed AND passed AND recorded) LIMIT 1;
    IF FOUND THEN
        IF NOT wrong.signed THEN
            RAISE EXCEPTION 'command % has not been signed by %', wrong.id,
                CASE wrong.signatures WHEN 1 THEN 'anybody' ELSE 'two people' END;
        ELSIF NOT wrong.passed THEN
            RAISE EXCEPTION 'command % has not passed all interlocks', wrong.id;
        ELSE
            RAISE EXCEPTION 'command % has no audit record of its sending', wrong.id;
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER command_leaves AFTER UPDATE ON command REFERENCING OLD TABLE AS before_ NEW TABLE AS after_
    FOR EACH STATEMENT EXECUTE FUNCTION command_leaves();

-- Wakes the daemon once a statement in which a person asked for something.
DROP TRIGGER command_notify ON command;
CREATE OR REPLACE FUNCTION command_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fuhe_command', '');
    RETURN NULL;
END $$;
CREATE TRIGGER command_notify AFTER UPDATE OF executed_at, cancel_wanted_at, release_wanted_at ON command
    FOR EACH STATEMENT EXECUTE FUNCTION command_notify();

GRANT SELECT, INSERT, UPDATE ON protection, incident TO fuhe_app;
