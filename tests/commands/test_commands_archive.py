"""`fuhe archive` from a folder of files to the tree, by the people who may."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from argon2 import PasswordHasher
from click.testing import CliRunner

from fuhe.cli import root
from fuhe.control import accounts
from fuhe.storage.config import StorageConfig
from fuhe.storage.database import Database

FILES = {
    "customers": "cons_no,name,importance,valid_from\n0012,Mill,first,2026-01-01\n",
    "feeders": "feeder,substation,name\nF7,East,Mill line\n",
    "supplies": "customer,source_no,feeder\n0012,1,F7\n",
    "points": "point,customer,source_no\nP1,0012,1\n",
    "protections": "customer,basis,expires\n0012,doc 9,2027-01-01\n",
}


class Desk:
    """Runs `fuhe archive` as one of several people."""

    def __init__(self, storage: StorageConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        fields = {"data_dir": storage.data_dir, "dsn": storage.dsn, "admin_dsn": storage.admin_dsn}
        (folder / "config.yaml").write_text(yaml.safe_dump({"storage": fields}))

    def run(self, who: str, *words: str, code: int = 0) -> str:
        self.monkeypatch.setenv("FUHE_SESSION", str(self.folder / f"{who}.session"))
        arguments = ["--config", str(self.folder / "config.yaml"), "archive", *words]
        result = CliRunner().invoke(root, arguments, env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, (words, result.output)
        return result.output

    def json(self, who: str, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(who, *words, "--json", code=code))


@pytest.fixture
def desk(database: Database, storage_config: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """inside, leading; the archive folder `in`."""
    monkeypatch.setattr(accounts, "_HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
    now = time.time_ns() // 1000
    with database.connect("app", autocommit=True) as conn:
        accounts.add_first_administrator(conn, now, "root", "correct horse")
        admin, _ = accounts.login(conn, now, "root", "correct horse", "desk")
        for name in ("inside", "leading"):
            accounts.add_account(conn, now, admin, name, name, "correct horse")
            _, token = accounts.login(conn, now, name, "correct horse", "desk")
            accounts.save_token(tmp_path / f"{name}.session", token)
    folder = tmp_path / "in"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return Desk(storage_config, tmp_path, monkeypatch)


def test_from_a_folder_to_the_tree(desk: Desk) -> None:
    folder = str(desk.folder / "in")
    words = ("import", folder, "--from", "2026-01-01")
    seen = desk.json("nobody", *words)
    assert [c["kind"] for c in seen["changes"]] == ["new"] * 5 and seen["roles"] == ["leading"] and not seen["done"]
    assert desk.json("nobody", "list", "customers") == []
    assert "not logged in" in desk.run("nobody", *words, "--commit", "--reason", "first", code=1)
    waits = desk.json("inside", *words, "--commit", "--reason", "first")["waits"]
    assert desk.json("inside", "pending")[0]["change"] == waits
    desk.run("leading", "approve", str(waits), "--digits", "0012")

    assert desk.json("inside", *words)["changes"] == []
    shown = desk.json("nobody", "show", "Mill", "--on", "2026-02-01")
    assert shown["objects"][0]["importance"] == "first"
    assert {v["entity"] for v in shown["belonging"]} == {"supplies", "points"}
    assert "no 'Mill' then" in " ".join(desk.run("nobody", "show", "Mill", "--on", "2025-12-31", code=1).split())
    tree = desk.run("nobody", "tree")
    order = [tree.index(word) for word in ("East", "F7 Mill line", "0012 Mill", "P1 billing K=1")]
    assert order == sorted(order)
    for path in (desk.folder / "out", desk.folder / "out.xlsx"):
        desk.run("inside", "export", str(path))
        again = desk.json("inside", "import", str(path))
        assert again["changes"] == [] and again["faults"] == [] and again["same"] == 5
    assert len(desk.json("nobody", "show", "0012", "--history")["objects"]) == 2
    assert "K=1" not in desk.run("nobody", "list", "points")
    kinds = {f["kind"] for f in json.loads(desk.run("nobody", "check", "--json", code=1))}
    assert "no_contact" in kinds and "expired" not in kinds
    assert "expired" in desk.run("nobody", "check", "--on", "2027-02-01", code=1)


def test_faults_of_files_and_of_the_archive_come_together(desk: Desk) -> None:
    (desk.folder / "in" / "points.csv").write_text("point,customer,wiring\nP1,0013,2P\nP2,0013,\n", encoding="utf-8")
    found = desk.json("inside", "import", str(desk.folder / "in"), "--commit", "--reason", "x", code=1)
    assert [(f["sheet"], f["line"], f["column"]) for f in found["faults"]] == [
        ("points", 2, "wiring"), ("points", 3, "customer"),
    ]  # fmt: skip
    assert desk.json("nobody", "list", "customers") == []
