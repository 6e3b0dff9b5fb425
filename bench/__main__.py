"""Runs the benches and prints every figure as a ratio to a named peer or limit of the same run.

python -m bench                 all of them
python -m bench dlt645 storage  some
python -m bench --write         also renews docs/performance.md
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
ALL = (
    "dlt645",
    "qgdw1376",
    "modbus_codec",
    "links",
    "storage",
    "analytics",
    "vee",
    "loading",
    "daypass",
    "detection",
    "forecast",
    "daemon",
    "terminals",
    "terminals_curves",
    "fanout",
    "drills",
)
PAGE = ROOT / "docs" / "performance.md"
MARK = re.compile(r"<!-- bench:(\w+) -->.*?<!-- end -->\n?", re.DOTALL)
Row = dict[str, object]


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)


def _markdown(name: str, rows: list[Row]) -> str:
    head = "| figure | value | unit | peer or limit | ratio | target |\n|---|---:|---|---|---:|---|\n"
    body = "".join(
        f"| {r['name']} | {_show(r['value'])} | {r['unit']} | {_show(r.get('peer'))} | {_show(r.get('ratio'))} | "
        f"{_show(r.get('target'))} |\n"
        for r in rows
    )
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    where = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    return f"<!-- bench:{name} -->\n`python -m bench {name}` · {when} · {where}\n\n{head}{body}<!-- end -->\n"


def _write(name: str, rows: list[Row]) -> None:
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Performance\n"
    block = _markdown(name, rows)
    found = [m for m in MARK.finditer(text) if m[1] == name]
    text = text.replace(found[0][0], block) if found else f"{text.rstrip()}\n\n## {name}\n\n{block}"
    PAGE.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"benches: {', '.join(ALL)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--write", action="store_true", help="renew docs/performance.md")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(ALL))
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}; there are {', '.join(ALL)}")
    console = Console()
    for name in arguments.names or [n for n in ALL if (ROOT / "bench" / f"{n}.py").exists()]:
        console.print(f"[bold]{name}[/bold] …")
        rows: list[Row] = importlib.import_module(f"bench.{name}").run(quick=arguments.quick)
        table = Table(show_header=True)
        for column in ("figure", "value", "unit", "peer or limit", "ratio", "target"):
            table.add_column(column, justify="left" if column in ("figure", "unit", "peer or limit") else "right")
        for row in rows:
            table.add_row(*(_show(row.get(k)) for k in ("name", "value", "unit", "peer", "ratio", "target")))
        console.print(table)
        if arguments.write and rows:
            _write(name, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
