"""`fuhe control watch`: the screen of a dispatcher while an order is in force.

Who is cut, by whose order, since when and until when, promised and measured kW, what only people can decide, what is
protected, and whether the daemon may trip at all. It reads; the one thing that it does is CONTROL-FREEZE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import psycopg
from rich.markup import escape
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, Static

from ..control import commands, freeze, incidents, orders, terminals
from ..control.command import Command
from ..control.incidents import Incident
from ..control.orders import Order
from ..control.records import Conn
from ..control.terminals import Protection
from ..model.lang import tr
from ..model.times import from_us
from ..protocols.common.errors import FuheError
from ..storage.state import load_daemon_state
from .colours import COLOURS, DOUBT, MODES, WRONG
from .person import device_names, kw, local, local_short

STALE_US: Final = 60_000_000
_OPEN: Final = ("ACTIVE", "CHANGING", "RELEASING")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """All that the screen shows, read at `at_us`. mode: as the daemon last said, STOPPED without a heartbeat."""

    at_us: int
    mode: str
    reason: str
    frozen: bool
    orders: Sequence[Order]
    commands: Sequence[Command]
    held: int
    promised_kw: float
    measured_kw: float
    incidents: Sequence[Incident]
    protections: Sequence[Protection]
    names: Mapping[int, str]


def read_board(conn: Conn, now_us: int, order_id: int | None) -> Board:
    """One look at the database; order_id: only its commands."""
    state = load_daemon_state(conn)
    alive = state is not None and now_us - state.heartbeat_us < STALE_US
    held = [c for c in commands.held(conn) if order_id in (None, c.order_id)]
    return Board(
        at_us=now_us,
        mode=state.mode if state is not None and alive else "STOPPED",
        reason=(state.reason if alive else tr("no sign of life from the daemon", "守护进程无心跳")) if state else "",
        frozen=freeze.frozen(conn),
        orders=[o for o in orders.orders(conn) if o.state in _OPEN],
        commands=commands.commands(conn, order_id=order_id, live=True),
        held=len(held),
        promised_kw=sum(c.expected_kw for c in held),
        measured_kw=sum(c.measured_kw or 0.0 for c in held),
        incidents=incidents.incidents(conn),
        protections=terminals.protections(conn),
        names=device_names(conn),
    )


class FreezeScreen(ModalScreen[str]):
    """Asks for the reason; Enter freezes, Escape does not."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss('')", tr("no", "否"))]
    DEFAULT_CSS = """
    FreezeScreen { align: center middle; }
    FreezeScreen Vertical { width: 72; height: auto; padding: 1 2; border: heavy $error; background: $surface; }
    FreezeScreen Label { width: 100%; height: auto; }
    """

    def compose(self) -> ComposeResult:
        """A question and a line to answer on."""
        with Vertical():
            yield Label(
                tr(
                    "CONTROL-FREEZE stops every trip and every ordinary release.\n"
                    "Give the reason; Enter freezes, Escape leaves it. Two people lift it again.",
                    "总闭锁将停止所有跳闸与普通释放。\n填写原因; 回车投入, Esc 放弃。解除须两人。",
                )
            )
            yield Input(placeholder=tr("reason", "原因"))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter: with a reason only."""
        if event.value.strip():
            self.dismiss(event.value.strip())


class WatchApp(App[None]):
    """The screen. read() gives a Board (in a thread); stop(reason) freezes; every: seconds between looks."""

    TITLE = "Fuhe 负荷"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "freeze", tr("CONTROL-FREEZE", "总闭锁")),
        Binding("r", "look", tr("look now", "立即刷新")),
        Binding("q", "quit", tr("quit", "退出")),
    ]
    CSS = """
    #head { height: auto; padding: 0 1; }
    #orders { height: auto; padding: 0 1; color: $text-muted; }
    #commands { height: 1fr; }
    #attention { height: auto; max-height: 10; padding: 0 1; border-top: solid $warning; }
    """

    def __init__(self, read: Callable[[], Board], stop: Callable[[str], None], every: float) -> None:
        super().__init__()
        self._read, self._stop, self._every = read, stop, every
        self.board: Board | None = None

    def compose(self) -> ComposeResult:
        """Head, orders, commands, what people must see."""
        yield Static(tr("reading ...", "读取中 ..."), id="head")
        yield Static(id="orders")
        yield DataTable(id="commands", cursor_type="row", zebra_stripes=True)
        yield Static(id="attention")
        yield Footer()

    def on_mount(self) -> None:
        """Columns, and the first look."""
        table = self.query_one(DataTable)
        for title in (
            "id", tr("customer", "用户"), tr("device", "装置"), tr("round", "轮次"), tr("state", "状态"),
            tr("promised kW", "预期 kW"), tr("measured kW", "实测 kW"), tr("since", "起"), tr("until", "止"),
            tr("attention", "注意"),
        ):  # fmt: skip
            table.add_column(title)
        self.action_look()
        self.set_interval(self._every, self.action_look)

    def action_look(self) -> None:
        """Look now, unless a look is under way."""
        self._look()

    @work(thread=True, exclusive=True)
    def _look(self) -> None:
        try:
            board = self._read()
        except (psycopg.Error, FuheError) as error:
            self.call_from_thread(self._blind, str(error).strip())
        else:
            self.call_from_thread(self._show, board)

    def action_freeze(self) -> None:
        """One key and a reason."""
        self.push_screen(FreezeScreen(), self._freeze)

    def _freeze(self, reason: str | None) -> None:
        if reason:
            try:
                self._stop(reason)
            except (psycopg.Error, FuheError) as error:
                self.notify(str(error).strip(), severity="error", timeout=30)
            self.action_look()

    def _blind(self, why: str) -> None:
        """What stands on the screen is old, and says so."""
        since = local(from_us(self.board.at_us)) if self.board else "–"
        text = tr(f"NOT CURRENT since {since}: {why}", f"自 {since} 起未更新: {why}")
        self.query_one("#head", Static).update(Text(text, style=WRONG))

    def _show(self, board: Board) -> None:
        self.board = board
        self.query_one("#head", Static).update(_head(board))
        self.query_one("#orders", Static).update(_orders(board))
        self.query_one("#attention", Static).update(_attention(board))
        table = self.query_one(DataTable)
        row = table.cursor_row
        table.clear()
        for c in board.commands:
            table.add_row(*_cells(c, board.names), key=str(c.id))
        if table.row_count:
            table.move_cursor(row=min(row, table.row_count - 1))


def _cells(c: Command, names: Mapping[int, str]) -> list[Text]:
    plain = [
        str(c.id), c.customer, names.get(c.device_id, "?"), str(c.round), c.state.value, kw(c.expected_kw),
        kw(c.measured_kw), local_short(c.sent_at), local_short(c.not_after), c.attention,
    ]  # fmt: skip
    return [Text(text, style=COLOURS[c.state] if i in (4, 9) else "") for i, text in enumerate(plain)]


def _head(board: Board) -> str:
    mode = f"[{MODES.get(board.mode, DOUBT)}]{board.mode}[/] {escape(board.reason)}"
    stop = f"  [{WRONG} reverse] CONTROL-FREEZE [/]" if board.frozen else ""
    cut = tr(
        f"cut now: {board.held} rounds, promised {board.promised_kw:,.1f} kW, measured {board.measured_kw:,.1f} kW",
        f"已切 {board.held} 轮, 预期 {board.promised_kw:,.1f} kW, 实测 {board.measured_kw:,.1f} kW",
    )
    return f"[b]Fuhe 负荷[/]  {local(from_us(board.at_us))}  {mode}{stop}\n{cut}"


def _orders(board: Board) -> str:
    if not board.orders:
        return tr("no order in force", "无生效指令")
    lines = []
    for o in board.orders:
        end = local_short(o.end_at)
        line = tr(
            f"order {o.number}: level {o.level}, {o.gap_kw:,.0f} kW, {o.state}, until {end}",
            f"指令 {o.number}: {o.level} 级, {o.gap_kw:,.0f} kW, {o.state}, 至 {end}",
        )
        lines.append(escape(f"{line} {o.attention}"))
    return "\n".join(lines)


def _attention(board: Board) -> str:
    lines = [
        f"[{WRONG}]#{i.id}[/] {escape(board.names.get(i.device_id, '?'))}: {escape(i.text)} "
        f"({local_short(i.opened_at)})"
        for i in board.incidents
    ]
    lines += [
        tr("protected", "保电") + f" {escape(board.names.get(p.device_id, '?'))}: {escape(p.reason)}"
        + (tr(f" until {local_short(p.until)}", f" 至 {local_short(p.until)}") if p.until else "")
        for p in board.protections
    ]  # fmt: skip
    return "\n".join(lines) or tr("nothing waits for a person", "无待处理事项")
