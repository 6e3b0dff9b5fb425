-- Cases: one open case a point (or device) and rule; what each judged day found; every step of a case, append-only.

CREATE TABLE case_ (
    id          int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule        text NOT NULL,
    device_id   int4 NOT NULL REFERENCES device,
    point       int4 REFERENCES point,
    severity    int2 NOT NULL CHECK (severity BETWEEN 1 AND 4),
    state       text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'confirmed', 'assigned', 'on_site', 'repaired', 'verified',
                                                             'closed', 'false')),
    first_at    timestamptz NOT NULL,
    last_at     timestamptz NOT NULL,
    cleared_at  timestamptz,
    repeats     int4 NOT NULL DEFAULT 1,
    opened_at   timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL,
    due_at      timestamptz NOT NULL,
    close_s     int4 NOT NULL,
    escalated   int2 NOT NULL DEFAULT 0,
    assignee    text NOT NULL DEFAULT '',
    finding     text NOT NULL DEFAULT '',
    told        text[] NOT NULL,
    hidden      boolean NOT NULL,
    evidence    jsonb NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX case_one_open ON case_ (device_id, point, rule) NULLS NOT DISTINCT WHERE state NOT IN ('closed', 'false');
CREATE INDEX case_point ON case_ (point, rule, last_at);

CREATE TABLE case_step (
    id       int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id  int8 NOT NULL REFERENCES case_,
    at       timestamptz NOT NULL,
    actor    text NOT NULL,
    step     text NOT NULL,
    note     text NOT NULL DEFAULT '',
    evidence jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX case_step_case ON case_step (case_id, id);
CREATE TRIGGER case_step_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON case_step
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- What the rules found on a day of a point: spans in minutes of the day, and the state that the next day begins with.
CREATE TABLE rule_day (
    point   int4 NOT NULL,
    day     date NOT NULL,
    rule    text NOT NULL,
    spans   int2[] NOT NULL,
    active  boolean NOT NULL,
    run_on  int2 NOT NULL,
    run_off int2 NOT NULL,
    PRIMARY KEY (point, day, rule)
);

CREATE TABLE case_cursor (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    event int8 NOT NULL
);
INSERT INTO case_cursor (event) VALUES (0);

GRANT SELECT, INSERT, UPDATE ON case_ TO fuhe_app;
GRANT SELECT, INSERT ON case_step TO fuhe_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON rule_day TO fuhe_app;
GRANT SELECT, UPDATE ON case_cursor TO fuhe_app;
