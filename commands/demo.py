"""`fuhe demo`: the main job on simulated meters, with the production code and the verbs a person would type.

The simulator and the daemon are processes of their own; every step is a `fuhe` command run by one of five demo users.
What is claimed at the end is checked against the simulator's truth, which the daemon never sees.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule

from ..analytics.day import day_table
from ..analytics.draw import Mark, shed_png
from ..analytics.report import DayReport, Image, Section, build_day_report
from ..control.commands import Command, commands, last_digits
from ..control.rules.states import State
from ..model.lang import lang, tr
from ..model.quantities import quantity
from ..model.times import BUSINESS_ZONE, US, business_day, from_us
from ..protocols.common.errors import FuheError, LinkError
from ..simulator.scenario import builtin_scenarios
from ..storage.cases import cases
from ..storage.config import StorageConfig
from ..storage.database import Database
from ..storage.devices import load_devices
from ..storage.readings import load_curve_range
from ..storage.state import load_device_states
from .common import reported
from .curve_data import choose_points, load_day_input

PASSWORD = "demo-only-4711"
PEOPLE = {"li": "inside", "chen": "dispatcher", "zhao": "guard", "wang": "leading", "gao": "auditor"}
CONFIG = """\
storage: {{data_dir: {home}/data}}
secrets_file: {home}/sim/secrets.yaml
http: {{port: {port}}}
cycles: {{live_s: 5, curve_s: 900, event_s: 0, gap_scan_s: 3, spread_s: 2}}
control: {{environment: test, county_load_kw: 60000, restore_margin_kw: 20000, min_off_min: 0,
           verify_at_s: [5, 10, 15, 25, 40], power_before_s: 30, restore_wait_s: 3, supervise_s: 5, step_interval_s: 2,
           unknown_read_s: 2}}
