"""config.yaml as one typed tree. Every section belongs to the package that uses it; this module only joins and checks.

A fault is reported with its path (`links[2].baud`); nothing is started on a configuration with a fault.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import yaml

from ..acquisition.config import CycleConfig, LinkConfig, link_faults
from ..control.config import ArchiveConfig, ControlConfig
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
    archive: ArchiveConfig = ArchiveConfig()
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

    Relative paths in it (data_dir, secrets_file, journal) are beside the file. UsageError: it cannot be read, is not
    YAML, or has wrong or unknown fields (all of them, named by their paths).
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
    faults = shape_faults(tree or {}, Config)
    if faults:
        raise UsageError(_listed(chosen, faults))
    config = msgspec.convert(tree or {}, Config)
    faults = [f"links[{i}] ({link.name}) {text}" for i, link in enumerate(config.links) for text in link_faults(link)]
    faults += [f"forecast.{text}" for text in forecast_faults(config.forecast)]
    names = [link.name for link in config.links]
    twice = sorted({name for name in names if names.count(name) > 1})
    faults += [tr(f"links: {name} is named twice", f"links: {name} 重名") for name in twice]
    if faults:
        raise UsageError(_listed(chosen, faults))
    return _placed(config, chosen.absolute().parent)


def _placed(config: Config, folder: Path) -> Config:
    """Relative paths of a file are meant beside that file, wherever the verb is typed."""
    storage = msgspec.structs.replace(config.storage, data_dir=str(folder / Path(config.storage.data_dir).expanduser()))
    journal = config.journal
    if journal.directory is not None:
        journal = msgspec.structs.replace(journal, directory=str(folder / Path(journal.directory).expanduser()))
    secrets = None if config.secrets_file is None else str(folder / Path(config.secrets_file).expanduser())
    return msgspec.structs.replace(config, storage=storage, journal=journal, secrets_file=secrets)


def _listed(chosen: Path, faults: list[str]) -> str:
    lines = "\n  ".join(faults)
    return tr(f"{chosen} has faults, nothing was started:\n  {lines}", f"{chosen} 有误, 未启动:\n  {lines}")


def shape_faults(value: object, kind: Any, path: str = "") -> list[str]:
    """Every place where `value` (plain YAML) does not fit `kind`, with its path; empty = `msgspec.convert` takes it."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return _inner_faults(value, kind, path) or [f"{path or '(file)'}: {_said(str(error))}"]
    return []


def _inner_faults(value: object, kind: Any, path: str) -> list[str]:
    if get_origin(kind) is tuple and isinstance(value, list):
        return [text for i, one in enumerate(value) for text in shape_faults(one, get_args(kind)[0], f"{path}[{i}]")]
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict)):
        return []
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
    dot = f"{path}." if path else ""
    faults = [_unknown(f"{dot}{name}", str(name), list(fields)) for name in value if name not in fields]
    for name, field in fields.items():
        if name in value:
            faults += shape_faults(value[name], field.type, f"{dot}{name}")
        elif field.required:
            faults.append(tr(f"{dot}{name} is missing", f"缺少 {dot}{name}"))
    return faults


def _unknown(path: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = tr(f": did you mean {near[0]}?", f": 是否为 {near[0]}?") if near else ""
    return tr(f"{path} is no option{hint}", f"{path} 不是配置项{hint}")


def _said(text: str) -> str:
    """msgspec's words without its own path; the usual ones in the language in force."""
    text = text.split(" - at `$")[0]
    found = re.fullmatch(r"Expected `(.+)`, got `(.+)`", text)
    return tr(text, f"应为 {found[1]}, 实为 {found[2]}") if found else text
