"""A GGUF file taken apart and put together with lies in it, without the code under test."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from tests.fuzz import byte_damage, json_damage

_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
_STRAY_TYPES = (*range(14), 255, 1 << 31)
_TENSOR_TYPES = (0, 1, 2, 3, 4, 8, 12, 14, 24, 27, 30, 39, 41, 42, 255)


@dataclass(frozen=True)
class FieldBytes:
    """One field; `value` is its bytes, `texts` its elements where it is an array of strings."""

    key: bytes
    type: int
    value: bytes
    texts: tuple[bytes, ...] | None = None


@dataclass(frozen=True)
class InfoBytes:
    """One tensor info; dimensions in GGUF's order."""

    name: bytes
    dimensions: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class GgufParts:
    """A file; counts that are None are true."""

    fields: tuple[FieldBytes, ...]
    infos: tuple[InfoBytes, ...]
    data: bytes
    version: int = 3
    num_fields: int | None = None
    num_infos: int | None = None
    alignment: int = 32

    def front(self) -> bytes:
        counts = (
            len(self.infos) if self.num_infos is None else self.num_infos,
            len(self.fields) if self.num_fields is None else self.num_fields,
        )
        made = [struct.pack("<4sIQQ", b"GGUF", self.version, *counts)]
        made += [text(each.key) + struct.pack("<I", each.type) + each.value for each in self.fields]
        for info in self.infos:
            rank = len(info.dimensions)
            row = struct.pack(f"<I{rank}QIQ", rank, *info.dimensions, info.type, info.offset)
            made.append(text(info.name) + row)
        return b"".join(made)

    def encode(self) -> bytes:
        front = self.front()
        return front + bytes(-len(front) % self.alignment) + self.data


