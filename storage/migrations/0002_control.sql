-- Control: people, rounds, plans, orders, proposals, commands, audit (domain 8 and 9).
-- fuhe_app never deletes here; audit, approvals, proposals and frames are append-only for everybody by trigger.
-- The way of a command to SENT is guarded here a second time, so that no program error can send without two people.

CREATE TABLE account (
    id            int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL UNIQUE CHECK (name ~ '^[^[:space:]:]{1,64}$'),
    role          text NOT NULL,
    password_hash text NOT NULL,
    disabled      boolean NOT NULL DEFAULT false,
    failures      int4 NOT NULL DEFAULT 0,
    locked_at     timestamptz,
    created_at    timestamptz NOT NULL
);

CREATE TABLE session (
    id          int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  int4 NOT NULL REFERENCES account,
    token_hash  bytea NOT NULL UNIQUE,
    workstation text NOT NULL,
    created_at  timestamptz NOT NULL,
    last_seen   timestamptz NOT NULL,
    ended_at    timestamptz
);

-- One hash chain. UNIQUE (prev_hash) makes a fork impossible; before_ and after_ hold the canonical JSON that was hashed.
CREATE TABLE audit (
    seq         int8 PRIMARY KEY CHECK (seq > 0),
    time        timestamptz NOT NULL,
    actor       text NOT NULL,
    role        text NOT NULL,
    session     int8,
    workstation text NOT NULL,
    action      text NOT NULL,
    object      text NOT NULL,
    before_     text NOT NULL,
    after_      text NOT NULL,
    reason      text NOT NULL,
    result      text NOT NULL,
    prev_hash   text NOT NULL UNIQUE CHECK (length(prev_hash) = 64),
    hash        text NOT NULL UNIQUE CHECK (length(hash) = 64)
);
CREATE INDEX audit_object ON audit (object, seq);
CREATE INDEX audit_time ON audit (time);

CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- One-key stop and its like. Switching off needs two people: ask_* holds the first.
CREATE TABLE system_flag (
    name        text PRIMARY KEY,
    value       boolean NOT NULL,
    reason      text NOT NULL DEFAULT '',
    changed_by  text NOT NULL DEFAULT '',
    changed_at  timestamptz,
    ask_account int4 REFERENCES account,
    ask_session int8 REFERENCES session,
    ask_at      timestamptz
);
INSERT INTO system_flag (name, value) VALUES ('control_freeze', false);

CREATE TABLE round (
    device_id        int4 NOT NULL REFERENCES device,
    round            int2 NOT NULL CHECK (round BETWEEN 1 AND 16),
    description      text NOT NULL DEFAULT '',
    importance       int2 NOT NULL DEFAULT 1,
    typical_kw       float8 NOT NULL CHECK (typical_kw >= 0),
    last_measured_kw float8,
    min_off_min      int4,
    min_on_min       int4,
    max_trips_day    int4,
    manual_reclose   boolean NOT NULL DEFAULT true,
    last_test_at     timestamptz,
    last_test_ok     boolean,
    tag              text NOT NULL DEFAULT '',
    PRIMARY KEY (device_id, round)
);

CREATE TABLE plan (
    id              int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL,
    version         int4 NOT NULL,
    area            text NOT NULL,
    body            text NOT NULL,
    document        text NOT NULL,
    valid_from      timestamptz NOT NULL,
    valid_to        timestamptz NOT NULL CHECK (valid_to > valid_from),
    target_kw       float8 NOT NULL CHECK (target_kw > 0),
    file_hash       text NOT NULL,
    rows_hash       text NOT NULL,
    status          text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'reviewed', 'approved', 'active', 'retired')),
    drafter         int4 NOT NULL REFERENCES account,
    drafter_session int8 NOT NULL REFERENCES session,
    reviewer        int4 REFERENCES account,
    reviewer_session int8 REFERENCES session,
    approver        int4 REFERENCES account,
    approver_session int8 REFERENCES session,
    activator       int4 REFERENCES account,
    created_at      timestamptz NOT NULL,
    changed_at      timestamptz NOT NULL,
    UNIQUE (name, version),
    CHECK (reviewer <> drafter), CHECK (reviewer_session <> drafter_session),
    CHECK (approver NOT IN (drafter, reviewer)), CHECK (approver_session NOT IN (drafter_session, reviewer_session)),
    CHECK (activator <> approver)
);
CREATE UNIQUE INDEX plan_one_active ON plan (area) WHERE status = 'active';

