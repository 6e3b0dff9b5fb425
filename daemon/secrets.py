"""The secrets file: names to passwords, operator codes and keys. Mode 0600 or it is not read; never logged."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec
import yaml

from ..model.devices import Credentials, Device
from ..model.lang import tr
from ..protocols.common.errors import UsageError


class SecretBook:
    """Secrets by name. A device without `secret` gets the default credentials (all zero), which most meters refuse."""

    def __init__(self, entries: dict[str, Credentials]) -> None:
        self._entries = entries

    @classmethod
    def load(cls, path: str | None) -> SecretBook:
        """Read the file; UsageError when it is missing, readable by others, or has a wrong field."""
        if path is None:
            return cls({})
        file = Path(path).expanduser()
        try:
            mode = stat.S_IMODE(file.stat().st_mode)
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(
                tr(f"secrets_file {file}: {error.strerror}", f"密钥文件 {file}: {error.strerror}")
            ) from error
        if mode & 0o077:
            raise UsageError(
                tr(
                    f"secrets_file {file} is open to others: chmod 600 {file}",
                    f"密钥文件 {file} 权限过宽: chmod 600 {file}",
                )
            )
        try:
            return cls(msgspec.convert(yaml.load(text, Loader=yaml.CSafeLoader) or {}, dict[str, Credentials]))
        except (yaml.YAMLError, msgspec.ValidationError) as error:
            # The parser's own text may quote the line it stumbled over, and with it a password.
            raise UsageError(
                tr(
                    f"secrets_file {file}: expected NAME: {{password: ..., operator: ..., key: ...}}",
                    f"密钥文件 {file}: 格式应为 名称: {{password: ..., operator: ..., key: ...}}",
                )
            ) from error

    def of(self, device: Device) -> Credentials:
        """The device's credentials."""
        return self._entries.get(device.secret or "", Credentials())

    def knows(self, device: Device) -> bool:
        """Whether the device's secret is named and present."""
        return device.secret in self._entries

    def password(self, name: str) -> str:
        """The password of a link's own secret (a broker's); UsageError when it is not in the file."""
        if name not in self._entries:
            raise UsageError(tr(f"secret {name} is not in the secrets file", f"密钥文件中没有 {name}"))
        return self._entries[name].password

    def name_of(self, password: str, first: Iterable[str] = ()) -> str | None:
        """A name whose password this is, one of `first` if possible; None if there is none."""
        for name in (*first, *sorted(self._entries)):
            found = self._entries.get(name)
            if found is not None and found.password.lower() == password.lower():
                return name
        return None

    def missing(self, devices: list[Device]) -> list[str]:
        """Names that devices use and the file does not have."""
        return sorted({d.secret for d in devices if d.secret and d.secret not in self._entries})
