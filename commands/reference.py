"""`fuhe reference`: the tables behind the decoders, as a page for people."""

from __future__ import annotations

import click

from ..model.lang import lang, tr
from .common import reported


@click.command(help=tr("Print what the tables of a protocol hold, as Markdown.", "以 Markdown 输出规约数据表。"))
@click.argument("protocol", type=click.Choice(["qgdw1376"]))
@reported
def reference(protocol: str) -> None:
    from ..protocols.qgdw1376.reference import reference as page

    click.echo(page(lang()), nl=False)