CREATE TABLE plan_row (
    plan_id       int4 NOT NULL REFERENCES plan,
    row           int4 NOT NULL,
    seq           int4 NOT NULL,
    measure       text NOT NULL,
    level         text NOT NULL,
    group_        text NOT NULL,
    customer      text NOT NULL,
    device_id     int4 NOT NULL REFERENCES device,
    round         int2 NOT NULL,
    reducible_kw  float8 NOT NULL,
    limit_kw      float8 NOT NULL,
    security_kw   float8 NOT NULL,
    class         text NOT NULL,
    contact       text NOT NULL,
    notice        text NOT NULL,
    last_test     date NOT NULL,
    importance    int2 NOT NULL,
    supply        text NOT NULL,
    voluntary     boolean NOT NULL,
    ufls          text NOT NULL,
    alarm_min     int2 NOT NULL,
    max_hours_day float8,
    PRIMARY KEY (plan_id, row),
    UNIQUE (plan_id, device_id, round)
);
CREATE TRIGGER plan_row_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON plan_row
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

CREATE TABLE order_ (
    id               int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number           text NOT NULL UNIQUE CHECK (number <> ''),
    issuer           text NOT NULL CHECK (issuer <> ''),
    area             text NOT NULL,
    level            text NOT NULL CHECK (level IN ('I', 'II', 'III', 'IV')),
    gap_kw           float8 NOT NULL CHECK (gap_kw > 0),
    start_at         timestamptz NOT NULL,
    end_at           timestamptz NOT NULL CHECK (end_at > start_at),
    text             text NOT NULL DEFAULT '',
    state            text NOT NULL DEFAULT 'RECEIVED',
    received_at      timestamptz NOT NULL,
    receiver         int4 NOT NULL REFERENCES account,
    receiver_session int8 NOT NULL REFERENCES session,
    confirmer        int4 REFERENCES account,
    confirmer_session int8 REFERENCES session,
    repeat_back      text NOT NULL DEFAULT '',
    attention        text NOT NULL DEFAULT '',
    changed_at       timestamptz NOT NULL,
    CHECK (confirmer <> receiver), CHECK (confirmer_session <> receiver_session)
);
-- Only one active level per area and time slot (8.13).
CREATE UNIQUE INDEX order_one_active ON order_ (area) WHERE state IN ('ACTIVE', 'CHANGING', 'RELEASING');