"""
POWER = "active_power_total"
DIALLED = 9731  # the port in the scenario's file
CURVES = ("dlt645-2007", "mqtt", "qgdw1376")  # profiles whose devices keep curves
ROBBED = "line-a-5"
ABNORMAL = {  # meters that the scenario made so, and the rules that have to find it
    "server-3": {"V6"}, "line-b-5": {"P4"}, "line-b-4": {"P1"}, ROBBED: {"C1", "T1"},
}  # fmt: skip
ASTRAY = (State.BLOCKED, State.FAILED, State.INEFFECTIVE, State.PARTIAL, State.ABANDONED, State.EXPIRED)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


class Demo:
    """Runs the verbs, keeps the two processes, remembers what the report needs."""

    def __init__(self, home: Path, console: Console) -> None:
        self.home, self.console = home, console
        self.config = home / "config.yaml"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._control_port = 0
        self.power: list[tuple[int, float, float]] = []
        self.marks: list[Mark] = []
        self.facts: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    # -- processes and verbs ------------------------------------------------------------------------------------------

    def start(self, name: str, *words: str) -> None:
        """A process of ours in the background; its output goes to a file of the demo's folder."""
        with (self.home / f"{name}.log").open("wb") as log:
            command = [sys.executable, "-m", "fuhe.cli", *words]
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment())
            )

    def stop(self) -> None:
        """End what runs, the daemon first; it drains its journal."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _environment(self, user: str = "") -> dict[str, str]:
        changes = {"FUHE_PASSWORD": PASSWORD, "FUHE_LANG": lang(), "COLUMNS": "132"}
        if user:
            changes["FUHE_SESSION"] = str(self.home / f"session-{user}")
        return {**os.environ, **changes}

    def run(self, *words: str, user: str = "", show: bool = True, good: bool = True) -> str:
        """One verb, as a person types it. LinkError with its own words when it fails although it should not."""
        for process in self._processes:
            if process.poll() is not None:
                raise LinkError(
                    tr(f"a process of the demo ended early, see {self.home}", f"演示进程提前结束, 见 {self.home}")
                )
        who = f"[bold magenta]{user}[/] " if user else ""
        if show:
            self.console.print(f"{who}[bold]$ fuhe {' '.join(words)}[/]", highlight=False)
        done = subprocess.run(
            [sys.executable, "-m", "fuhe.cli", "--config", str(self.config), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self._environment(user),
            text=True,
            timeout=120,
            check=False,
        )
        if good and done.returncode:
            raise LinkError(f"fuhe {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        if show:
            self.say(done.stdout + done.stderr)
        return done.stdout

    def ask(self, *words: str, user: str = "") -> Any:
        """A verb's JSON answer."""
        return json.loads(self.run(*words, "--json", user=user, show=False))

    def say(self, text: str) -> None:
        """Output of a verb, as it is."""
        for line in text.rstrip().splitlines():
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def chapter(self, en: str, zh: str) -> None:
        """A heading."""
        self.console.print()
        self.console.print(Rule(f"[bold cyan]{tr(en, zh)}", align="left"))

    def truth(self, operation: str, **fields: object) -> dict[str, Any]:
        """Ask the simulator (not the daemon) what is really so."""
        with socket.create_connection(("127.0.0.1", self._control_port), 10) as link, link.makefile("rwb") as file:
            file.write(json.dumps({"op": operation, **fields}).encode() + b"\n")
            file.flush()
            answer: dict[str, Any] = json.loads(file.readline())
        return answer

    def wait(self, text: str, done: Callable[[], tuple[float, float]], limit_s: float) -> None:
        """A progress bar until `done` gives (n, n); LinkError when it takes too long."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f} %"),
            TimeElapsedColumn(),
        )
        deadline = time.monotonic() + limit_s
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(text, total=1.0)
            while True:
                now, whole = done()
                bar.update(task, completed=now, total=whole)
                if now >= whole:
                    return
                if time.monotonic() > deadline:
                    raise LinkError(tr(f"{text}: only {now:g} of {whole:g}", f"{text}: 仅 {now:g} / {whole:g}"))
                time.sleep(0.5)

    # -- chapters -----------------------------------------------------------------------------------------------------

    def fleet(self) -> None:
        """The simulated fleet, the daemon, the device list."""
        self.chapter("1  A fleet of simulated meters, and the daemon", "1  模拟电能表与守护进程")
        # the terminals of the scenario dial a port that is free on this machine
        scenario = self.home / "fleet.yaml"
        text = builtin_scenarios()["demo"].read_text(encoding="utf-8")
        scenario.write_text(text.replace(f"port: {DIALLED}", f"port: {_free_port()}"), encoding="utf-8")
        self.start("simulator", "sim", "run", str(scenario), "--emit", str(self.home / "sim"), "--control", "0")
        log = self.home / "simulator.log"
        self.wait(tr("simulator", "模拟器"), lambda: (float((self.home / "sim" / "truth.json").exists()), 1.0), 30)
        self.wait(tr("endpoints", "端点"), lambda: (float("Ctrl-C" in log.read_text()), 1.0), 10)
        words = log.read_text().split()
        self._control_port = int(words[words.index("control") + 1].rpartition(":")[2])
        port = _free_port()
        links = (self.home / "sim" / "links.yaml").read_text()
        self.config.write_text(CONFIG.format(home=self.home, port=port) + links, encoding="utf-8")
        self.facts["http"] = port
        self.start("daemon", "--config", str(self.config), "run")
        self.wait(tr("daemon and PostgreSQL", "守护进程与 PostgreSQL"), self._daemon_up, 60)
        imported = self.run("device", "import", str(self.home / "sim" / "devices.csv"), show=False)
        self.console.print("[bold]$ fuhe device import sim/devices.csv[/]", highlight=False)
        self.say("\n".join(line for line in imported.splitlines() if not line.startswith("+")))
        rows = csv.DictReader((self.home / "sim" / "devices.csv").open(encoding="utf-8"))
        count = len({row["name"] for row in rows})  # a terminal has a row for each of its points
        self.wait(tr("first answers", "首次应答"), lambda: (self._online(), count - 1), 60)
        self.run("status")

    def _online(self) -> float:
        with (
            Database.open(StorageConfig(data_dir=str(self.home / "data")), migrate=False) as database,
            database.connect() as connection,
        ):
            return float(sum(s.online for s in load_device_states(connection).values()))

    def _daemon_up(self) -> tuple[float, float]:
        text = (self.home / "daemon.log").read_text()
        if any(p.poll() is not None for p in self._processes):
            raise LinkError(text[-2000:])
        return float('"running"' in text), 1.0

    def history(self, database: Database) -> None:
        """Seven past days recalled, compared slot by slot with the truth."""
        self.chapter("2  Seven past days recalled, slot by slot", "2  补召过去七天, 逐点核对")
        truth = json.loads((self.home / "sim" / "truth.json").read_text())
        with database.connect(autocommit=True) as connection:
            devices = {d.name: d for d in load_devices(connection)}
            self._names = {d.id: d.name for d in devices.values()}
            # what keeps a curve in memory and is alive; line-a-3 has swallowed its first requests and comes by hand
            holders = {
                p.name if "qgdw1376" in d.profile else d.name: p
                for d in devices.values()
                if d.profile.startswith(CURVES) and d.name != "line-b-6"
                for p in d.measuring
            }
            self.truth("backlog")
            first = datetime.fromisoformat(truth["first"])
            begin = business_day(round(first.timestamp() * US) - 1)
            last = business_day(time.time_ns() // 1000) - timedelta(days=1)
            slots = ((last - begin).days + 1) * 96
            want = np.array([truth["power_kw"][n][:slots] for n in holders])
            points = list(holders.values())
            ratio = np.array([float(p.multiplier) for p in points])[:, None]

            def read() -> Any:
                ids = [p.id for p in points]
                value, _ = load_curve_range(connection, begin, last, ids, [quantity(POWER).id])
                return value * ratio

            late = list(holders).index("line-a-3")
            sound = [n not in truth["bypassed"] for n in holders]  # one meter sees less than flows: chapter 8

            def done() -> tuple[float, float]:
                have = np.isfinite(read())
                return float(np.delete(have, late, axis=0).sum()), float((len(holders) - 1) * slots)

            self.wait(tr("96 points a day x 7 days", "每天 96 点 x 7 天"), done, 120)
            self.console.print(
                tr(
                    "line-a-3 swallowed its first curve requests; the ledger shows the hole, it is recalled by hand:",
                    "line-a-3 吞掉了最初的曲线请求; 缺数在台账中, 现人工补召:",
                )
            )
            self.run("recall", "line-a-3", "--from", str(begin), "--to", str(last))
            self.wait(tr("line-a-3", "line-a-3"), lambda: (float(np.isfinite(read()[late]).sum()), float(slots)), 30)
            have = read()
            off = float(np.nanmax((np.abs(have - want) / ratio)[sound]))
            self.facts["slots"] = (int(np.isfinite(have).sum()), have.size, off)
            got, due, _ = self.facts["slots"]
            self.console.print(
                tr(
                    f"[green]{got} of {due} slots that the meters hold are stored ({got / due:.1%}); largest "
                    f"difference to the simulator's truth {off:.5f} kW on the secondary side (last digit 0.0001 kW), "
                    f"without {', '.join(truth['bypassed'])}, whose meter does not see all that flows[/]",
                    f"[green]电表所存 {due} 个数据点已入库 {got} ({got / due:.1%}); 与模拟器真值的最大差 "
                    f"{off:.5f} kW (二次侧, 电表末位 0.0001 kW), "
                    f"不含电表未计全部电流的 {', '.join(truth['bypassed'])}[/]",
                ),
                highlight=False,
            )
        self.facts["first"], self.facts["day"] = begin, last
        self.run("curve", "all", "--day", str(last), "--plot", str(self.home / "fleet-curve.png"))
        silent = self.ask("status")["quarantined"]
        self.facts["quarantined"] = silent
        self.console.print(
            tr(
                f"[yellow]found without being told: {', '.join(silent)} does not answer and is quarantined[/]",
                f"[yellow]自行发现: {', '.join(silent)} 无应答, 已隔离[/]",
            )
        )

    def people(self) -> None:
        """Five users; the plan of the county, signed by three of them."""
        self.chapter("3  Five people and a plan", "3  五位人员与方案")
        self.run("user", "add", "admin", show=False)
        self.run("user", "login", "admin", user="admin", show=False)

        def enrol(name: str) -> None:
            self.run("user", "add", name, "--role", PEOPLE[name], user="admin", show=False)
            self.run("user", "login", name, user=name, show=False)

        with ThreadPoolExecutor(2) as desks:
            list(desks.map(enrol, PEOPLE))
        self.say(", ".join(f"{n} ({r})" for n, r in PEOPLE.items()))
        plan = self._write_plan()
        self.run("control", "round", "import", str(self.home / "rounds.csv"), user="li")
        year = datetime.now(BUSINESS_ZONE).year
        reducible = sum(float(r["reducible_kw"]) for r in plan)
        self.run(
            "control", "plan", "import", str(self.home / "plan.csv"), "--name", "county", "--area", "demo-county",
            "--body", "county government", "--document", f"{year}-7", "--valid-from", f"{year}-01-01",
            "--valid-to", f"{year + 1}-01-01", "--target-kw", f"{reducible / 1.2:.0f}", user="li",
        )  # fmt: skip
        self.run("control", "plan", "review", "1", user="zhao")
        self.run("control", "plan", "approve", "1", user="wang")
        self.run("control", "plan", "activate", "1", user="chen")

    def _write_plan(self) -> list[dict[str, str]]:
        """rounds.csv and plan.csv: loads as a live trip test of this hour would have measured them."""
        loads = self.truth("truth")["devices"]
        rounds = list(csv.DictReader((self.home / "sim" / "rounds.csv").open(encoding="utf-8")))
        for row in rounds:
            row["typical_kw"] = f"{loads[row['device']]['rounds'][int(row['round']) - 1]['kw']:.1f}"
        rounds.sort(key=lambda r: (int(r["importance"]), r["device"], int(r["round"])))
        plan = [
            {
                "seq": str(i), "measure": "avoid", "level": "IV", "group": "A", "customer": f"user-{r['device']}",
                "device": r["device"], "round": r["round"], "reducible_kw": r["typical_kw"], "limit_kw": "0",
                "security_kw": f"{0.3 * (loads[r['device']]['power_kw'] - float(r['typical_kw'])):.1f}", "class": "N",
                "contact": "duty room", "notice": "N3", "last_test": r["last_test"], "importance": r["importance"],
                "supply": "single",
            }
            for i, r in enumerate((r for r in rounds if float(r["typical_kw"]) > 1.0), 1)
        ]  # fmt: skip
        floors = {r["device"]: r["security_kw"] for r in plan}
        for row in plan:
            row["security_kw"] = floors[row["device"]]
        for name, rows in (("rounds.csv", rounds), ("plan.csv", plan)):
            with (self.home / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        self.facts["reducible"] = sum(float(r["reducible_kw"]) for r in plan)
        return plan

    def shed(self) -> None:
        """An order, proposed, approved by two people, executed and proved by metering."""
        gap = round(0.4 * self.facts["reducible"], -1)
        self.chapter(f"4  An order: {gap:.0f} kW", f"4  指令: 压降 {gap:.0f} kW")
        self.facts["gap"] = gap
        now = datetime.now(UTC).replace(microsecond=0)
        end = (now + timedelta(hours=2)).isoformat()
        self.run(
            "control", "order", "receive", "--number", "D-1", "--issuer", "county dispatch", "--area", "demo-county",
            "--level", "IV", "--gap-kw", f"{gap:.0f}", "--start", now.isoformat(), "--end", end, user="li",
        )  # fmt: skip
        self.run(
            "control", "order", "confirm", "D-1", "--number", "D-1", "--gap-kw", f"{gap:.0f}", "--end", end, user="zhao"
        )
        self.wait(tr("one-minute supervision of all candidates", "候选用户进入 1 分钟监视"), self._supervised, 40)
        self.run("control", "propose", "D-1", "--commit", user="li")
        self.run("control", "submit", "D-1", user="li", show=False)
        chosen = [self._names[c.device_id] for c in self._commands()]
        self.console.print(
            tr("[dim]li may not approve his own commands:[/]", "[dim]li 不能批准自己提交的命令:[/]"), highlight=False
        )
        digits = [w for d in dict.fromkeys(chosen) for w in ("--digits", f"{d}={self._last_four(d)}")]
        self.run("control", "approve", "D-1", *digits, user="li", good=False)
        if any(c.state != State.SUBMITTED for c in self._commands()):
            raise LinkError(tr("a drafter could approve his own commands", "提交人竟能批准自己的命令"))
        self.run("control", "approve", "D-1", *digits, user="chen", show=False)
        self.console.print("[bold magenta]chen[/] [bold]$ fuhe control approve D-1 --digits …[/]", highlight=False)
        self.run("control", "order", "notice", "D-1", user="li")
        self.run("control", "order", "activate", "D-1", user="chen")
        self._watch(3)
        self._mark("execute", "执行")
        self.run("control", "execute", "D-1", "--yes", user="li", show=False)
        self.console.print("[bold magenta]li[/] [bold]$ fuhe control execute D-1 --yes[/]", highlight=False)
        self._until(State.EFFECTIVE, 90)
        self._mark("verified", "已验证")
        self.run("control", "status", user="li")
        self._watch(3)
        cut = self._commands()
        self.facts["promised"] = sum(c.expected_kw for c in cut)
        self.facts["measured"] = sum(c.measured_kw or 0.0 for c in cut)
        self.facts["commands"] = len(cut)

    def restore(self) -> None:
        """Released in blocks; a permit is not a closed switch: people press the button, the meter shows the load."""
        self.chapter("5  Released in stages, restored, proved", "5  分批恢复并验证")
        self._mark("release", "恢复")
        self.run("control", "release", "D-1", "--margin-kw", "20000", user="chen")
        self._until(State.CLOSED, 100)
        self._mark("restored", "已恢复")
        self._watch(3)
        self.run("control", "order", "end", "D-1", user="chen")

    def audit(self) -> None:
        """The chain is sound; a changed copy is caught at the very record."""
        self.chapter("6  The record, and a record tampered with", "6  审计记录与篡改")
        self.run("audit", "verify", user="gao")
        file = self.home / "audit.jsonl"
        self.run("audit", "export", str(file), user="gao", show=False)
        lines = file.read_text(encoding="utf-8").splitlines()
        at = next(i for i, line in enumerate(lines) if "command.send" in line)
        lines[at] = lines[at].replace('"li"', '"wu"').replace("daemon", "nobody")
        forged = self.home / "audit-tampered.jsonl"
        forged.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.console.print(
            tr(f"[dim]a copy in which record {at + 1} was changed:[/]", f"[dim]第 {at + 1} 条被改动的副本:[/]"),
            highlight=False,
        )
        self.run("audit", "verify", "--file", str(forged), user="gao", good=False)
        self.facts["audit"] = len(lines)
        self.facts["forged"] = at + 1

    def forecast(self) -> None:
        """Tomorrow's load is issued; how the last two recalled days would have been forecast."""
        self.chapter("7  Tomorrow's load, and how good such a forecast was", "7  明日负荷预测及其准确率")
        self.run("forecast", "run")
        last: date = self.facts["day"]
        words = ("forecast", "backtest", "--from", str(last - timedelta(days=1)), "--to", str(last), "--by-label")
        self.run(*words, "--plot", str(self.home / "forecast.png"))
        self.console.print(
            tr(
                "simulated days resemble each other more than real ones: docs/forecast.md says what to expect",
                "模拟日之间比真实负荷更相似: 实际准确率见 docs/forecast.md",
            )
        )

    def anomalies(self) -> None:
        """What the rules found in the recalled days; the four meters were made so in the scenario."""
        self.chapter("8  Cases that the rules found", "8  规则发现的异常案例")
        span = str(self.facts["first"]), str(self.facts["day"])
        self.run("recall", ROBBED, "--from", span[0], "--to", span[1], "--duty", "event", user="li")
        days = (self.facts["day"] - self.facts["first"]).days + 1
        self.wait(tr("validated days", "已校验日"), lambda: self._judged(days), 60)
        self.wait(tr("event taken up", "事件已处理"), lambda: (self._opened(ROBBED, "T1"), 1.0), 30)
        self.console.print(
            tr(
                "[dim]states that are over close themselves (--all shows them); the others wait for people:[/]",
                "[dim]已恢复的状态自动结案, 以 --all 列出; 其余待人工处理:[/]",
            ),
            highlight=False,
        )
        found: dict[str, set[str]] = {}
        for point, wanted in ABNORMAL.items():
            words = ("cases", "list", "--all", "--point", point)
            self.run(*words, user="li")
            found[point] = {c["rule"] for c in self.ask(*words, user="li")}
            if missing := wanted - found[point]:
                raise LinkError(tr(f"{point}: the rules did not find {missing}", f"{point}: 规则未发现 {missing}"))
        self.facts["cases"] = {point: sorted(rules) for point, rules in found.items()}

    def _judged(self, days: int) -> tuple[float, float]:
        """Point-days of the four meters that no longer wait for VEE."""
        with self._live.connect() as connection:
            row = connection.execute(
                "SELECT count(*) FROM dirty_day d JOIN point p ON p.id = d.point"
                " WHERE p.name = ANY(%s) AND d.day BETWEEN %s AND %s",
                (list(ABNORMAL), self.facts["first"], self.facts["day"]),
            ).fetchone()
        assert row is not None
        whole = float(days * len(ABNORMAL))
        return whole - float(row[0]), whole

    def _opened(self, point: str, rule: str) -> float:
        """1 when a case of the rule is there; events are looked at every ten seconds."""
        with self._live.connect() as connection:
            found = connection.execute("SELECT id FROM point WHERE name = %s", (point,)).fetchone()
            assert found is not None
            return float(bool(cases(connection, everything=True, rule=rule, points=[int(found[0])], limit=1)))

    def report(self, database: Database) -> Path:
        """One HTML page with the day and the event."""
        rows = np.array(self.power)
        png = shed_png(
            rows[:, 0].astype(np.int64),
            rows[:, 1],
            self.marks,
            title=tr(f"Order D-1: {self.facts['gap']:.0f} kW", f"指令 D-1: {self.facts['gap']:.0f} kW"),
            limit_kw=float(rows[0, 1]) - self.facts["gap"],
        )
        (self.home / "shedding.png").write_bytes(png)
        f = self.facts
        got, due, off = f["slots"]
        section = Section(
            title=tr("Orderly power use: order D-1", "有序用电: 指令 D-1"),
            paragraphs=[
                tr(
                    f"Ordered {f['gap']:.0f} kW, promised {f['promised']:.1f} kW by {f['commands']} rounds, "
                    f"measured {f['measured']:.1f} kW. Two people signed every command; all were restored and "
                    "proved by metering.",
                    f"指令 {f['gap']:.0f} kW, {f['commands']} 个轮次承诺 {f['promised']:.1f} kW, "
                    f"实测 {f['measured']:.1f} kW。每条命令均经两人签署, 全部恢复并经计量验证。",
                ),
                tr(
                    f"Past days: {got} of {due} slots stored; largest difference to the truth {off:.5f} kW "
                    f"(secondary). Quarantined: {', '.join(f['quarantined'])}. Audit: {f['audit']} records, chain "
                    f"sound; the copy changed at record {f['forged']} was refused.",
                    f"历史: {due} 点入库 {got}; 与真值最大差 {off:.5f} kW (二次侧)。"
                    f"隔离: {', '.join(f['quarantined'])}。"
                    f"审计: {f['audit']} 条, 链完整; 第 {f['forged']} 条被改的副本被识别。",
                ),
            ],
            images=[Image(png=png, caption=tr("fleet power as the daemon measured it", "守护进程测得的总功率"))],
        )
        with database.connect() as connection:
            table = day_table(load_day_input(connection, f["day"], choose_points(connection, "all")))
        page = self.home / "report.html"
        made = time.time_ns() // 1000
        text = build_day_report(
            DayReport(table=table, title=tr("Fuhe demo", "Fuhe 负荷 演示"), made_us=made, sections=[section])
        )
        page.write_text(text, encoding="utf-8")
        (self.home / "facts.json").write_text(json.dumps(f, default=str, indent=1), encoding="utf-8")
        return page

    # -- watching -----------------------------------------------------------------------------------------------------

    def _commands(self) -> list[Command]:
        """The order's commands as they stand in the database (what `fuhe control status` shows, without a process)."""
        with self._live.connect() as connection:
            return commands(connection)

    def _last_four(self, device: str) -> str:
        rows = csv.DictReader((self.home / "sim" / "devices.csv").open(encoding="utf-8"))
        return last_digits(next(r["address"] for r in rows if r["name"] == device))

    def _supervised(self) -> tuple[float, float]:
        """How many of the plan's devices that carry a clock have told it."""
        with self._live.connect() as connection:
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE s.clock_offset_s IS NOT NULL), count(*) FROM device d"
                " LEFT JOIN device_state s ON s.device = d.id WHERE"
                " (d.profile = 'dlt645-2007-relay' OR d.profile LIKE 'qgdw1376-%')"
                " AND d.id IN (SELECT device_id FROM plan_row)"
            ).fetchone()
        assert row is not None
        return float(row[0]), float(row[1])

    def _sample(self) -> None:
        """Measured power of the fleet (last live value of every point) beside the simulator's own total."""
        total = float(self.truth("total")["power_kw"])
        with self._live.connect() as connection:
            now_us = time.time_ns() // 1000
            row = connection.execute(
                "SELECT sum(kw) FROM (SELECT DISTINCT ON (s.point)"
                " s.value * p.ct_ratio::float8 * p.pt_ratio::float8 AS kw"
                " FROM sample s JOIN point p ON p.id = s.point WHERE s.quantity = %s AND s.source = 1 AND s.time > %s"
                " ORDER BY s.point, s.time DESC) last",
                (quantity(POWER).id, from_us(now_us - 60 * US)),
            ).fetchone()
        if row is not None and row[0] is not None:
            self.power.append((now_us, float(row[0]), total))

    def _watch(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._sample()
            time.sleep(1.0)

    def _until(self, wanted: State, limit_s: float) -> None:
        """A line for every change of a command's state until all are `wanted`; LinkError when one goes elsewhere."""
        known: dict[int, str] = {}
        deadline = time.monotonic() + limit_s
        while True:
            self._sample()
            found = self._commands()
            for c in found:
                if known.get(c.id) != c.state:
                    known[c.id] = c.state
                    at = datetime.now(BUSINESS_ZONE).strftime("%H:%M:%S")
                    seen = "" if c.measured_kw is None else f"  {c.measured_kw:.1f} / {c.expected_kw:.1f} kW"
                    name = self._names[c.device_id]
                    self.say(f"  {at}  {name:<10} {tr('round', '轮次')} {c.round}  {c.state}{seen}")
            if found and all(c.state == wanted for c in found):
                return
            if any(c.state in ASTRAY for c in found) or time.monotonic() > deadline:
                told = (f"{self._names[c.device_id]}: {c.state} {c.attention}" for c in found if c.state != wanted)
                raise LinkError("; ".join(told))
            time.sleep(0.3)

    def _mark(self, en: str, zh: str) -> None:
        self.marks.append(Mark(time_us=time.time_ns() // 1000, text=tr(en, zh)))

    @contextlib.contextmanager
    def opened(self) -> Iterator[Database]:
        """The daemon's database, for looking only."""
        with Database.open(StorageConfig(data_dir=str(self.home / "data")), migrate=False) as database:
            self._live = database
            yield database


@click.command(
    help=tr("Show the main job on simulated meters (about two minutes).", "在模拟电表上演示主要功能 (约两分钟)。")
)
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path, file_okay=False), help=tr("folder to work in", "工作目录")
)
@reported
def demo(directory: Path | None) -> None:
    """Ends by itself; leaves a folder with a report, whose path it prints last."""
    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix="fuhe-demo-"))
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o711)  # the embedded server works below it as a user of its own
    console = Console(width=None if sys.stdout.isatty() else 132)
    show = Demo(directory.absolute(), console)
    began = time.monotonic()
    try:
        show.fleet()
        with show.opened() as database:
            show.history(database)
            show.people()
            show.shed()
            show.restore()
            show.audit()
            show.forecast()
            show.anomalies()
            page = show.report(database)
    except FuheError:
        console.print(
            tr(f"[red]the demo failed; its logs are in {directory}[/]", f"[red]演示失败, 日志在 {directory}[/]")
        )
        raise
    finally:
        show.stop()
    f = show.facts
    show.chapter("Result", "结果")
    console.print(
        tr(
            f"ordered {f['gap']:.0f} kW, measured {f['measured']:.1f} kW, all restored; {f['audit']} audit records; "
            f"{time.monotonic() - began:.0f} s",
            f"指令 {f['gap']:.0f} kW, 实测 {f['measured']:.1f} kW, 全部恢复; 审计 {f['audit']} 条; "
            f"{time.monotonic() - began:.0f} 秒",
        ),
        highlight=False,
    )
    for name in ("fleet-curve.png", "shedding.png", "forecast.png", "report.html", ""):
        console.print(str(page.parent / name) if name else str(page.parent), highlight=False, soft_wrap=True)
