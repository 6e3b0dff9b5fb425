-- Evaluations of orders: what was found, never changed; a later one (late data) is a further row.

CREATE TABLE order_evaluation (
    id       int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id int4 NOT NULL REFERENCES order_,
    at       timestamptz NOT NULL,
    by_      text NOT NULL,
    result   jsonb NOT NULL
);
CREATE TRIGGER order_evaluation_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON order_evaluation
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
GRANT SELECT, INSERT ON order_evaluation TO fuhe_app;