CREATE TABLE proposal (
    id         int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id   int4 NOT NULL REFERENCES order_,
    plan_id    int4 NOT NULL REFERENCES plan,
    gap_kw     float8 NOT NULL,
    target_kw  float8 NOT NULL,
    total_kw   float8 NOT NULL,
    feasible   boolean NOT NULL,
    over       boolean NOT NULL,
    binding    text[] NOT NULL,
    author     int4 NOT NULL REFERENCES account,
    created_at timestamptz NOT NULL
);
CREATE TABLE proposal_row (
    proposal_id  int4 NOT NULL REFERENCES proposal,
    position     int4 NOT NULL,
    plan_row     int4 NOT NULL,
    device_id    int4 NOT NULL REFERENCES device,
    round        int2 NOT NULL,
    chosen       boolean NOT NULL,
    expected_kw  float8 NOT NULL,
    power_kw     float8,
    power_min_kw float8,
    power_age_s  float8,
    round_kw     float8,
    floor_kw     float8,
    reason       text NOT NULL,
    PRIMARY KEY (proposal_id, position)
);
CREATE TRIGGER proposal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON proposal
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER proposal_row_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON proposal_row
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- One command = one round of one device. sent, acknowledged, read_back, measured_kw are four facts in four fields;
-- NULL = not known. sent_at is written ahead of the frame; attempt counts submissions (approvals belong to one).
CREATE TABLE command (
    id                 int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_seq         int4 NOT NULL,
    environment        text NOT NULL CHECK (environment IN ('prod', 'test')),
    state              text NOT NULL DEFAULT 'DRAFT',
    attempt            int4 NOT NULL DEFAULT 0,
    order_id           int4 NOT NULL REFERENCES order_,
    proposal_id        int4 NOT NULL REFERENCES proposal,
    position           int4 NOT NULL,
    plan_id            int4 NOT NULL,
    plan_row           int4 NOT NULL,
    device_id          int4 NOT NULL REFERENCES device,
    round              int2 NOT NULL,
    customer           text NOT NULL,
    expected_kw        float8 NOT NULL,
    round_kw           float8 NOT NULL,
    floor_kw           float8 NOT NULL,
    alarm_min          int2 NOT NULL DEFAULT 0,
    limit_half_hours   int2 NOT NULL DEFAULT 0,
    not_before         timestamptz NOT NULL,
    not_after          timestamptz NOT NULL,
    created_at         timestamptz NOT NULL,
    changed_at         timestamptz NOT NULL,
    submitted_at       timestamptz,
    approved_at        timestamptz,
    executed_at        timestamptz,
    step               int8,
    selected_at        timestamptz,
    sent_at            timestamptz,
    valid_until        timestamptz,
    before_kw          float8,
    interlocks         jsonb NOT NULL DEFAULT '[]',
    sent               boolean,
    acknowledged       boolean,
    read_back          jsonb,
    measured_kw        float8,
    checks             jsonb NOT NULL DEFAULT '[]',
    check_no           int4 NOT NULL DEFAULT 0,
    next_check_at      timestamptz,
    cancel_wanted_at   timestamptz,
    cancel_sent_at     timestamptz,
    release_wanted_at  timestamptz,
    release_kind       text,
    release_danger     boolean NOT NULL DEFAULT false,
    release_block      int4,
    release_not_before timestamptz,
    release_pickup_kw  float8,
    release_margin_kw  float8,
    release_sent_at    timestamptz,
    release_acked      boolean,
    released_at        timestamptz,
    restored_at        timestamptz,
    attention          text NOT NULL DEFAULT '',
    FOREIGN KEY (plan_id, plan_row) REFERENCES plan_row,
    FOREIGN KEY (device_id, round) REFERENCES round,
    UNIQUE (device_id, device_seq)
);
CREATE UNIQUE INDEX command_one_active ON command (device_id, round)
    WHERE state IN ('CHECKING', 'SELECTED', 'SENT', 'UNKNOWN', 'ACKED', 'ALARMING', 'VERIFYING', 'EFFECTIVE', 'PARTIAL',
                    'INEFFECTIVE', 'AUTO_RELEASED', 'RELEASING', 'RELEASED');
CREATE INDEX command_live ON command (id)
    WHERE state NOT IN ('CANCELLED', 'REJECTED', 'EXPIRED', 'FAILED', 'ABANDONED', 'SUPERSEDED', 'CLOSED');
CREATE INDEX command_order ON command (order_id);

CREATE TABLE approval (
    command_id int8 NOT NULL REFERENCES command,
    attempt    int4 NOT NULL,
    signature  text NOT NULL CHECK (signature IN ('draft', 'approve')),
    account_id int4 NOT NULL REFERENCES account,
    session_id int8 NOT NULL REFERENCES session,
    at         timestamptz NOT NULL,
    seen       jsonb NOT NULL,
    PRIMARY KEY (command_id, attempt, signature)
);
CREATE TRIGGER approval_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON approval
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- Override of interlock 8, 9 or 11 by a dispatcher (account_id) and a second person; in force once the second signed.
CREATE TABLE override_ (
    command_id     int8 NOT NULL REFERENCES command,
    attempt        int4 NOT NULL,
    interlock      int2 NOT NULL CHECK (interlock IN (8, 9, 11)),
    account_id     int4 NOT NULL REFERENCES account,
    session_id     int8 NOT NULL REFERENCES session,
    reason         text NOT NULL CHECK (reason <> ''),
    at             timestamptz NOT NULL,
    second_account int4 REFERENCES account CHECK (second_account <> account_id),
    second_session int8 REFERENCES session CHECK (second_session <> session_id),
    second_at      timestamptz,
    PRIMARY KEY (command_id, attempt, interlock)
);

