-- Values of the service indicators as they were reported: never changed; late data add the next version.

CREATE TABLE kpi_value (
    indicator    text NOT NULL CHECK (indicator <> ''),
    period       date NOT NULL CHECK (extract(day FROM period) = 1),    -- first day of the month
    version      int4 NOT NULL CHECK (version > 0),
    formula      text NOT NULL CHECK (formula <> ''),
    origin       text NOT NULL CHECK (origin IN ('system', 'manual')),
    numerator    float8 NOT NULL,
    denominator  float8 NOT NULL CHECK (denominator > 0),
    exempt       float8 NOT NULL,
    completeness float8 CHECK (completeness BETWEEN 0 AND 1),           -- NULL: given by hand
    value        float8 NOT NULL,
    provisional  boolean NOT NULL,
    scope        text NOT NULL,
    made_at      timestamptz NOT NULL,
    made_by      text NOT NULL CHECK (made_by <> ''),
    PRIMARY KEY (indicator, period, version)
);
CREATE TRIGGER kpi_value_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON kpi_value
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
GRANT SELECT, INSERT ON kpi_value TO fuhe_app;
