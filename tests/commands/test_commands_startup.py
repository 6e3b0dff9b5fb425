"""A verb starts at once: it imports what it uses and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from fuhe.cli import VERBS, root

ARRAYS = {"numpy", "matplotlib", "plotext"}
DATABASE = {"psycopg", "sqlalchemy", "alembic"}
DAEMON = {"apscheduler", "paho", "pymodbus", "serial", "amqtt", "prometheus_client"}


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["--help"], ARRAYS | DATABASE | DAEMON | {"msgspec", "yaml", "rich", "asyncio"}),
        (["encode", "address"], ARRAYS | DATABASE | DAEMON | {"yaml", "rich", "asyncio"}),
        (["control", "status", "--help"], ARRAYS | DAEMON | {"sqlalchemy", "rich", "jinja2"}),
        (["user", "list", "--help"], ARRAYS | DAEMON | {"sqlalchemy", "rich"}),
        (["audit", "verify", "--help"], ARRAYS | DAEMON | {"sqlalchemy", "rich"}),
        (["device", "list", "--help"], ARRAYS | DAEMON | {"sqlalchemy", "rich"}),
        (["status", "--help"], ARRAYS | DAEMON | {"sqlalchemy", "rich"}),
    ],
    ids=lambda v: "_".join(v) if isinstance(v, list) else "",
)
def test_a_verb_imports_only_what_it_uses(words: list[str], unwanted: set[str]) -> None:
    code = f"""
import sys
from fuhe.cli import root
root({words!r}, standalone_mode=False)
heavy = {unwanted!r} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_verb_of_the_list_exists_and_is_listed_in_both_languages() -> None:
    text = CliRunner().invoke(root, ["--help"]).output
    for verb, (_, en, zh) in VERBS.items():
        assert CliRunner().invoke(root, [verb, "--help"]).exit_code == 0
        assert verb in text and en.split()[0] in text and zh != en
