-- Who may send control frames: one row, a term that only grows. Every command keeps the term under which it was sent.

CREATE TABLE control_lease (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    term       int8 NOT NULL,
    holder     text NOT NULL,
    renewed_at timestamptz NOT NULL
) WITH (fillfactor = 10);
INSERT INTO control_lease (term, holder, renewed_at) VALUES (0, '', 'epoch');
GRANT SELECT, UPDATE ON control_lease TO fuhe_app;

CREATE FUNCTION lease_term_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.term < OLD.term OR (NEW.term = OLD.term AND NEW.holder <> OLD.holder) THEN
        RAISE EXCEPTION 'the term of the control lease only grows' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER lease_term_grows BEFORE UPDATE ON control_lease FOR EACH ROW EXECUTE FUNCTION lease_term_grows();

ALTER TABLE command ADD COLUMN term int8;
CREATE FUNCTION command_term() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.term := (SELECT term FROM control_lease);
    RETURN NEW;
END $$;
CREATE TRIGGER command_term BEFORE UPDATE OF state ON command FOR EACH ROW
    WHEN (NEW.state = 'SENT' AND OLD.state <> 'SENT') EXECUTE FUNCTION command_term();
