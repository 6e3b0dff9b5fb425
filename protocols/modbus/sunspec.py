"""Finds a SunSpec model in a device: "SunS" at 40000, 0 or 50000, then the chain of (id, length) blocks up to id FFFF.

Pure: it says which two registers to read next and is told what came back.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

BASES: Final = (40000, 0, 50000)
_SIGN: Final = b"SunS"
_END: Final = 0xFFFF
_MAX_MODELS: Final = 64


class ModelSearch:
    """Walks to the first of `models`. `address` is what to read next (two registers), None when the walk is over."""

    __slots__ = ("_bases", "_in_chain", "_models", "_steps", "address", "found")

    def __init__(self, models: Collection[int]) -> None:
        self._models = frozenset(models)
        self._bases = iter(BASES)
        self._in_chain = False
        self._steps = 0
        self.address: int | None = next(self._bases)
        self.found: int | None = None

    def answer(self, data: bytes | None) -> None:
        """What the two registers at `address` hold; None when the device refused the address."""
        if self.address is None:
            return
        if self._in_chain:
            self._walk(self.address, data)
        elif data == _SIGN:
            self._in_chain = True
            self._go(self.address + 2)
        else:
            self.address = next(self._bases, None)

    def _walk(self, address: int, data: bytes | None) -> None:
        self._steps += 1
        if data is None or len(data) != 4 or self._steps > _MAX_MODELS:
            self.address = None
            return
        model, length = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")
        if model in self._models:
            self.found, self.address = address, None
        elif model == _END:
            self.address = None
        else:
            self._go(address + 2 + length)

    def _go(self, address: int) -> None:
        self.address = address if address <= 0xFFFE else None
