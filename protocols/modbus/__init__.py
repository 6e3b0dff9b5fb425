"""Modbus RTU and TCP: framers, words, register maps as data, grouping of reads. Pure; no socket, no clock.

`frame` cuts streams, `pdu` builds and explains messages (on pymodbus), `words` turns registers into numbers,
`maps` loads profiles/*.toml, `grouping` plans reads, `gather` decodes whole replies into arrays (the hot path).
"""
