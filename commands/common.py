"""What every verb shares: the configuration, the language, JSON or human output, and one way of ending with an error.

A verb is a thin function: parse, call one function of the product, print. Nothing here knows a protocol or SQL.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import click

from ..model.lang import tr
from ..protocols.common.errors import FuheError

if TYPE_CHECKING:
    from ..daemon.config import Config

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class App:
    """The state of one command line: set by the root group, read by the verbs through `pass_app`."""

    config_path: Path | None = None
    json: bool = False

    @functools.cached_property
    def config(self) -> Config:
        """The configuration (built-in defaults where no file is given); UsageError names every fault in it."""
        from ..daemon.config import load_config  # YAML and every section's module: not for verbs without configuration

        return load_config(self.config_path)


pass_app = click.make_pass_decorator(App, ensure=True)


def json_option(function: Callable[P, R]) -> Callable[P, R]:
    """`--json`: machine-readable output on standard output, one JSON value."""
    return click.option("--json", "as_json", is_flag=True, help=tr("print JSON", "输出 JSON"))(function)


def print_json(value: Any) -> None:
    """One JSON value, UTF-8, with a newline. Decimals and datetimes become text."""
    import msgspec

    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.flush()


def fail(message: str, code: int = 1) -> NoReturn:
    """End the program with a message on standard error."""
    click.echo(tr("error: ", "错误: ") + message, err=True)
    raise SystemExit(code)


def reported(function: Callable[P, R]) -> Callable[P, R]:
    """Turn the product's own errors into one clear message and exit status 1; a bug stays a traceback."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except FuheError as error:
            fail(str(error))

    return wrapper
