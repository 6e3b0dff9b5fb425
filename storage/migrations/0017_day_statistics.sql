-- Statistics of a day by point (domain 4), as `fuhe analyse DAY` makes them. version: the FINAL version of the point's day
-- they stand on, 0 = raw readings. A later run on the same version replaces the row only where a figure differs.

CREATE TABLE day_statistics (
    day             date NOT NULL,
    point           int4 NOT NULL,
    version         int2 NOT NULL CHECK (version >= 0),
    made            timestamptz NOT NULL DEFAULT now(),
    source          int2 NOT NULL,      -- of the curve (4.2): 1 meter average, 2 terminal average, 3 sampled, 4 register
    energy_flag     int2 NOT NULL,      -- of the forward register (4.1)
    valid           int2 NOT NULL,      -- measured slots
    flag            int2 NOT NULL,      -- 0 complete, 1 partial, 2 insufficient
    energy_kwh      float8, energy_exact int2 NOT NULL, export_kwh float8, curve_kwh float8,
    mean_kw         float8, max_kw float8, max_slot int2, min_kw float8, min_slot int2, net_min_kw float8,
    load_factor     float8, min_rate float8, difference_rate float8,
    tou_kwh         float8[],           -- by number of the tariff; NaN where a slot of it is missing
    u_monitored     int2[] NOT NULL, u_over int2[] NOT NULL, u_under int2[] NOT NULL, u_excluded int2[] NOT NULL,
    u_any_monitored int2 NOT NULL, u_any_out int2 NOT NULL,
    i_judged        int2 NOT NULL, i_unbalanced int2 NOT NULL, i_spread_max float8,
    cos             int2,               -- hundredths
    beta_max        float8, heavy int2 NOT NULL, loading int2,
    checks          int2 NOT NULL,      -- bits (number - 1) of the VEE checks that failed somewhere in the day
    PRIMARY KEY (day, point, version)
);
GRANT SELECT, INSERT, UPDATE ON day_statistics TO fuhe_app;
