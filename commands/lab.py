"""`fuhe lab`: the calculations of the product on files of one's own, without a database or a device."""

from __future__ import annotations

import importlib

import click

from ..model.lang import tr

# verb -> (module of commands/, English, Chinese); the module defines a command of the verb's name
LAB_VERBS = {
    "forecast": ("lab_forecast", "Forecast the days of a load curve, walk-forward.", "负荷曲线逐日滚动预测。"),
    "indices": ("lab_indices", "Load figures of one meter file.", "单表文件的负荷指标。"),
    "theft": ("lab_theft", "Suspicion score of windows of interval readings.", "分时读数窗口的用电异常评分。"),
    "vee": ("lab_vee", "Find and replace the errors of a load curve.", "查找并修正负荷曲线中的错误。"),
}


class LabGroup(click.Group):
    """Imports a verb's module only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(LAB_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in LAB_VERBS:
            return None
        module = importlib.import_module(f".{LAB_VERBS[cmd_name][0]}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(tr("Commands", "命令")):
            formatter.write_dl([(verb, tr(en, zh)) for verb, (_, en, zh) in sorted(LAB_VERBS.items())])


@click.group(cls=LabGroup, help=tr("Calculations on files of your own.", "对自备文件进行计算。"))
def lab() -> None:
    """Gathers the verbs of LAB_VERBS."""
