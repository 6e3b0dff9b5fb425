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
from ..simulator.clock import ScaledClock
from ..simulator.emit import emit, emit_fleet
from ..simulator.fleet import fleet as make_fleet
from ..simulator.light import LightWorld, check_region
from ..simulator.light_fleet import LightFleet
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
    ready_made = path in builtin_scenarios().values()  # these lie in the installation: nothing is written there
    base = directory or (Path.cwd() if ready_made else path.parent)
    asyncio.run(_run(load_scenario(path), base, directory, seconds, port, as_json))


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


@sim.command(
    help=tr(
        "Write a scenario with many devices to FILE; or, with --terminals and --connect, run as many light terminals "
        "(Q/GDW 1376.1) that dial in and answer, until --duration or Ctrl-C.",
        "生成包含大量设备的场景 FILE; 或以 --terminals 和 --connect 运行大量轻量终端 (Q/GDW 1376.1), "
        "直至 --duration 或 Ctrl-C。",
    )
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
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
@click.option("--terminals", type=click.IntRange(1, 200_000), help=tr("light terminals to run", "运行的轻量终端数"))
@click.option("--points", type=click.IntRange(1, 2040), default=1, show_default=True,
              help=tr("measuring points behind each terminal", "每台终端的测量点数"))  # fmt: skip
@click.option(
    "--meters", type=click.IntRange(1), help=tr("meters in all, instead of --points", "电能表总数, 代替 --points")
)
@click.option("--connect", metavar="HOST:PORT", help=tr("the master's listener", "主站监听地址"))
@click.option("--udp", is_flag=True, help=tr("datagrams instead of connections", "使用 UDP"))
@click.option("--login-rate", type=click.FloatRange(min=0), default=500.0, show_default=True,
              help=tr("logins begun in a second, 0 = all at once", "每秒登录数, 0 = 同时"))  # fmt: skip
@click.option("--heartbeat", type=click.FloatRange(min=0), default=300.0, show_default=True,
              help=tr("seconds between heartbeats, 0 = none", "心跳周期 (秒), 0 = 无"))  # fmt: skip
@click.option("--edition", type=click.Choice(["2005", "2009", "2013"]), default="2013", show_default=True)
@click.option("--region", default="3301", show_default=True, help=tr("administrative code", "行政区划码"))
@click.option("--first", type=click.IntRange(1, 65_534), default=1, show_default=True,
              help=tr("address of the first terminal", "首台终端地址"))  # fmt: skip
@click.option("--buffer", type=click.IntRange(64, 16_383), default=1024, show_default=True,
              help=tr("longest user data of an answer's frame", "应答帧用户数据最大长度"))  # fmt: skip
@click.option("--duration", type=click.FloatRange(min=0), help=tr("end after so many seconds", "运行若干秒后结束"))
@click.option("--emit", "directory", type=click.Path(path_type=Path, file_okay=False),
              help=tr("write devices.csv and links.yaml for the master", "写出主站所需的设备清单和链路"))  # fmt: skip
@json_option
@reported
def fleet(
    file: Path | None, count: int, kind: Any, per_bus: int, past_days: int, seed: int, pty: bool, port: int,
    terminals: int | None, points: int, meters: int | None, connect: str | None, as_json: bool,
    directory: Path | None, duration: float | None, **options: Any,
) -> None:  # fmt: skip
    if (terminals is None) == (file is None):
        raise UsageError(tr("give FILE, or --terminals with --connect", "请给出 FILE, 或 --terminals 与 --connect"))
    if file is not None:
        tree = make_fleet(count, kind, per_bus=per_bus, seed=seed, past_days=past_days, port=port, pty=pty)
        try:
            file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        except OSError as error:
            raise UsageError(
                tr(f"cannot write {file}: {error.strerror}", f"无法写入 {file}: {error.strerror}")
            ) from error
        click.echo(tr(f"{file}: {count} devices", f"{file}: {count} 台设备"))
        return
    assert terminals is not None
    host, _, number = (connect or "").rpartition(":")
    if not host or not number.isdecimal() or not 0 < int(number) < 65_536:
        raise UsageError(tr("--connect wants HOST:PORT of the master's listener", "--connect 应为主站监听的 HOST:PORT"))
    check_region(options["region"], options["first"] - 1 + terminals)
    if meters is not None:
        points = max(round(meters / terminals), 1)
    world = LightWorld(
        ScaledClock(), points=points, edition=options["edition"], seed=seed, past_days=max(past_days, 1),
        buffer=options["buffer"],
    )  # fmt: skip
    made = LightFleet(
        world, terminals, host, int(number), udp=options["udp"], login_rate=options["login_rate"],
        heartbeat_s=options["heartbeat"], region=options["region"], first=options["first"],
    )  # fmt: skip
    for path in emit_fleet(made, f"qgdw1376-{options['edition']}", directory) if directory else ():
        click.echo(tr(f"wrote {path}", f"已写出 {path}"), err=as_json)
    asyncio.run(_run_fleet(made, duration, as_json))


async def _run_fleet(fleet: LightFleet, duration: float | None, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if duration is not None:
        loop.call_later(duration, stop.set)
    await fleet.run(stop, None if as_json else lambda: _progress(fleet))
    if as_json:
        print_json(fleet.summary())
    else:
        click.echo()
        for key, value in fleet.summary().items():
            click.echo(f"{key:<22} {value}")


def _progress(fleet: LightFleet) -> None:
    f = fleet.figures
    asked = sum(f.requests.values())
    click.echo(
        tr(
            f"{f.logged_in} of {len(fleet.terminals)} logged in, {f.heartbeats} heartbeats, {asked} requests, "
            f"{f.frames_out} frames out, {f.trips} trips, {f.closed} connections lost",
            f"{f.logged_in}/{len(fleet.terminals)} 台已登录, 心跳 {f.heartbeats}, 请求 {asked}, 应答帧 {f.frames_out}, "
            f"跳闸 {f.trips}, 断开 {f.closed}",
        )
    )
