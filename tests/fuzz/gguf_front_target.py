"""A fuzz target (see `target`): fields of every type and tensors of every type, by the reader
alone, which does not ask what they mean."""

import struct
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.fuzz import byte_damage
from tests.fuzz.gguf_parts import (
    ARRAY,
    STRING,
    FieldBytes,
    GgufParts,
    InfoBytes,
    array,
    damaged,
    taken_apart,
    text,
)
from tests.fuzz.target import ACCEPTED, Mutator, outcome_of

from apr.convert.gguf.layout import SCALAR_FORMATS, TENSOR_TYPES, padded
from apr.convert.gguf.reader import read_gguf


def fuzz_one(data: bytes) -> bool:
    return outcome_of(read, data) == ACCEPTED


def read(path: Path) -> None:
    file = read_gguf(path)
    for name, info in file.tensors.items():
        assert sum(chunk.nbytes for chunk in file.chunks(name)()) == info.size_bytes


def seeds() -> list[bytes]:
    fields: list[FieldBytes] = []
    for kind, form in SCALAR_FORMATS.items():
        one = struct.pack(form, 1)
        fields.append(FieldBytes(f"one.{kind.name}".encode(), kind, one))
        fields.append(FieldBytes(f"three.{kind.name}".encode(), ARRAY, array(kind, [one] * 3)))
    texts = (b"", b"a", "\u2581b".encode())
    listed = array(STRING, [text(each) for each in texts])
    nested = array(ARRAY, [array(4, []), array(ARRAY, [array(STRING, [text(b"deep")])])])
    fields += [
        FieldBytes(b"text", STRING, text(b"some text")),
        FieldBytes(b"texts", ARRAY, listed, texts),
        FieldBytes(b"nested", ARRAY, nested),
    ]
    alignment = FieldBytes(b"general.alignment", 4, struct.pack("<I", 64))
    infos: list[InfoBytes] = []
    at = 0
    for code, kind in TENSOR_TYPES.items():
        shape = (2, kind.block_elements)
        infos.append(InfoBytes(kind.name.encode(), shape[::-1], code, at))
        at += padded(kind.size_bytes(shape), 64)
    some = InfoBytes(b"a", (2, 1, 3, 1), 0, 0), InfoBytes(b"b", (1,), 24, 32)
    made = [
        GgufParts((), (), b""),
        GgufParts(tuple(fields), some, bytes(64), version=2),
        GgufParts((*fields[:3], alignment), tuple(infos), bytes(at), alignment=64),
    ]
    return [each.encode() for each in made]


def mutator(seeds: Sequence[bytes]) -> Mutator:
    parts = [taken_apart(seed) for seed in seeds]

    def mutated(random: Random) -> bytes:
        chosen = random.choice(parts)
        kind = random.random()
        if kind < 0.7:
            for _ in range(random.choice((1, 1, 2))):
                chosen = damaged(random, chosen, random.choice(parts), {})
        data = chosen.encode()
        if kind > 0.6:
            for _ in range(random.choice((1, 1, 2, 4))):
                front = len(chosen.front())
                data = byte_damage.damaged(random, data, random.choice(seeds), front=front)
        return data

    return mutated
