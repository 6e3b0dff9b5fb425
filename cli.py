"""The `fuhe` command: gathers the verbs of `commands/`. Each verb parses, calls one function and prints."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import get_args

import click

from . import __version__
from .commands.common import App
from .model.lang import Lang, set_lang, tr

# verb -> (module of commands/ that defines it under the same name, English, Chinese)
VERBS = {
    "analyse": (
        "analyse",
        "Statistics of a day for all points, and where a number comes from.",
        "全部计量点的日统计及其来历。",
    ),
    "archive": (
        "archive",
        "The business archive: import, export, show, check.",
        "业务档案: 导入、导出、查看、检查。",
    ),
    "audit": ("audit", "The audit: read, verify, export.", "审计: 查看、校验、导出。"),
    "cases": (
        "cases",
        "Cases that the rules found: list, show, confirm, assign, close.",
        "规则发现的案例: 列表、查看、确认、指派、结案。",
    ),
    "control": (
        "control",
        "Orderly power use: plan, order, propose, approve, execute, release.",
        "有序用电: 方案、指令、建议、批准、执行、恢复。",
    ),
    "curve": ("curve", "Draw the curve of a metering point or of all.", "绘制计量点或全部的曲线。"),
    "db": ("db", "The database: state, migration, backup, restore.", "数据库: 状态、迁移、备份、恢复。"),
    "decode": ("decode", "Explain frames.", "解析报文。"),
    "demo": ("demo", "Show the main job on simulated meters.", "在模拟电表上演示主要功能。"),
    "device": (
        "device",
        "Devices: list, show, import, export, plan, read, events.",
        "设备: 列表、查看、导入、导出、计划、召测、事件。",
    ),
    "encode": ("decode", "Make request frames.", "生成请求报文。"),
    "forecast": (
        "forecast",
        "Load forecast: run, show, score, backtest, weather.",
        "负荷预测: 生成、查看、评价、回测、气象。",
    ),
    "gaps": (
        "gaps",
        "What is missing on a day, its recall, the indicators; exemptions.",
        "某日缺数及补召、采集指标、豁免登记。",
    ),
    "lab": ("lab", "Calculations on files of your own.", "对自备文件进行计算。"),
    "param": (
        "param",
        "Parameters of terminals: get, diff, set, import, approve.",
        "终端参数: 读取、比较、设置、导入、批准。",
    ),
    "recall": ("recall", "Read stored data of past days again.", "补召历史数据。"),
    "reference": ("reference", "What the tables of a protocol hold.", "规约数据表。"),
    "report": ("report", "Reports made from stored readings.", "由已存数据生成报告。"),
    "run": ("run", "Run the daemon in the foreground until SIGTERM.", "前台运行守护进程, 直至 SIGTERM。"),
    "sim": ("sim", "Simulated meters and terminals.", "电能表和终端模拟器。"),
    "status": ("run", "Mode, links and devices of the daemon.", "守护进程的模式、链路和设备。"),
    "vee": (
        "vee",
        "Validated values: explain, edit, approve, recompute.",
        "校验、估算、编辑: 说明、编辑、批准、重算。",
    ),
    "user": ("user", "People: accounts, roles, login.", "人员: 账号、角色、登录。"),
}


class LazyGroup(click.Group):
    """Imports a verb's module only when the verb is used: `fuhe --help` and `fuhe decode` start at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f".commands.{VERBS[cmd_name][0]}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(tr("Commands", "命令")):
            formatter.write_dl([(verb, tr(en, zh)) for verb, (_, en, zh) in sorted(VERBS.items())])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fuhe")
@click.option("--config", "-c", type=click.Path(path_type=Path, dir_okay=False), help="config.yaml")
@click.option("--lang", type=click.Choice(get_args(Lang)), help=tr("language of all text", "界面语言"))
@click.pass_context
def root(ctx: click.Context, config: Path | None, lang: Lang | None) -> None:
    """Fuhe 负荷: head-end and load-management server for electricity metering terminals."""
    if lang:
        set_lang(lang)
    ctx.obj = App(config_path=config)


def main() -> None:
    """Entry point. The language is set before any verb's module (and so its help text) is imported."""
    arguments = sys.argv[1:]
    for i, word in enumerate(arguments):
        value = (
            word.partition("=")[2]
            if word.startswith("--lang=")
            else (arguments[i + 1 : i + 2] or [""])[0]
            if word == "--lang"
            else ""
        )
        if value in get_args(Lang):
            set_lang(value)  # type: ignore[arg-type]
    root(prog_name="fuhe")


if __name__ == "__main__":
    main()
