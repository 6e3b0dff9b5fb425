"""Fuhe 负荷: an open head-end (主站) and load-management server for electricity metering terminals."""

__version__ = "0.1.0"
