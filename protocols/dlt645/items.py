"""The table of data items (数据标识): DI -> fields, for both editions, expanded from items.toml.

`lookup` finds an item, `decode_payload` and `encode_payload` are the two directions. Payload = DATA without DI and SEQ.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from ..common.errors import UsageError
from ..common.times import decode_datetime
from .fields import LENGTH, Content, Field, Value, decode_field, encode_field, make_field

DEMAND_BYTES: Final = 8
PHASES: Final = ("total", "a", "b", "c")
PHASES_ZH: Final = ("总", "A", "B", "C")
MAX_TARIFF: Final = 63
MAX_SETTLEMENT: Final = 12
STORED_TARIFFS: Final = 8
STORED_DEMAND_TARIFFS: Final = 4
FREEZE_ORDER: Final = ("01", "02", "03", "04", "05", "06", "07", "08", "09", "0A", "10")


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A data item. shape: "fields" (in order), "rows" (as many equal groups as are fitted), "freeze" or "load".

    settlement: DI0 of energy and demand, record: n-th last event or freeze, phase_block: DI1 = FF.
    demand: number + time belong together. open: a shorter payload that ends between two fields is legal.
    """

    di: str
    name: str
    zh: str
    clause: str
    fields: tuple[Field, ...]
    shape: str = "fields"
    demand: bool = False
    open: bool = False
    settlement: int | None = None
    record: int | None = None

    @property
    def size(self) -> int:
        """Bytes of a full payload; 0 when it depends on the meter."""
        return 0 if any(f.size == 0 for f in self.fields) else sum(f.size for f in self.fields)


