"""config.yaml as one typed tree. Every section belongs to the package that uses it; this module only joins and checks.

A fault is reported with its path (`links[2].baud`); nothing is started on a configuration with a fault.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import yaml

from ..acquisition.config import CycleConfig, LinkConfig, link_faults
from ..control.config import ControlConfig
from ..model.lang import tr
from ..protocols.common.errors import UsageError
from ..storage.config import JournalConfig, StorageConfig
from .forecast_config import ForecastConfig, forecast_faults

SEARCH = (Path("config.yaml"), Path("/etc/fuhe/config.yaml"))


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Metrics (/metrics) and health (/health); loopback unless told otherwise. port 0 = off."""

    host: str = "127.0.0.1"
    port: int = 9780


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration. `secrets_file`: YAML of named passwords and keys, mode 0600, never logged."""

    storage: StorageConfig = StorageConfig()
    journal: JournalConfig = JournalConfig()
    links: tuple[LinkConfig, ...] = ()
    cycles: CycleConfig = CycleConfig()
    control: ControlConfig = ControlConfig()
    http: HttpConfig = HttpConfig()
    forecast: ForecastConfig = ForecastConfig()
    secrets_file: str | None = None
    read_only: bool = False
    log_level: str = "INFO"

    @property
    def data_dir(self) -> Path:
        """Directory of everything this installation keeps on disk."""
        return Path(self.storage.data_dir).expanduser().absolute()


def load_config(path: Path | None) -> Config:
    """Read `path` (or the first of ./config.yaml, /etc/fuhe/config.yaml; built-in defaults if neither exists).

    UsageError: the file cannot be read, is not YAML, or has a wrong or unknown field (named by its path).
    """
    chosen = path or next((p for p in SEARCH if p.exists()), None)
    if chosen is None:
        return Config()
    try:
        tree = yaml.load(chosen.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(
            tr(f"cannot read configuration {chosen}: {error}", f"无法读取配置 {chosen}: {error}")
        ) from error
    try:
        config = msgspec.convert(tree or {}, Config)
    except msgspec.ValidationError as error:
        raise UsageError(tr(f"{chosen}: {error}", f"{chosen} 有误: {error}")) from error
    faults = [f"links[{i}] ({link.name}) {text}" for i, link in enumerate(config.links) for text in link_faults(link)]
    faults += [f"forecast.{text}" for text in forecast_faults(config.forecast)]
    if faults:
        lines = "\n  ".join(faults)
        raise UsageError(tr(f"{chosen} has faults:\n  {lines}", f"{chosen} 有误:\n  {lines}"))
    names = [link.name for link in config.links]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UsageError(
            tr(f"{chosen}: links named twice: {', '.join(twice)}", f"{chosen}: 链路重名: {', '.join(twice)}")
        )
    return config
