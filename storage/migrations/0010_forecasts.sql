-- Issued forecasts and forecasts of the weather, both for keeps: what was known when is what a backtest stands on.

CREATE TABLE forecast (
    id          int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object      text NOT NULL CHECK (object <> ''),
    horizon     text NOT NULL CHECK (horizon IN ('intraday', 'day', 'week', 'month')),
    start       timestamptz NOT NULL,           -- of the first slot; slot i (from 1) ends at start + i * step_s
    step_s      int4 NOT NULL CHECK (step_s > 0),
    issued      timestamptz NOT NULL,           -- only what had been received by then was used
    made        timestamptz NOT NULL DEFAULT now(),
    model       text NOT NULL,
    inputs_hash text NOT NULL CHECK (length(inputs_hash) = 64),
    kw          float8[] NOT NULL,
    last_week   float8[] NOT NULL,              -- the naive models as they stood at the same issue; NULL elements = none
    yesterday   float8[] NOT NULL,
    note        jsonb NOT NULL DEFAULT '{}',
    CHECK (cardinality(kw) > 0 AND array_position(kw, NULL) IS NULL AND array_position(kw, 'NaN') IS NULL),
    CHECK (cardinality(last_week) = cardinality(kw) AND cardinality(yesterday) = cardinality(kw)),
    UNIQUE (object, horizon, start, issued)
);
CREATE INDEX forecast_issued ON forecast (object, horizon, issued);
CREATE TRIGGER forecast_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON forecast
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

CREATE TABLE weather_forecast (
    place    text NOT NULL CHECK (place <> ''),
    quantity text NOT NULL CHECK (quantity <> ''),
    time     timestamptz NOT NULL,              -- of a daily figure: 00:00 of its business day
    daily    boolean NOT NULL,
    issued   timestamptz NOT NULL,
    received timestamptz NOT NULL DEFAULT now(),
    value    float8 NOT NULL CHECK (value <> 'NaN'),
    PRIMARY KEY (place, quantity, time, issued)
);
CREATE TRIGGER weather_forecast_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON weather_forecast
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

GRANT SELECT, INSERT ON forecast, weather_forecast TO fuhe_app;