@cache
def _tables() -> dict[str, Any]:
    text = Path(__file__).with_name("items.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def words() -> dict[str, dict[str, str]]:
    """Chinese labels of the fields of event records: {"places", "fields"}."""
    found: dict[str, dict[str, str]] = _tables()["words"]
    return found


def _parse(line: str, default: str, phase: str) -> Iterator[Field]:
    """Fields of one line of items.toml; `phase` replaces {p} and {x}."""
    if line.startswith("@"):
        name, _, argument = line[1:].partition(":")
        for inner in _tables()["layout"][name]:
            yield from _parse(inner.replace("{x}", argument), default, phase)
        return
    words = line.replace("{p}", phase).split()
    count = int(words.pop()[1:]) if words[-1].startswith("*") else 0
    quantity = words.pop()[1:] if words[-1].startswith("=") else None
    name = default
    if not _is_format(words[0]):
        name = words.pop(0)
    form, unit = words[0], (words[1] if len(words) > 1 else "")
    for i in range(1, count + 1):
        yield make_field(f"{name}_{i}", form, unit, quantity)
    if not count:
        yield make_field(name, form, unit, quantity)


def _is_format(word: str) -> bool:
    try:
        make_field("", word)
    except ValueError:
        return False
    return True


class _Row(msgspec.Struct, frozen=True):
    """A row of items.toml with its pattern cut into tokens (two characters in 2007, one in 1997)."""

    tokens: tuple[str, ...]
    name: str
    zh: str
    lines: tuple[str, ...]
    clause: str


@cache
def _rows(version: str) -> dict[str, list[_Row]]:
    """Rows by their first token (class)."""
    step = 2 if version == "2007" else 1
    found: dict[str, list[_Row]] = {}
    for pattern, name, zh, lines, clause in _tables()["rows"][version]:
        tokens = tuple(pattern[i : i + step] for i in range(0, len(pattern), step))
        row = _Row(
            tokens, name, zh, (lines,) if isinstance(lines, str) else tuple(lines), f"DL/T 645-{version} {clause}"
        )
        found.setdefault(tokens[0], []).append(row)
    return found


def _match(row: _Row, tokens: Sequence[str]) -> dict[str, int] | None:
    """Placeholder values if the tokens fit the row; -1 = block."""
    found: dict[str, int] = {}
    for want, got in zip(row.tokens, tokens, strict=True):
        if want == got:
            continue
        block = got in ("FF", "F")
        number = -1 if block else int(got, 16)
        if want in ("pp", "p") and (block or 1 <= number <= 3):
            found["phase"], found["fitted"] = number, 0
        elif want in ("qp", "q") and (block or number <= 3):
            found["phase"], found["fitted"] = number, 1
        elif want == "nn" and (block or number >= 1):
            found["record"] = number
        elif want == "hh" and (block or 1 <= number <= 21):
            found["harmonic"] = number
        elif want in ("xx", "n"):
            found["record"] = number
        else:
            return None
    return found


def _item_of(row: _Row, di: str, found: dict[str, int]) -> Item:
    phase = found.get("phase", 0)
    harmonic = found.get("harmonic")
    block = phase < 0 or harmonic == -1
    phases = (PHASES if found.get("fitted") else PHASES[1:]) if phase < 0 else (PHASES[phase],)
    fields: list[Field] = []
    for p in phases:
        for h in range(1, 22) if harmonic == -1 else (harmonic or 0,):
            default = row.name.replace("{p}", p) + (f"_{h}" if h else "")
            for line in row.lines:
                fields += _parse(line, default, p)
    zh_phase = "" if phase < 0 else PHASES_ZH[phase]
    record = found.get("record")
    return Item(
        di=di,
        name=row.name.replace("_{p}", "" if phase < 0 else "_" + PHASES[phase]),
        zh=row.zh.replace("{P}", zh_phase),
        clause=row.clause,
        fields=tuple(fields),
        open=block or (len(fields) > 1 and fields[0].name.endswith("_1")),
        record=record if record is not None and record > 0 else None,
    )


@cache
def _kinds() -> dict[str, tuple[dict[str, Any], int]]:
    """DI2 -> (kind, phase number 0..3)."""
    return {di2: (kind, phase) for kind in _tables()["kind"] for phase, di2 in enumerate(kind["di2"])}


def _register_fields(
    kind: dict[str, Any], phase: int, tariffs: Sequence[int], *, demand: bool, plain: bool
) -> list[Field]:
    """One energy (or demand and its time) a tariff. plain: names total, tariff_1 .. as in a block of all tariffs."""
    fields = []
    suffix = "_demand" if demand else ""
    place = "" if phase == 0 else f"_{PHASES[phase]}"
    for tariff in tariffs:
        if phase:
            quantity = f"{kind['name']}{place}" if not demand and tariff == 0 else None
        elif demand:
            quantity = f"{kind['name']}_demand" + (f"_t{tariff}" if tariff else "")
            quantity = quantity if tariff <= STORED_DEMAND_TARIFFS else None
        else:
            quantity = f"{kind['name']}_" + (f"t{tariff}" if tariff else "total")
            quantity = quantity if tariff <= STORED_TARIFFS else None
        if not kind.get("stored", True):
            quantity = None
        total = place or ("" if demand else "_total")
        name = f"{kind['name']}{place}{suffix}_tariff_{tariff}" if tariff else f"{kind['name']}{suffix}{total}"
        if plain:
            name = f"tariff_{tariff}" if tariff else "total"
        sign = "-" if kind.get("signed") else ""
        if demand:
            fields.append(make_field(name, f"{sign}XX.XXXX", kind["demand_unit"], quantity))
            fields.append(make_field(f"{name}_time", "YYMMDDhhmm"))
        else:
            fields.append(make_field(name, f"{sign}XXXXXX.XX", kind["unit"], quantity))
    return fields


def _register_item(di: str) -> Item | None:
    """Classes 00 (energy) and 01 (demand)."""
    entry = _kinds().get(di[2:4])
    demand = di.startswith("01")
    if entry is None or (demand and "demand_unit" not in entry[0]):
        return None
    kind, phase = entry
    tariff, settlement = int(di[4:6], 16), int(di[6:8], 16)
    if (tariff > MAX_TARIFF and tariff != 0xFF) or (settlement > MAX_SETTLEMENT and settlement != 0xFF):
        return None
    tariffs = range(MAX_TARIFF + 1) if tariff == 0xFF else (tariff,)
    block = tariff == 0xFF or settlement == 0xFF
    return Item(
        di=di,
        name=f"{kind['name']}{'_demand' if demand else ''}" + (f"_{PHASES[phase]}" if phase else ""),
        zh=("" if not phase else f"{PHASES_ZH[phase]}相") + kind["zh"] + ("最大需量及发生时间" if demand else "电能"),
        clause=kind["clause"],
        fields=tuple(_register_fields(kind, phase, tariffs, demand=demand, plain=tariff == 0xFF)),
        shape="settlements" if settlement == 0xFF else "fields",
        demand=demand,
        open=block,
        settlement=None if settlement == 0xFF else settlement,
    )


def _freeze_part(code: str) -> list[Field]:
    """Fields of one content (DI1) of a freeze."""
    if code == "00":
        return [make_field("freeze_time", "YYMMDDhhmm")]
    if code == "10":
        powers = (("active_power", "kW"), ("reactive_power", "kvar"))
        return [make_field(f"{n}_{p}", "-XX.XXXX", u, f"{n}_{p}") for n, u in powers for p in PHASES]
    demand = code in ("09", "0A")
    kind = _kinds()[f"{int(code, 16) - 8:02X}" if demand else code][0]
    return _register_fields(kind, 0, range(MAX_TARIFF + 1), demand=demand, plain=True)


def _freeze_item(di: str) -> Item | None:
    """Class 05."""
    row = next((r for r in _tables()["freeze"] if r["di2"] == di[2:4]), None)
    record = int(di[6:8], 16)
    if row is None or record == 0 or (di[4:6] not in FREEZE_ORDER and di[4:6] not in ("00", "FF")):
        return None
    code = di[4:6]
    fields = [] if code == "FF" else _freeze_part(code)
    content = {"00": "freeze_time", "FF": "block", "10": "variables"}.get(code)
    if content is None:
        content = fields[0].quantity or fields[0].name
    return Item(
        di=di,
        name=f"{row['name']}_{content}",
        zh=row["zh"],
        clause="DL/T 645-2007 table A.6",
        fields=tuple(fields),
        shape="freeze" if code == "FF" else "fields",
        demand=code in ("09", "0A"),
        open=code not in ("00", "10"),
        record=record,
    )


def _load_item(di: str) -> Item | None:
    """Class 06."""
    if (
        di[2:4] not in ("00", "01", "02", "03", "04", "05", "06")
        or di[4:6] != "00"
        or di[6:8] not in ("00", "01", "02")
    ):
        return None
    name = "load_record" if di[2:4] == "00" else f"load_record_class_{int(di[2:4], 16)}"
    return Item(di=di, name=name, zh="负荷记录", clause="DL/T 645-2007 table A.7", fields=(), shape="load")


def _register_item97(di: str) -> Item | None:
    """9xxx energy, Axxx demand, Bxxx time of the demand; second digit + 4 = last month, + 8 = the month before."""
    month = int(di[1], 16) >> 2
    base = int(di[1], 16) & 3
    key = f"{base}{di[2]}"
    kind = next((k for k in _tables()["kind97"] if k["demand"] == key), None)
    if kind is None or month > 2 or di[0] not in "9AB":
        return None
    tariff = int(di[3], 16)
    tariffs = range(15) if tariff == 15 else (tariff,)
    # quantities of the quadrants have demands and tariffs to the same depth as in 2007
    fields = _register_fields(kind, 0, tariffs, demand=di[0] != "9", plain=tariff == 15)
    if di[0] == "A":
        fields = [f for f in fields if f.numeric]
    elif di[0] == "B":
        fields = [make_field(f.name, "MMDDhhmm") for f in fields if not f.numeric]
    suffix = {"9": "", "A": "_demand", "B": "_demand_time"}[di[0]]
    return Item(
        di=di,
        name=kind["name"] + suffix,
        zh=kind["zh"] + {"9": "电能", "A": "最大需量", "B": "最大需量发生时间"}[di[0]],
        clause="DL/T 645-1997 annex A",
        fields=tuple(fields),
        open=tariff == 15,
        settlement=month,
    )


def _block97(di: str) -> Item | None:
    """B6FF: all of B6 in one, in the order of the table."""
    if di != "B6FF":
        return None
    parts = [lookup(p, "1997") for p in ("B61F", "B62F", "B63F", "B634", "B635", "B64F", "B65F")]
    fields = tuple(f for p in parts if p is not None for f in p.fields)
    return Item(di=di, name="variables", zh="变量数据块", clause="DL/T 645-1997 annex A", fields=fields, open=True)


@lru_cache(maxsize=8192)
def lookup(di: str, version: str = "2007") -> Item | None:
    """The item of a DI (hex, high byte first; 8 digits in 2007, 4 in 1997); None when the tables have none."""
    di = di.upper()
    if version == "1997":
        if len(di) != 4:
            return None
        special = _block97(di) or (_register_item97(di) if di[0] in "9AB" else None)
        tokens: tuple[str, ...] = tuple(di)
    else:
        if len(di) != 8:
            return None
        makers = {"00": _register_item, "01": _register_item, "05": _freeze_item, "06": _load_item}
        maker = makers.get(di[:2])
        special = maker(di) if maker else None
        tokens = (di[0:2], di[2:4], di[4:6], di[6:8])
    if special is not None:
        return special
    rows = _rows(version).get(tokens[0], ())
    exact = [r for r in rows if r.tokens == tokens]
    for row in exact or rows:
        found = _match(row, tokens)
        if found is not None:
            return _item_of(row, di, found)
    return None


def decode_payload(item: Item, payload: bytes) -> list[Value]:
    """Values of a payload; never raises. A payload of a wrong length is one value with invalid="length"."""
    if item.shape == "load":
        return []
    if item.shape == "freeze":
        return _decode_freeze(item, payload)
    if item.shape == "settlements":
        return _decode_settlements(item, payload)
    values = decode_fields(item.fields, payload, open_end=item.open)
    return values if values is not None else [Value(item.name, None, invalid=LENGTH)]


def decode_fields(fields: Sequence[Field], payload: bytes, *, open_end: bool = False) -> list[Value] | None:
    """Values of fields in order; a demand and its time become one value. None where the length does not fit.

    Numbers of 3 bytes may come with 4 (an extra leading digit in some meters): all of them or none.
    """
    sizes = _fit(fields, len(payload), open_end)
    if sizes is None:
        return None
    values: list[Value] = []
    offset = 0
    for field, size in zip(fields, sizes, strict=False):
        wire = payload[offset : offset + size]
        offset += size
        if values and field.format == "YYMMDDhhmm" and field.name == f"{values[-1].name}_time":
            moment = decode_datetime(wire)
            values[-1] = msgspec.structs.replace(values[-1], time=moment)
            continue
        values.append(decode_field(field, wire))
    return values


def _fit(fields: Sequence[Field], length: int, open_end: bool) -> list[int] | None:
    """Actual sizes of the fields present, or None."""
    plain = [f.size or 0 for f in fields]
    if fields and fields[-1].size == 0:
        rest = length - sum(plain)
        return [*plain[:-1], rest] if rest >= 0 else None
    total = sum(plain)
    if total == length:
        return plain
    if open_end:
        present = _prefix(plain, length)
        if present is not None:
            return present
    if fields and all(f.numeric and f.size == 3 for f in fields):
        wide = [4] * len(fields)
        if sum(wide) == length:
            return wide
        if open_end:
            return _prefix(wide, length)
    return None


def _prefix(sizes: list[int], length: int) -> list[int] | None:
    taken = 0
    for i, size in enumerate(sizes):
        if taken == length and i:
            return sizes[:i]
        taken += size
        if taken > length:
            return None
    return sizes if taken == length else None


def _decode_settlements(item: Item, payload: bytes) -> list[Value]:
    """DI0 = FF: now and up to 12 settlements, each with the same number of tariffs."""
    group = DEMAND_BYTES if item.demand else 4
    per_field = 2 if item.demand else 1
    single = len(item.fields) == per_field
    tariffs = 1 if single else 0
    if not single:
        # the meter's own number of tariffs: 13 groups of 1 + k registers
        count, rest = divmod(len(payload), group * (MAX_SETTLEMENT + 1))
        tariffs = count if rest == 0 else 0
    if not tariffs or not payload or len(payload) % (group * tariffs):
        return [Value(item.name, None, invalid=LENGTH)]
    values: list[Value] = []
    for n, start in enumerate(range(0, len(payload), group * tariffs)):
        part = decode_fields(item.fields, payload[start : start + group * tariffs], open_end=True) or []
        suffix = f"_last_{n}" if n else ""
        values += [msgspec.structs.replace(v, name=v.name + suffix, settlement=n) for v in part]
    return values


def _decode_freeze(item: Item, payload: bytes) -> list[Value]:
    """DI1 = FF: all contents in order, blocks separated by AA (standard text) or not (seen in one tool)."""
    parts = ("00", "01", "02") if item.di[2:4] == "04" else ("00", *FREEZE_ORDER)
    separators = len(parts) - 1
    for tariffs in range(MAX_TARIFF + 1):
        sizes = [_freeze_size(p, 0 if item.di[2:4] == "04" else tariffs) for p in parts]
        for gap in (1, 0):
            extra = len(payload) - sum(sizes) - gap * separators
            if extra not in ((0, 1) if gap else (0,)):
                continue
            values = _split_freeze(parts, sizes, payload, gap)
            if values is not None:
                return values
        if sum(sizes) > len(payload):
            break
    return [Value(item.name, None, invalid=LENGTH)]


def _freeze_size(part: str, tariffs: int) -> int:
    return {"00": 5, "10": 24, "09": 8 * (1 + tariffs), "0A": 8 * (1 + tariffs)}.get(part, 4 * (1 + tariffs))


def _split_freeze(parts: Sequence[str], sizes: Sequence[int], payload: bytes, gap: int) -> list[Value] | None:
    values: list[Value] = []
    offset = 0
    for i, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        if gap and i and payload[offset - 1] != 0xAA:
            return None
        found = decode_fields(_freeze_part(part), payload[offset : offset + size], open_end=True)
        if found is None:
            return None
        prefix = "" if part in ("00", "10") else _freeze_prefix(part)
        values += [msgspec.structs.replace(v, name=prefix + v.name) for v in found]
        offset += size + gap
    return values


def _freeze_prefix(part: str) -> str:
    demand = part in ("09", "0A")
    name: str = _kinds()[f"{int(part, 16) - 8:02X}" if demand else part][0]["name"]
    return name + ("_demand_" if demand else "_")


def encode_payload(item: Item, contents: Sequence[Content | int | float]) -> bytes:
    """Payload of an item from the values of its fields in order (a demand counts as two: number, time).

    Fewer values than fields are legal for blocks. UsageError when a value does not fit or there are too many.
    """
    if len(contents) > len(item.fields) or (len(contents) < len(item.fields) and not item.open):
        raise UsageError(f"{item.name} ({item.di}): {len(item.fields)} values are wanted, {len(contents)} given")
    return b"".join(encode_field(f, c) for f, c in zip(item.fields, contents, strict=False))


@cache
def load_fields(number: int) -> tuple[Field, ...]:
    """Contents of load-record class 1–6."""
    return tuple(f for line in _tables()["load"][str(number)] for f in _parse(line, "", ""))
