"""Merges wanted registers into the fewest reads the device will answer (fact digest 26: gaps, too long, half values).

A read begins and ends with whole values; two neighbours share it when they touch, or when the profile marks everything
between first and last as one block; never beyond the device's maximum, never across a known cut or a refused value.
Taking each read as far as it goes, from the lowest address on, is optimal because blocks do not overlap.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from .maps import Block, Register


@dataclass(frozen=True, slots=True)
class Read:
    """One request: `registers` are the wanted values inside, in order of address."""

    function: int
    address: int
    count: int
    registers: tuple[Register, ...]

    def halves(self) -> tuple[Read, Read]:
        """Two reads with half of the values each; only for a read of two or more."""
        middle = len(self.registers) // 2
        return read_of(self.registers[:middle]), read_of(self.registers[middle:])


def read_of(registers: Sequence[Register]) -> Read:
    """The read from the first to the last of `registers` (one function, ordered by address)."""
    first = registers[0]
    return Read(first.function, first.address, registers[-1].end - first.address, tuple(registers))


def group(
    wanted: Iterable[Register],
    blocks: Sequence[Block],
    max_registers: int,
    cuts: Collection[tuple[int, int]] = (),
    refused: Collection[Register] = (),
) -> tuple[Read, ...]:
    """The reads for `wanted`. cuts: (function, address) at which a read must begin anew; refused: never read across."""
    reads: list[Read] = []
    current: list[Register] = []
    ordered = sorted({r.name: r for r in wanted}.values(), key=lambda r: (r.function, r.address))
    for register in ordered:
        if current and not _may_join(current, register, blocks, max_registers, cuts, refused):
            reads.append(read_of(current))
            current = []
        current.append(register)
    if current:
        reads.append(read_of(current))
    return tuple(reads)


def _may_join(
    current: Sequence[Register],
    register: Register,
    blocks: Sequence[Block],
    max_registers: int,
    cuts: Collection[tuple[int, int]],
    refused: Collection[Register],
) -> bool:
    first, last = current[0], current[-1]
    if register.function != first.function or register.end - first.address > max_registers:
        return False
    if (register.function, register.address) in cuts:
        return False
    if register.address == last.end:
        return True
    if any(r.function == first.function and last.end <= r.address < register.address for r in refused):
        return False
    return any(
        b.function == register.function and b.first <= last.address and register.end - 1 <= b.last for b in blocks
    )
