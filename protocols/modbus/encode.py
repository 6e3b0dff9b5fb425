"""Requests from plain dictionaries (`fuhe encode`) and the question "is this a write?" of the read-only guard.

Not the poller's path: `wire` prepares that. Messages are built by pymodbus's own PDU classes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import (
    ReadCoilsRequest,
    ReadDiscreteInputsRequest,
    WriteMultipleCoilsRequest,
    WriteSingleCoilRequest,
)
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from ..common.errors import UsageError
from .crc import with_crc

PROTOCOLS: Final = ("modbus-rtu", "modbus-tcp")
_KEYS: Final = frozenset({"unit", "function", "address", "count", "value", "values", "transaction"})


def _number(request: Mapping[str, object], key: str, low: int, high: int, default: int | None = None) -> int:
    value = request.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{key}: a whole number from {low} to {high} is needed, not {value!r}")
    return value


def _list(request: Mapping[str, object], high: int, limit: int) -> list[int]:
    values = request.get("values")
    if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not 1 <= len(values) <= limit:
        raise UsageError(f"values: a list of 1 to {limit} numbers is needed")
    wrong = [i for i, v in enumerate(values) if not isinstance(v, int) or not 0 <= v <= high]
    if wrong:
        raise UsageError(f"values: not 0 to {high} at position {', '.join(map(str, wrong))}")
    return [int(v) for v in values]


def _reading(kind: type[ModbusPDU], limit: int) -> Callable[[Mapping[str, object], int], ModbusPDU]:
    def build(request: Mapping[str, object], address: int) -> ModbusPDU:
        return kind(address=address, count=_number(request, "count", 1, limit))

    return build


def _coil(request: Mapping[str, object], address: int) -> ModbusPDU:
    value = request.get("value")
    if value not in (0, 1, 0xFF00):
        raise UsageError(f"value: true or false is needed to write a coil, not {value!r}")
    return WriteSingleCoilRequest(address=address, bits=[bool(value)])


def _register(request: Mapping[str, object], address: int) -> ModbusPDU:
    return WriteSingleRegisterRequest(address=address, registers=[_number(request, "value", 0, 0xFFFF)])


def _coils(request: Mapping[str, object], address: int) -> ModbusPDU:
    return WriteMultipleCoilsRequest(address=address, bits=[bool(v) for v in _list(request, 1, 1968)])


def _registers(request: Mapping[str, object], address: int) -> ModbusPDU:
    return WriteMultipleRegistersRequest(address=address, registers=_list(request, 0xFFFF, 123))


_BUILDERS: Final[dict[int, Callable[[Mapping[str, object], int], ModbusPDU]]] = {
    1: _reading(ReadCoilsRequest, 2000),
    2: _reading(ReadDiscreteInputsRequest, 2000),
    3: _reading(ReadHoldingRegistersRequest, 125),
    4: _reading(ReadInputRegistersRequest, 125),
    5: _coil,
    6: _register,
    15: _coils,
    16: _registers,
}


def encode(protocol: str, request: Mapping[str, object]) -> bytes:
    """The frame of a request: {"unit", "function", "address", "count" | "value" | "values"[, "transaction"]}.

    protocol: modbus-rtu or modbus-tcp. UsageError names the field that is wrong.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"protocol {protocol!r}: use {' or '.join(PROTOCOLS)}")
    unknown = sorted(set(request) - _KEYS)
    if unknown:
        raise UsageError(f"unknown field {', '.join(unknown)}; a request has {', '.join(sorted(_KEYS))}")
    unit = _number(request, "unit", 0, 255 if protocol == "modbus-tcp" else 247)
    function = _number(request, "function", 1, 127)
    builder = _BUILDERS.get(function)
    if builder is None:
        raise UsageError(f"function {function}: use one of {', '.join(map(str, _BUILDERS))}")
    try:
        pdu = builder(request, _number(request, "address", 0, 0xFFFF))
        body = bytes((unit, function)) + pdu.encode()
    except (ModbusException, ValueError, struct.error) as error:
        raise UsageError(f"request cannot be encoded: {error}") from error
    if protocol == "modbus-rtu":
        return with_crc(body)
    return struct.pack(">HHH", _number(request, "transaction", 0, 0xFFFF, 1), 0, len(body)) + body
