"""Q/GDW 376.1-2009, Q/GDW 1376.1-2013, 130-2005: master station <-> load-management terminal (终端、集中器)."""
