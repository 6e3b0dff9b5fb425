"""Configuration of storage: the `storage:` and `journal:` sections of config.yaml."""

from __future__ import annotations

import msgspec


class StorageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where readings live. Without `dsn` an embedded PostgreSQL is kept in `data_dir`/postgres.

    dsn: the daemon's ordinary role; admin_dsn: the owner, for `fuhe db migrate` (default: dsn).
    extension_dir: a directory with lib/ and extension/ of PostgreSQL extensions (TimescaleDB) for the embedded server.
    service_user: whom the embedded server runs as when we are root (default: fuhe, else postgres, else nobody).
    """

    data_dir: str = "fuhe-data"
    dsn: str | None = None
    admin_dsn: str | None = None
    extension_dir: str | None = None
    service_user: str | None = None
    shared_buffers: str = "256MB"
    raw_retention_days: int = 1100
    compress_after_days: int = 7


class JournalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The journal (append-only segments). Directory default: data_dir/journal."""

    directory: str | None = None
    segment_mb: int = 64
    max_mb: int = 4096
    commit_ms: int = 20
