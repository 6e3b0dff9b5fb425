"""`fuhe sim`: run, list and check simulator scenarios, and generate large ones."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any

import click
import yaml

from ..model.lang import tr
from ..protocols.common.errors import UsageError
from ..simulator.emit import emit
from ..simulator.fleet import fleet as make_fleet
from ..simulator.remote import Remote
from ..simulator.scenario import Scenario, builtin_scenarios, load_scenario, points_of
from ..simulator.simulation import Simulation
from .common import json_option, print_json, reported


@click.group(
    help=tr("Simulated meters and terminals to test a master station against.", "用于测试主站的电能表和终端模拟器。")
)
def sim() -> None:
    pass


def _find(name: str) -> Path:
    """A path, or the name of a ready-made scenario."""
    path = Path(name)
    if path.exists():
        return path
    found = builtin_scenarios().get(name.removesuffix(".yaml"))
    if found is None:
        known = ", ".join(builtin_scenarios())
        raise UsageError(
            tr(f"no file and no scenario {name!r}; there are: {known}", f"没有文件或场景 {name!r}; 现有: {known}")
        )
    return found


@sim.command("list", help=tr("List the ready-made scenarios.", "列出内置场景。"))
@json_option
@reported
def list_(as_json: bool) -> None:
    rows = [_summary(load_scenario(p), p) for p in builtin_scenarios().values()]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        text = tr(
            f"{row['buses']} buses, {row['devices']} devices, {row['rounds']} rounds, {row['faults']} faults",
            f"{row['buses']} 条总线, {row['devices']} 台设备, {row['rounds']} 个轮次, {row['faults']} 个故障",
        )
        click.echo(f"{row['name']:<12} {text}")


def _summary(scenario: Scenario, path: Path) -> dict[str, Any]:
    return {
        "name": path.stem,
        "path": str(path),
        "buses": len(scenario.buses),
        "devices": len(scenario.devices),
        "rounds": sum(len(p.site.rounds) for d in scenario.devices for p in points_of(d)),
        "faults": len(scenario.faults),
        "past_days": scenario.past_days,
    }


@sim.command(help=tr("Check a scenario; every fault is named with its path.", "检查场景文件, 逐一指出错误及其位置。"))
@click.argument("scenario")
@json_option
@reported
def check(scenario: str, as_json: bool) -> None:
    path = _find(scenario)
    summary = _summary(load_scenario(path), path)
    if as_json:
        print_json(summary)
    else:
        click.echo(tr(f"{path}: good ({summary['devices']} devices)", f"{path}: 正确 ({summary['devices']} 台设备)"))


@sim.command(help=tr("Run a scenario until interrupted.", "运行场景, 直至中断。"))
@click.argument("scenario")
@click.option("--emit", "directory", type=click.Path(path_type=Path, file_okay=False),
              help=tr("write what a master needs, and the truth", "写出主站所需文件和真值"))  # fmt: skip
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0), help=tr("end after so many seconds", "运行若干秒后结束")
)
@click.option("--control", "port", type=click.IntRange(0, 65535),
              help=tr("loopback port for the control socket (0 = any)", "控制端口 (0 = 任意)"))  # fmt: skip
@json_option
@reported
def run(scenario: str, directory: Path | None, seconds: float | None, port: int | None, as_json: bool) -> None:
    path = _find(scenario)
    asyncio.run(_run(load_scenario(path), path.parent, directory, seconds, port, as_json))


async def _run(
    scenario: Scenario, base: Path, directory: Path | None, seconds: float | None, port: int | None, as_json: bool
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Simulation(scenario, base=base) as simulation:
        remote = Remote(simulation, port) if port is not None else None
        if remote:
            await remote.start()
        written = emit(simulation, directory) if directory else []
        _announce(simulation, remote, written, as_json)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
        if remote:
            await remote.stop()


def _announce(simulation: Simulation, remote: Remote | None, written: list[Path], as_json: bool) -> None:
    total = round(sum(simulation.true_power(n) for n in simulation.meters), 1)
    if as_json:
        print_json(
            {
                "scenario": simulation.scenario.name,
                "endpoints": simulation.endpoints(),
                "devices": len(simulation.scenario.devices),
                "power_kw": total,
                "control": remote.port if remote else None,
                "written": [str(p) for p in written],
            }
        )
        return
    count = len(simulation.scenario.devices)
    click.echo(
        tr(
            f"{simulation.scenario.name}: {count} devices, {total} kW now",
            f"{simulation.scenario.name}: {count} 台设备, 当前 {total} kW",
        )
    )
    for name, endpoint in simulation.endpoints().items():
        click.echo(f"  {name:<16} {endpoint}")
    if remote:
        click.echo(tr(f"  control          127.0.0.1:{remote.port}", f"  控制端口         127.0.0.1:{remote.port}"))
    for path in written:
        click.echo(tr(f"  wrote {path}", f"  已写出 {path}"))
    click.echo(tr("running; Ctrl-C ends it", "运行中, Ctrl-C 结束"))


@sim.command(help=tr("Write a scenario with many devices.", "生成包含大量设备的场景。"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--count", type=int, default=100, show_default=True, help=tr("devices", "设备数"))
@click.option(
    "--kind", type=click.Choice(["dlt645", "modbus-tcp", "modbus-rtu", "mqtt"]), default="modbus-tcp", show_default=True
)
@click.option("--per-bus", type=int, default=30, show_default=True, help=tr("devices on one line", "每条线路的设备数"))
@click.option("--past-days", type=click.IntRange(0, 400), default=1, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--pty", is_flag=True, help=tr("pseudo-terminals instead of TCP", "使用伪终端而非 TCP"))
@click.option(
    "--port", type=click.IntRange(1, 65535), default=1883, show_default=True, help=tr("broker (mqtt)", "MQTT 代理端口")
)
@reported
def fleet(file: Path, count: int, kind: Any, per_bus: int, past_days: int, seed: int, pty: bool, port: int) -> None:
    tree = make_fleet(count, kind, per_bus=per_bus, seed=seed, past_days=past_days, port=port, pty=pty)
    file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    click.echo(tr(f"{file}: {count} devices", f"{file}: {count} 台设备"))
