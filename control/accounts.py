"""Accounts, passwords and sessions (domain 9.2, 9.5).

argon2id hashes; three wrong passwords lock the account until an administrator sets a new one. A session is a random
token in a file of mode 0600; the database holds only its SHA-256. An idle session is locked and must log in again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from ..model.lang import tr
from ..model.times import from_us
from ..protocols.common.errors import UsageError
from .audit import Actor, Entry, append, recorded
from .permissions import Role, require
from .records import Conn, fetch_all, fetch_one, insert, scalar, update

WRONG_PASSWORDS: Final = 3
PASSWORD_CHARS: Final = 8
_HASHER: Final = PasswordHasher()
BOOTSTRAP_LOCK: Final = 0x66756865_0002


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account, without its hash."""

    id: int
    name: str
    role: str
    disabled: bool
    failures: int
    locked_at: datetime | None
    created_at: datetime


_ACCOUNT = "SELECT id, name, role, disabled, failures, locked_at, created_at FROM account"


def hash_password(password: str) -> str:
    """argon2id hash (about 50 ms of CPU: call it before a transaction and off any event loop)."""
    if len(password) < PASSWORD_CHARS:
        raise UsageError(
            tr(f"the password needs at least {PASSWORD_CHARS} characters", f"口令至少 {PASSWORD_CHARS} 个字符")
        )
    return _HASHER.hash(password)


def _role(role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise UsageError(
            tr(f"no role {role!r}; roles: {', '.join(Role)}", f"没有角色 {role!r}; 角色: {', '.join(Role)}")
        ) from None


def accounts(conn: Conn) -> list[Account]:
    """All accounts by name."""
    return fetch_all(conn, Account, _ACCOUNT + " ORDER BY name")


def account(conn: Conn, name: str) -> Account:
    """The account called `name`, locked until the transaction ends; UsageError if there is none."""
    found = fetch_one(conn, Account, _ACCOUNT + " WHERE name = %s FOR UPDATE", (name,))
    if found is None:
        raise UsageError(tr(f"no account {name!r}", f"没有账号 {name!r}"))
    return found


def add_first_administrator(conn: Conn, now_us: int, name: str, password: str) -> int:
    """The first account, possible only while there is none at all."""
    hashed = hash_password(password)
    actor = Actor(name="bootstrap", role="system")
    with recorded(conn, now_us, actor, "user.add", f"account:{name}"):
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (BOOTSTRAP_LOCK,))
        if scalar(conn, "SELECT count(*) FROM account"):
            raise UsageError(tr("there are accounts already: log in as an administrator", "已有账号: 请以管理员登录"))
        return _insert(conn, now_us, actor, name, Role.ADMINISTRATOR, hashed)


def add_account(conn: Conn, now_us: int, actor: Actor, name: str, role: str, password: str) -> int:
    """A new account by an administrator."""
    hashed = hash_password(password)
    with recorded(conn, now_us, actor, "user.add", f"account:{name}"):
        require(actor, "user.manage")
        if scalar(conn, "SELECT count(*) FROM account WHERE name = %s", (name,)):
            raise UsageError(tr(f"account {name!r} exists already", f"账号 {name!r} 已存在"))
        return _insert(conn, now_us, actor, name, _role(role), hashed)


def _insert(conn: Conn, now_us: int, actor: Actor, name: str, role: Role, hashed: str) -> int:
    if not name or len(name) > 64 or any(c.isspace() or c == ":" for c in name):
        raise UsageError(
            tr("an account name has no spaces or colons and at most 64 characters", "账号名不含空格冒号, 最多 64 字符")
        )
    append(conn, now_us, [Entry(actor=actor, action="user.add", object=f"account:{name}", after={"role": role})])
    row = {"name": name, "role": role.value, "password_hash": hashed, "created_at": from_us(now_us)}
    return int(insert(conn, "account", row, "id"))


def set_password(conn: Conn, now_us: int, actor: Actor, name: str, password: str) -> None:
    """A new password: one's own, or anybody's by an administrator (which also unlocks). Ends the account's sessions."""
    hashed = hash_password(password)
    with recorded(conn, now_us, actor, "user.passwd", f"account:{name}"):
        target = account(conn, name)
        if target.id != actor.account_id:
            require(actor, "user.manage")
        before = {"locked": target.locked_at is not None}
        append(conn, now_us, [Entry(actor=actor, action="user.passwd", object=f"account:{name}", before=before)])
        update(conn, "account", target.id, {"password_hash": hashed, "failures": 0, "locked_at": None})
        _end_sessions(conn, now_us, target.id, keep=actor.session_id)


def set_role(conn: Conn, now_us: int, actor: Actor, name: str, role: str) -> None:
    """Another role, by an administrator (not their own). Ends the account's sessions."""
    with recorded(conn, now_us, actor, "user.role", f"account:{name}"):
        require(actor, "user.manage")
        target, new = account(conn, name), _role(role)
        if target.id == actor.account_id:
            raise UsageError(tr("nobody changes their own role", "不能修改自己的角色"))
        entry = Entry(
            actor=actor, action="user.role", object=f"account:{name}", before={"role": target.role}, after={"role": new}
        )
        append(conn, now_us, [entry])
        update(conn, "account", target.id, {"role": new.value})
        _end_sessions(conn, now_us, target.id)