def text(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def array(element: int, values: Sequence[bytes]) -> bytes:
    return struct.pack("<IQ", element, len(values)) + b"".join(values)


class _Walk:
    """A position in a sound file, moved by what is read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self) -> bytes:
        length = self.number("<Q")
        self.at += length
        return self.data[self.at - length : self.at]

    def field(self) -> FieldBytes:
        key, kind = self.text(), self.number("<I")
        start = self.at
        texts = self._value(kind)
        return FieldBytes(key, kind, self.data[start : self.at], texts)

    def info(self) -> InfoBytes:
        name, rank = self.text(), self.number("<I")
        dimensions = tuple(self.number("<Q") for _ in range(rank))
        return InfoBytes(name, dimensions, self.number("<I"), self.number("<Q"))

    def _value(self, kind: int) -> tuple[bytes, ...] | None:
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            element, count = self.number("<I"), self.number("<Q")
            if element == STRING:
                return tuple(self.text() for _ in range(count))
            for _ in range(count):
                self._value(element)
        else:
            self.at += _WIDTHS[kind]
        return None


def taken_apart(data: bytes) -> GgufParts:
    """The parts of a sound file."""
    walk = _Walk(data)
    walk.at = 4
    version, num_infos, num_fields = walk.number("<I"), walk.number("<Q"), walk.number("<Q")
    fields = tuple(walk.field() for _ in range(num_fields))
    infos = tuple(walk.info() for _ in range(num_infos))
    stated = [each.value for each in fields if each.key == b"general.alignment"]
    alignment = int.from_bytes(stated[0], "little") if stated else 32
    data_at = -(-walk.at // alignment) * alignment
    return GgufParts(fields, infos, data[data_at:], version, alignment=alignment)


def damaged(random: Random, parts: GgufParts, other: GgufParts, json_fields: Any) -> GgufParts:
    """The parts with one thing wrong; `json_fields` are parsed values of fields that hold JSON."""
    kind = random.random()
    if kind < 0.04:
        count = byte_damage.number(random, 8, (len(parts.fields), len(parts.infos)))
        which = random.choice(("num_fields", "num_infos"))
        return replace(parts, **{which: count})
    if kind < 0.06:
        return replace(parts, version=byte_damage.number(random, 4, (3,)))
    if kind < 0.1:
        return replace(parts, data=parts.data[: random.randrange(len(parts.data) + 1)])
    if kind < 0.65 and parts.fields:
        return replace(parts, fields=_other_fields(random, parts.fields, other.fields, json_fields))
    if parts.infos:
        return replace(parts, infos=_other_infos(random, parts.infos, other.infos))
    return parts


def _other_fields(
    random: Random,
    fields: tuple[FieldBytes, ...],
    others: tuple[FieldBytes, ...],
    json_fields: dict[bytes, Any],
) -> tuple[FieldBytes, ...]:
    changed = list(fields)
    at = random.randrange(len(fields))
    field, kind = fields[at], random.randrange(12)
    if kind <= 3:
        changed[at] = _other_value(random, field, json_fields)
    elif kind == 4:
        changed[at] = replace(field, type=random.choice(_STRAY_TYPES))
    elif kind == 5:
        del changed[at]
    elif kind == 6:
        changed.append(field)
    elif kind == 7 and others:
        changed[at] = random.choice(others)
    elif kind == 8 and others:
        changed.append(random.choice(others))
    elif kind == 9:
        changed[at] = replace(field, key=byte_damage.damaged(random, field.key, b"llama.rope."))
    elif kind == 10 and others:
        changed[at] = replace(random.choice(others), key=field.key)
    else:
        changed[at] = _of_any_type(random, field.key)
    return tuple(changed)


def _other_value(random: Random, field: FieldBytes, json_fields: dict[bytes, Any]) -> FieldBytes:
    """The same type with another value."""
    if field.key in json_fields:
        return replace(field, value=text(_json(random, json_fields[field.key])))
    if field.type == STRING:
        return replace(field, value=text(byte_damage.damaged(random, field.value[8:], b"model")))
    if field.type in _WIDTHS:
        width = _WIDTHS[field.type]
        near = (int.from_bytes(field.value, "little"),)
        new = byte_damage.number(random, width, near).to_bytes(width, "little")
        return replace(field, value=new)
    if field.texts and random.random() < 0.7:
        texts = list(field.texts)
        at = random.randrange(len(texts))
        if random.random() < 0.3:
            texts[at : at + 1] = random.choice(([], [texts[0]], [texts[at]] * 2))
        else:
            texts[at] = byte_damage.damaged(random, texts[at], texts[0] + b" ")
        return replace(field, value=array(STRING, [text(each) for each in texts]))
    kind = random.random()
    element = int.from_bytes(field.value[:4], "little")
    if kind < 0.4 and element in _WIDTHS:
        return replace(field, value=_other_length(random, element, field.value[12:]))
    if kind < 0.7:
        return replace(field, value=byte_damage.with_number(random, field.value, 4, 8))
    return replace(field, value=byte_damage.damaged(random, field.value, field.key, front=40))


def _other_length(random: Random, element: int, data: bytes) -> bytes:
    """A sound array of numbers with more or fewer of them."""
    width = _WIDTHS[element]
    numbers = [data[at : at + width] for at in range(0, len(data), width)]
    count = random.choice((0, 1, len(numbers) - 1, len(numbers) + 1, 2 * len(numbers)))
    return array(element, [*numbers, *numbers, bytes(width)][: max(0, count)])


def _json(random: Random, value: Any) -> bytes:
    return json_damage.damaged(random, value, json_damage.texts_and_keys([value])).encode()


def _of_any_type(random: Random, key: bytes) -> FieldBytes:
    kind = random.randrange(13)
    if kind == STRING:
        return FieldBytes(key, kind, text(random.choice((b"", b"llama", b"\xff", b"a" * 70_000))))
    if kind == ARRAY:
        element = random.randrange(13)
        if element == ARRAY:
            nested = array(ARRAY, [array(ARRAY, [array(4, [])] * 2)] * random.randrange(3))
            return FieldBytes(key, kind, array(ARRAY, [nested]))
        one = text(b"x") if element == STRING else random.randbytes(_WIDTHS[element])
        return FieldBytes(key, kind, array(element, [one] * random.choice((0, 1, 2, 300))))
    return FieldBytes(
        key, kind, byte_damage.number(random, 8).to_bytes(8, "little")[: _WIDTHS[kind]]
    )


def _other_infos(
    random: Random, infos: tuple[InfoBytes, ...], others: tuple[InfoBytes, ...]
) -> tuple[InfoBytes, ...]:
    changed = list(infos)
    at = random.randrange(len(infos))
    info, kind = infos[at], random.randrange(9)
    if kind <= 1 and info.dimensions:
        dimensions = list(info.dimensions)
        which = random.randrange(len(dimensions))
        dimensions[which] = byte_damage.number(random, 8, (dimensions[which], dimensions[0]))
        changed[at] = replace(info, dimensions=tuple(dimensions))
    elif kind == 2:
        extra = (random.choice((0, 1, 1 << 63)),) * random.randrange(1, 5)
        changed[at] = replace(info, dimensions=(*info.dimensions, *extra)[random.randrange(3) :])
    elif kind == 3:
        changed[at] = replace(info, type=random.choice(_TENSOR_TYPES))
    elif kind == 4:
        offset = byte_damage.number(random, 8, (info.offset, infos[0].offset))
        changed[at] = replace(info, offset=offset & ~31 if random.random() < 0.6 else offset)
    elif kind == 5:
        changed[at] = replace(info, name=byte_damage.damaged(random, info.name, b"blk.0.output"))
    elif kind == 6:
        del changed[at]
    elif kind == 7 and others:
        changed.append(random.choice(others))
    else:
        changed[at] = replace(random.choice(infos), name=info.name)
    return tuple(changed)
