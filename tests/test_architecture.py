"""The rings of ARCHITECTURE.md: imports point inwards only, inside the package they are relative."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "acquisition", "analytics", "commands", "control", "daemon", "model", "protocols", "simulator", "storage",
)  # fmt: skip

# package (longest prefix wins) -> product packages that it may import
MAY_IMPORT = {
    "protocols.common": {"protocols.common"},
    "protocols": {"protocols"},
    "model": {"model", "protocols.common"},
    "analytics": {"analytics", "model", "protocols.common"},
    "acquisition": {"acquisition", "model", "protocols"},
    "acquisition.io": {"acquisition", "acquisition.io", "model", "protocols", "storage"},
    "control": {"control", "model", "protocols.common", "storage"},
    "control.rules": {"control.rules", "model", "protocols.common"},
    "storage": {"storage", "model", "protocols.common"},
    "simulator": {"simulator", "model", "protocols"},
    "daemon": {"daemon", "acquisition", "acquisition.io", "analytics", "control", "model", "protocols", "storage"},
    "commands": set(PACKAGES) | {"acquisition.io"},
    "cli": {"commands", "model"},
}


def _package_of(module: str, table: dict[str, set[str]]) -> str:
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in table:
            return ".".join(parts[:n])
    raise AssertionError(f"no ring for {module}: add it to MAY_IMPORT")


def _imports(path: Path) -> list[tuple[int, int, str]]:
    """(line, level, module) of every import statement, names of `from . import x` expanded."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, 0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level and not base:
                found += [(node.lineno, node.level, alias.name) for alias in node.names]
            else:
                found.append((node.lineno, node.level, base))
    return found


def _sources() -> list[Path]:
    return [ROOT / "cli.py"] + [p for name in PACKAGES for p in sorted((ROOT / name).rglob("*.py"))]


def test_imports_point_inwards_and_are_relative() -> None:
    wrong = []
    for path in _sources():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        package_parts = module.split(".")[:-1]
        here = _package_of(module.removesuffix(".__init__"), MAY_IMPORT)
        for line, level, name in _imports(path):
            where = f"{path.relative_to(ROOT)}:{line}"
            if level == 0:
                if name.split(".")[0] in (*PACKAGES, "fuhe", "cli"):
                    wrong.append(f"{where}: absolute import of {name}")
                continue
            base = package_parts[: len(package_parts) - (level - 1)]
            target = ".".join([*base, name]) if name else ".".join(base)
            if target.startswith("__version__") or target == "":
                continue
            ring = _package_of(target, MAY_IMPORT)
            allowed = any(ring == a or (ring.startswith(a + ".") and a != "acquisition") for a in MAY_IMPORT[here])
            if ring != here and not allowed:
                wrong.append(f"{where}: {here} may not import {target}")
    assert not wrong, "\n".join(wrong)


def test_every_package_is_in_both_build_lists() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    found = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    assert found == set(PACKAGES)
    for target in ("wheel", "sdist"):
        assert found <= set(build[target]["only-include"])


def test_advisory_locks_have_numbers_of_their_own() -> None:
    """Two modules with one number wait for each other: an import for as long as a daemon holds its lease."""
    owners: dict[int, list[str]] = {}
    for path in _sources():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            if not (isinstance(node.value, ast.Constant) and isinstance(node.value.value, int)):
                continue
            # DEVICE_LOCK is the first half of a pair: pairs have a space of their own.
            if node.target.id in ("LOCK", "DIRTY_LOCK", "BOOTSTRAP_LOCK"):
                owners.setdefault(node.value.value, []).append(f"{path.relative_to(ROOT)} {node.target.id}")
    assert len(owners) >= 8
    assert [names for names in owners.values() if len(names) > 1] == []
