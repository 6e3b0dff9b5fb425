"""`fuhe analyse`: the statistics of a day for all points in one pass, stored; and where each number comes from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, Final

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..analytics.fleet import STATS, Chunk
from ..analytics.masks import DayFlag
from ..analytics.network import Loading
from ..analytics.spread import here, on_cluster
from ..analytics.vee.checks import Check
from ..model.devices import Point
from ..model.lang import tr
from ..protocols.common.errors import LinkError, UsageError
from ..storage.database import Database
from ..storage.day_statistics import write_statistics
from .analyse_data import Loaded, load_chunk
from .analyse_explain import explain_
from .asking import print_table
from .common import App, json_option, pass_app, print_json, reported
from .curve import DayType
from .curve_data import ALL, choose_points

CHUNK: Final = 2000  # points read at once: some 40 MB of float64 while loading


class _DayFirst(click.Group):
    """`fuhe analyse DAY` is `fuhe analyse day DAY`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["day", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_DayFirst)
def analyse() -> None:
    """Statistics of a day, stored: `fuhe analyse DAY`; where a number comes from: `fuhe analyse explain`."""


analyse.add_command(explain_)


@analyse.command("day")
@click.argument("day", type=DayType())
@click.option(
    "--points",
    "wanted",
    default=ALL,
    metavar="NAME,NAME",
    show_default=True,
    help=tr("points by name or number", "计量点名称或编号"),
)
@click.option(
    "--dask", "address", metavar="tcp://HOST:PORT", help=tr("compute on a Dask cluster", "在 Dask 集群上计算")
)
@click.option("--worst", default=10, show_default=True, help=tr("how many points to name", "列出的计量点数"))
@json_option
@pass_app
@reported
def day_(app: App, day: date, wanted: str, address: str | None, worst: int, as_json: bool) -> None:
    """Statistics of all points on a day, in chunks; stored per point, day and version. May be repeated at will."""
    with Database.open(app.config.storage) as database, database.connect(autocommit=True) as connection:
        points = list({p.id: p for name in wanted.split(",") for p in choose_points(connection, name.strip())}.values())
        loaded: list[Loaded] = []

        def chunks() -> Iterator[Chunk]:
            for begin in range(0, len(points), CHUNK):
                loaded.append(load_chunk(connection, day, points[begin : begin + CHUNK]))
                yield loaded[-1].chunk

        found = []
        changed = 0
        for records in _watched(_computed(address, chunks()), len(points), quiet=as_json):
            one = loaded.pop(0)  # results come in the order of the chunks
            found.append(records)
            with connection.transaction():
                changed += write_statistics(connection, day, one.version, one.source, one.energy_flag, records)
    records = np.concatenate(found) if found else np.zeros(0, STATS)
    summary = totals(records) | {"day": day.isoformat(), "changed": changed}
    bad = worst_points(records, points, worst)
    if as_json:
        print_json(summary | {"worst": bad})
        return
    _say(day, summary, bad)


def _computed(address: str | None, chunks: Iterator[Chunk]) -> Iterator[NDArray[np.void]]:
    if address is None:
        return here(chunks)
    return _on_cluster(address, chunks)


def _on_cluster(address: str, chunks: Iterator[Chunk]) -> Iterator[NDArray[np.void]]:
    try:
        yield from on_cluster(address, chunks)
    except ImportError as error:
        raise UsageError(
            tr(
                "--dask needs the extra: pip install 'fuhe[cluster]'",
                "--dask 需要附加组件: pip install 'fuhe[cluster]'",
            )
        ) from error
    except OSError as error:
        raise LinkError(tr(f"Dask at {address}: {error}", f"Dask {address}: {error}")) from error


