"""A load-management terminal (专变终端) or concentrator (集中器) of Q/GDW 1376.1, seen from its own side.

Nothing here opens a socket or looks at a clock: instants are arguments (µs since 1970 UTC), bytes come and go as
messages of `protocols.qgdw1376`. `device.Terminal` puts the parts together; `application` answers the master;
`link` is the terminal's side of a connection.
"""