-- Every frame of a command as it went over the wire, secrets masked.
CREATE TABLE command_frame (
    id         int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    command_id int8 NOT NULL REFERENCES command,
    time       timestamptz NOT NULL,
    purpose    text NOT NULL,
    direction  text NOT NULL CHECK (direction IN ('out', 'in')),
    hex        text NOT NULL
);
CREATE INDEX command_frame_command ON command_frame (command_id, id);
CREATE TRIGGER command_frame_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON command_frame
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

CREATE TABLE notice (
    id       int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id int4 NOT NULL REFERENCES order_,
    customer text NOT NULL,
    channel  text NOT NULL,
    contact  text NOT NULL,
    note     text NOT NULL DEFAULT '',
    given    boolean NOT NULL,
    by_      text NOT NULL,
    at       timestamptz NOT NULL
);
CREATE INDEX notice_order ON notice (order_id, customer);

CREATE FUNCTION command_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'DRAFT' THEN
            RAISE EXCEPTION 'a command begins as DRAFT';
        END IF;
        RETURN NEW;
    END IF;
    IF ROW(NEW.device_id, NEW.round, NEW.order_id, NEW.plan_id, NEW.plan_row, NEW.environment)
       IS DISTINCT FROM ROW(OLD.device_id, OLD.round, OLD.order_id, OLD.plan_id, OLD.plan_row, OLD.environment) THEN
        RAISE EXCEPTION 'the target of a command never changes';
    END IF;
    IF NEW.state = OLD.state THEN
        RETURN NEW;
    END IF;
    IF OLD.state IN ('CANCELLED', 'REJECTED', 'EXPIRED', 'FAILED', 'ABANDONED', 'SUPERSEDED', 'CLOSED') THEN
        RAISE EXCEPTION 'command % is %, which is final', OLD.id, OLD.state;
    END IF;
    IF NEW.state = 'SENT' THEN
        IF OLD.state <> 'SELECTED' OR OLD.sent_at IS NOT NULL OR NEW.sent_at IS NULL THEN
            RAISE EXCEPTION 'command % may be sent once, and from SELECTED only', OLD.id;
        END IF;
        IF NOT EXISTS (
            SELECT FROM approval d JOIN approval a USING (command_id, attempt)
            WHERE d.command_id = NEW.id AND d.attempt = NEW.attempt AND d.signature = 'draft' AND a.signature = 'approve'
              AND d.account_id <> a.account_id AND d.session_id <> a.session_id) THEN
            RAISE EXCEPTION 'command % has not been signed by two people', OLD.id;
        END IF;
        IF (SELECT count(DISTINCT i ->> 'number') FROM jsonb_array_elements(NEW.interlocks) i) <> 16
           OR EXISTS (
               SELECT FROM jsonb_array_elements(NEW.interlocks) i
               WHERE i ->> 'verdict' <> 'pass'
                 AND NOT ((i ->> 'overridden')::boolean AND (i ->> 'number')::int IN (8, 9, 11)
                          AND EXISTS (SELECT FROM override_ o
                                      WHERE o.command_id = NEW.id AND o.attempt = NEW.attempt
                                        AND o.interlock = (i ->> 'number')::int AND o.second_account IS NOT NULL))) THEN
            RAISE EXCEPTION 'command % has not passed all interlocks', OLD.id;
        END IF;
        IF NOT EXISTS (SELECT FROM audit WHERE object = 'command:' || NEW.id AND action = 'command.send' AND result = 'ok') THEN
            RAISE EXCEPTION 'command % has no audit record of its sending', OLD.id;
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER command_guard BEFORE INSERT OR UPDATE ON command FOR EACH ROW EXECUTE FUNCTION command_guard();

-- Wakes the daemon (payload: id) when a person or the daemon moved a command.
CREATE FUNCTION command_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('fuhe_command', NEW.id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER command_notify AFTER UPDATE OF state, cancel_wanted_at, release_wanted_at ON command
    FOR EACH ROW EXECUTE FUNCTION command_notify();

GRANT SELECT, INSERT ON audit, plan_row, proposal, proposal_row, approval, command_frame, notice TO fuhe_app;
GRANT SELECT, INSERT, UPDATE ON account, session, round, plan, order_, command, override_ TO fuhe_app;
GRANT SELECT, UPDATE ON system_flag TO fuhe_app;