def _watched(results: Iterator[NDArray[np.void]], total: int, *, quiet: bool) -> Iterator[NDArray[np.void]]:
    """With a bar on standard error where a person looks on."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as bar:
        task = bar.add_task(tr("points", "计量点"), total=total)
        for records in results:
            bar.advance(task, len(records))
            yield records


def _sum(values: NDArray[Any]) -> float:
    return float(np.nansum(values.astype(np.float64))) if len(values) else 0.0


def totals(r: NDArray[np.void]) -> dict[str, Any]:
    """Sums over the points that have the figure, and how many have it; never scaled up."""
    monitored, out = int(r["u_any_monitored"].sum()), int(r["u_any_out"].sum())
    return {
        "points": len(r),
        "complete": int((r["flag"] == DayFlag.COMPLETE).sum()),
        "partial": int((r["flag"] == DayFlag.PARTIAL).sum()),
        "insufficient": int((r["flag"] == DayFlag.INSUFFICIENT).sum()),
        "energy_kwh": _sum(r["energy_kwh"]),
        "energy_points": int(np.isfinite(r["energy_kwh"]).sum()),
        "energy_exact": int(r["energy_exact"].sum()),
        "export_kwh": _sum(r["export_kwh"]),
        "voltage_rate": 1 - out / monitored if monitored else None,
        "voltage_points": int((r["u_any_monitored"] > 0).sum()),
        "overloaded": int((r["loading"] >= Loading.OVER).sum()),
        "heavy": int((r["loading"] == Loading.HEAVY).sum()),
        "low_power_factor": int(((r["cos"] >= 0) & (r["cos"] < 90)).sum()),
        "checks": {
            c.name: int((r["checks"] >> (c - 1) & 1).sum()) for c in (Check.K4, Check.K5, Check.K6, Check.K9, Check.K12)
        },
    }


def worst_points(r: NDArray[np.void], points: Sequence[Point], count: int) -> list[dict[str, Any]]:
    """Points with findings, those with most first; then by time out of the voltage band."""
    names = {p.id: p.name for p in points}
    silent = r["flag"] == DayFlag.INSUFFICIENT
    out = np.where(r["u_any_monitored"] > 0, r["u_any_out"] / np.maximum(r["u_any_monitored"], 1), 0.0)
    unbalanced = np.where(r["i_judged"] > 0, r["i_unbalanced"] / np.maximum(r["i_judged"], 1), 0.0)
    failed = sum((r["checks"] >> (c - 1) & 1).astype(np.int64) for c in Check)
    number = (
        4 * silent + failed + (out > 0.02) + (r["loading"] >= Loading.HEAVY) + (unbalanced > 0.5)
        + ((r["cos"] >= 0) & (r["cos"] < 80))
    )  # fmt: skip
    order = np.lexsort((r["point"], -out, -number))
    rows = []
    for i in order[: max(count, 0)].tolist():
        if number[i] == 0:
            break
        row = r[i]
        rows.append(
            {
                "point": names[int(row["point"])],
                "valid_slots": int(row["valid"]),
                "checks": [c.name for c in Check if int(row["checks"]) >> (c - 1) & 1],
                "voltage_out_slots": int(row["u_any_out"]),
                "unbalanced_slots": int(row["i_unbalanced"]),
                "beta_max": _or_none(row["beta_max"]),
                "power_factor": int(row["cos"]) / 100 if row["cos"] >= 0 else None,
                "energy_kwh": _or_none(row["energy_kwh"]),
            }
        )
    return rows


def _or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _say(day: date, t: dict[str, Any], bad: Sequence[dict[str, Any]]) -> None:
    rate = "–" if t["voltage_rate"] is None else f"{100 * t['voltage_rate']:.2f} %"
    n = {name: f"{value:,}" for name, value in t.items() if isinstance(value, int)}
    click.echo(
        tr(
            f"{day}: {n['points']} points, {n['complete']} complete, {n['partial']} partial, {n['insufficient']}"
            f" insufficient; {n['changed']} rows new or changed",
            f"{day}: {n['points']} 个计量点, 完整 {n['complete']}, 部分 {n['partial']}, 不足 {n['insufficient']};"
            f" 新增或更新 {n['changed']} 行",
        )
    )
    click.echo(
        tr(
            f"energy {t['energy_kwh']:,.1f} kWh of {n['energy_points']} points ({n['energy_exact']} by registers),"
            f" exported {t['export_kwh']:,.1f} kWh",
            f"电量 {t['energy_kwh']:,.1f} kWh ({n['energy_points']} 个计量点, 其中 {n['energy_exact']} 个由示度计算),"
            f" 上网 {t['export_kwh']:,.1f} kWh",
        )
    )
    click.echo(
        tr(
            f"voltage in band {rate} ({n['voltage_points']} points, 15-min samples); overloaded {n['overloaded']},"
            f" heavy {n['heavy']}; power factor below 0.90 {n['low_power_factor']}",
            f"电压合格率 {rate} ({n['voltage_points']} 个计量点, 15 分钟采样); 过载 {n['overloaded']},"
            f" 重载 {n['heavy']}; 功率因数低于 0.90 {n['low_power_factor']}",
        )
    )
    failed = ", ".join(f"{name} {n:,}" for name, n in t["checks"].items() if n)
    click.echo(tr(f"points with failed checks: {failed or 'none'}", f"检查未通过的计量点: {failed or '无'}"))
    if not bad:
        return
    head = [
        tr("point", "计量点"), tr("slots", "有效点数"), tr("checks", "检查"), tr("U out", "电压越限"),
        tr("I unbalanced", "电流不平衡"), "β max %", "cosφ", "kWh",
    ]  # fmt: skip

    def show(value: float | None, digits: int, scale: float = 1.0) -> str:
        return "–" if value is None else f"{value * scale:,.{digits}f}"

    print_table(
        head,
        [
            [
                b["point"], str(b["valid_slots"]), " ".join(b["checks"]), str(b["voltage_out_slots"]),
                str(b["unbalanced_slots"]), show(b["beta_max"], 1, 100), show(b["power_factor"], 2),
                show(b["energy_kwh"], 1),
            ]
            for b in bad
        ],
    )  # fmt: skip
