"""What the verbs of control, audit and user share: the database, the logged-in person, tables and prompts."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import click

from ..control import accounts
from ..control.audit import Actor
from ..control.permissions import require
from ..control.records import Conn
from ..model.lang import tr
from ..model.times import BUSINESS_ZONE
from ..storage.database import Database
from .common import App, print_json

WIDE: Final = 160


def now_us() -> int:
    """UTC µs; the verbs are the outermost edge, below them time is an argument."""
    return time.time_ns() // 1000


@contextmanager
def desk(app: App) -> Iterator[Conn]:
    """A connection of the ordinary role, each statement its own transaction unless one is begun."""
    with Database.open(app.config.storage) as database, database.connect("app", autocommit=True) as conn:
        yield conn


@contextmanager
def person(app: App, verb: str = "view") -> Iterator[tuple[Conn, Actor]]:
    """The connection and the person logged in on this terminal (FUHE_SESSION), whose role may do `verb`."""
    token = accounts.load_token(accounts.session_file())
    with desk(app) as conn:
        actor = accounts.resume(conn, now_us(), token, app.config.control.session_idle_s)
        require(actor, verb)
        yield conn, actor


def workstation() -> str:
    """Where the person sits, as far as this machine knows."""
    return socket.gethostname()[:64]


def ask_password(question: str, *, confirm: bool = False) -> str:
    """FUHE_PASSWORD (for scripts), else a prompt that does not show it. Never an argument: those are seen by all."""
    given = os.environ.get("FUHE_PASSWORD")
    if given:
        return given
    typed: str = click.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)
    return typed


def local(stamp: datetime | None) -> str:
    """Business time, seconds; '' for none."""
    return "" if stamp is None else stamp.astimezone(BUSINESS_ZONE).strftime("%Y-%m-%d %H:%M:%S")


def local_short(stamp: datetime | None) -> str:
    """The same without the year, for tables of what is under way."""
    return local(stamp)[5:]


def kw(value: float | None) -> str:
    """Power for people; '?' where it is not known."""
    return "?" if value is None else f"{value:.1f}"


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A plain table as wide as the terminal; where there is none (pipe, file), COLUMNS or at least WIDE characters."""
    from rich.console import Console  # not for verbs that print a line
    from rich.table import Table

    table = Table(*head, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*[str(cell) for cell in row])
    Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE).print(table)


def yes_no(value: bool | None) -> str:
    """yes, no or unknown."""
    return tr("?", "?") if value is None else tr("yes", "是") if value else tr("no", "否")


def say(as_json: bool, value: Any, text: str) -> None:
    """A value as JSON or one line for people."""
    if as_json:
        print_json(value)
    else:
        click.echo(text)


def device_names(conn: Conn) -> dict[int, str]:
    """Device id to name."""
    return {int(i): str(n) for i, n in conn.execute("SELECT id, name FROM device").fetchall()}
