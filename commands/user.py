"""`fuhe user`: accounts, roles and sessions. Passwords come from a prompt or FUHE_PASSWORD, never from an argument."""

from __future__ import annotations

from dataclasses import asdict

import click

from ..control import accounts
from ..control.permissions import ROLE_ZH, Role
from ..model.lang import lang, tr
from .common import App, json_option, pass_app, print_json, reported
from .person import ask_password, desk, local, now_us, person, show_table, workstation, yes_no


@click.group(help=tr("People: accounts, roles, login.", "人员: 账号、角色、登录。"))
def user() -> None:
    """The group of user verbs."""


@user.command(help=tr("New account (the first one is an administrator).", "新建账号(首个账号为管理员)。"))
@click.argument("name")
@click.option("--role", type=click.Choice([r.value for r in Role]), default=Role.ADMINISTRATOR.value, show_default=True)
@json_option
@pass_app
@reported
def add(app: App, name: str, role: str, as_json: bool) -> None:
    """Bootstrap on an empty table, else by a logged-in administrator."""
    with desk(app) as conn:
        empty = not accounts.accounts(conn)
        if empty and role == Role.ADMINISTRATOR:
            password = ask_password(tr("password of the new account", "新账号口令"), confirm=True)
            account_id = accounts.add_first_administrator(conn, now_us(), name, password)
            _done(as_json, {"id": account_id, "name": name, "role": role}, tr("first administrator", "首个管理员"))
            return
    with person(app, "user.manage") as (conn, actor):
        password = ask_password(tr("password of the new account", "新账号口令"), confirm=True)
        account_id = accounts.add_account(conn, now_us(), actor, name, role, password)
    _done(as_json, {"id": account_id, "name": name, "role": role}, tr("account added", "账号已建"))


def _done(as_json: bool, value: dict[str, object], text: str) -> None:
    if as_json:
        print_json(value)
    else:
        click.echo(f"{text}: " + ", ".join(f"{k}={v}" for k, v in value.items()))


@user.command("list", help=tr("All accounts.", "列出账号。"))
@json_option
@pass_app
@reported
def list_(app: App, as_json: bool) -> None:
    """Accounts without hashes."""
    with person(app) as (conn, _):
        found = accounts.accounts(conn)
    if as_json:
        print_json([asdict(a) for a in found])
        return
    rows = [
        [a.name, ROLE_ZH[Role(a.role)] if lang() == "zh" else a.role, yes_no(a.disabled), local(a.locked_at)]
        for a in found
    ]
    show_table([tr("name", "名称"), tr("role", "角色"), tr("disabled", "停用"), tr("locked since", "锁定时间")], rows)


@user.command(help=tr("New password (also unlocks).", "修改口令(并解锁)。"))
@click.argument("name")
@json_option
@pass_app
@reported
def passwd(app: App, name: str, as_json: bool) -> None:
    """One's own, or anybody's by an administrator."""
    with person(app) as (conn, actor):
        password = ask_password(tr("new password", "新口令"), confirm=True)
        accounts.set_password(conn, now_us(), actor, name, password)
    _done(as_json, {"name": name}, tr("password changed", "口令已修改"))


@user.command(help=tr("Change a role (administrator).", "修改角色(管理员)。"))
@click.argument("name")
@click.argument("role", type=click.Choice([r.value for r in Role]))
@json_option
@pass_app
@reported
def role(app: App, name: str, role: str, as_json: bool) -> None:
    """Ends the account's sessions."""
    with person(app, "user.manage") as (conn, actor):
        accounts.set_role(conn, now_us(), actor, name, role)
    _done(as_json, {"name": name, "role": role}, tr("role changed", "角色已修改"))


@user.command(help=tr("Close an account (--enable opens it again).", "停用账号(--enable 恢复)。"))
@click.argument("name")
@click.option("--enable", is_flag=True)
@json_option
@pass_app
@reported
def disable(app: App, name: str, enable: bool, as_json: bool) -> None:
    """By an administrator; ends its sessions."""
    with person(app, "user.manage") as (conn, actor):
        accounts.disable(conn, now_us(), actor, name, disabled=not enable)
    _done(as_json, {"name": name, "disabled": not enable}, tr("account changed", "账号已修改"))


@user.command(help=tr("Log in on this terminal.", "登录。"))
@click.argument("name")
@json_option
@pass_app
@reported
def login(app: App, name: str, as_json: bool) -> None:
    """The token goes into the file named by FUHE_SESSION (default: the user's state directory), mode 0600."""
    password = ask_password(tr(f"password of {name}", f"{name} 的口令"))
    with desk(app) as conn:
        actor, token = accounts.login(conn, now_us(), name, password, workstation())
    accounts.save_token(accounts.session_file(), token)
    _done(as_json, {"name": actor.name, "role": actor.role, "session": actor.session_id}, tr("logged in", "已登录"))


@user.command(help=tr("Log out.", "退出登录。"))
@json_option
@pass_app
@reported
def logout(app: App, as_json: bool) -> None:
    """End the session and forget the token."""
    with person(app) as (conn, actor):
        accounts.logout(conn, now_us(), actor)
    accounts.forget_token(accounts.session_file())
    _done(as_json, {"name": actor.name}, tr("logged out", "已退出"))


@user.command(help=tr("Who is logged in here.", "当前登录者。"))
@json_option
@pass_app
@reported
def whoami(app: App, as_json: bool) -> None:
    """Name, role and session."""
    with person(app) as (_, actor):
        value: dict[str, object] = {"name": actor.name, "role": actor.role, "session": actor.session_id}
    _done(as_json, value, tr("logged in", "已登录"))