def disable(conn: Conn, now_us: int, actor: Actor, name: str, *, disabled: bool = True) -> None:
    """Close (or open again) an account, by an administrator, not their own."""
    with recorded(conn, now_us, actor, "user.disable", f"account:{name}"):
        require(actor, "user.manage")
        target = account(conn, name)
        if target.id == actor.account_id:
            raise UsageError(tr("nobody disables their own account", "不能停用自己的账号"))
        entry = Entry(
            actor=actor,
            action="user.disable",
            object=f"account:{name}",
            before={"disabled": target.disabled},
            after={"disabled": disabled},
        )
        append(conn, now_us, [entry])
        update(conn, "account", target.id, {"disabled": disabled})
        _end_sessions(conn, now_us, target.id)


def _end_sessions(conn: Conn, now_us: int, account_id: int, keep: int | None = None) -> None:
    conn.execute(
        "UPDATE session SET ended_at = %s WHERE account_id = %s AND ended_at IS NULL AND id IS DISTINCT FROM %s",
        (from_us(now_us), account_id, keep),
    )


def login(conn: Conn, now_us: int, name: str, password: str, workstation: str) -> tuple[Actor, str]:
    """Check the password and open a session: (actor, token). Every attempt is recorded; the third wrong one locks."""
    row = conn.execute("SELECT id, password_hash FROM account WHERE name = %s", (name,)).fetchone()
    right = _matches(row[1] if row else None, password)
    nobody = Actor(name=name[:64], role="", workstation=workstation)
    denied = UsageError(
        tr("wrong name or password, or the account is locked or disabled", "用户名或口令错误, 或账号锁定停用")
    )
    with conn.transaction():
        found = None
        if row is not None:
            conn.execute("SELECT FROM account WHERE id = %s FOR UPDATE", (row[0],))
            found = fetch_one(conn, Account, _ACCOUNT + " WHERE id = %s", (row[0],))
        if found is None or not right or found.locked_at is not None or found.disabled:
            refused = Entry(actor=nobody, action="login", object=f"account:{nobody.name}", result="refused")
            entries = [refused]
            if found is not None and not right and found.locked_at is None:
                failures = found.failures + 1
                locked = failures >= WRONG_PASSWORDS
                if locked:
                    entries.append(
                        Entry(actor=nobody, action="user.lock", object=f"account:{name}", after={"failures": failures})
                    )
                update(
                    conn, "account", found.id, {"failures": failures, "locked_at": from_us(now_us) if locked else None}
                )
            append(conn, now_us, entries)
        else:
            token = secrets.token_urlsafe(32)
            stamp = from_us(now_us)
            session = {
                "account_id": found.id,
                "token_hash": _digest(token),
                "workstation": workstation,
                "created_at": stamp,
                "last_seen": stamp,
            }
            session_id = int(insert(conn, "session", session, "id"))
            update(conn, "account", found.id, {"failures": 0})
            actor = Actor(
                name=found.name, role=found.role, account_id=found.id, session_id=session_id, workstation=workstation
            )
            append(conn, now_us, [Entry(actor=actor, action="login", object=f"account:{name}")])
            return actor, token
    raise denied


def _matches(hashed: str | None, password: str) -> bool:
    """Compare; an unknown name costs the same time as a wrong password."""
    if hashed is None:
        _HASHER.hash(password)
        return False
    try:
        return _HASHER.verify(hashed, password)
    except (VerifyMismatchError, InvalidHashError):
        return False


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def resume(conn: Conn, now_us: int, token: str | None, idle_s: int) -> Actor:
    """The person behind a token; UsageError when logged out, idle for too long, disabled or locked."""
    again = UsageError(
        tr("not logged in (or idle for too long): fuhe user login NAME", "未登录或会话超时: fuhe user login 名称")
    )
    if not token:
        raise again
    stamp = from_us(now_us)
    with conn.transaction():
        row = conn.execute(
            "UPDATE session s SET last_seen = greatest(s.last_seen, %s) FROM account a WHERE s.token_hash = %s "
            "AND a.id = s.account_id AND s.ended_at IS NULL AND s.last_seen >= %s AND NOT a.disabled "
            "AND a.locked_at IS NULL RETURNING a.name, a.role, a.id, s.id, s.workstation",
            (stamp, _digest(token), stamp - timedelta(seconds=idle_s)),
        ).fetchone()
    if row is None:
        raise again
    return Actor(name=row[0], role=row[1], account_id=row[2], session_id=row[3], workstation=row[4])


def logout(conn: Conn, now_us: int, actor: Actor) -> None:
    """End the actor's session."""
    with conn.transaction():
        append(conn, now_us, [Entry(actor=actor, action="logout", object=f"account:{actor.name}")])
        conn.execute("UPDATE session SET ended_at = %s WHERE id = %s", (from_us(now_us), actor.session_id))


def session_file() -> Path:
    """Where this user's token is kept: FUHE_SESSION, else the state directory (XDG)."""
    named = os.environ.get("FUHE_SESSION")
    if named:
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "fuhe" / "session"


def save_token(path: Path, token: str) -> None:
    """Write the token, mode 0600, never readable by others even for a moment."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".session")  # mkstemp makes it 0600
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(token)
    Path(name).replace(path)


def load_token(path: Path) -> str | None:
    """The stored token; None without one. UsageError if others could read the file."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    if mode & 0o077:
        raise UsageError(
            tr(
                f"{path} can be read by others: chmod 600 it and log in again",
                f"{path} 可被他人读取: 请 chmod 600 并重新登录",
            )
        )
    return text


def forget_token(path: Path) -> None:
    """Remove the stored token."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
