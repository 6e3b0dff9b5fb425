-- Terminals that dial in: traffic by calendar month (business zone), as bytes of the protocol in both directions.
-- Their connections are events of the device: link.online, link.offline, link.replaced, link.moved, link.login, link.logout.

CREATE TABLE terminal_traffic (
    device    int4 NOT NULL,
    month     int4 NOT NULL CHECK (month % 100 BETWEEN 1 AND 12),
    rx_bytes  int8 NOT NULL DEFAULT 0,
    tx_bytes  int8 NOT NULL DEFAULT 0,
    rx_frames int8 NOT NULL DEFAULT 0,
    tx_frames int8 NOT NULL DEFAULT 0,
    updated   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device, month)
) WITH (fillfactor = 70);

GRANT SELECT, INSERT, UPDATE ON terminal_traffic TO fuhe_app;
