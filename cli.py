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

# verb -> module of commands/ that defines it under the same name (dashes as underscores)
VERBS = {
    "audit": "audit",
    "control": "control",
    "curve": "curve",
    "db": "db",
    "decode": "decode",
    "demo": "demo",
    "device": "device",
    "encode": "decode",
    "gaps": "device",
    "recall": "device",
    "report": "curve",
    "run": "run",
    "sim": "sim",
    "status": "run",
    "user": "user",
}


class LazyGroup(click.Group):
    """Imports a verb's module only when the verb is used, so that `fuhe --help` and `fuhe decode` start at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [v for v in sorted(VERBS) if (Path(__file__).parent / "commands" / f"{VERBS[v]}.py").exists()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f".commands.{VERBS[cmd_name]}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command


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
