"""A fuzz target (see `target`): the safetensors reader, from header to last chunk."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import safetensors
from tests.fuzz import byte_damage, json_damage
from tests.fuzz.target import ACCEPTED, Mutator, outcome_of
from tests.safetensors_bytes import entry, file_of, raw_file

from apr.convert.huggingface.safetensors_file import METADATA_KEY, WIDTHS, SafetensorsFile


def fuzz_one(data: bytes) -> bool:
    """Read these bytes as a file; whether they were taken. Nothing but a refusal may be raised."""
    return outcome_of(read, data) == ACCEPTED


def read(path: Path) -> None:
    file = SafetensorsFile.open(path)
    for tensor in file.tensors().values():
        stored = sum(chunk.nbytes for chunk in tensor.chunks())
        assert stored == file.entries[tensor.name].size_bytes
    # What is taken here the reference library takes too.
    theirs = dict(safetensors.deserialize(path.read_bytes()))
    ours = {name: [*entry.shape] for name, entry in file.entries.items()}
    assert ours == {name: entry["shape"] for name, entry in theirs.items()}


def seeds() -> list[bytes]:
    every, at = {}, 0
    for dtype, width in WIDTHS.items():
        every[f"t.{dtype}"] = entry(dtype, (2, 3), (at, at + 6 * width))
        at += 6 * width
    empty = {"none": entry("F32", (0, 4), (0, 0)), "scalar": entry("F16", (), (0, 2))}
    return [
        file_of({}),
        file_of({"a": entry()}, bytes(8)),
        file_of({METADATA_KEY: {"format": "pt"}} | every, bytes(at)),
        file_of(empty, b"ab"),
        raw_file(json.dumps({"a": entry()}).encode() + b"   ", bytes(8)),
    ]


def mutator(seeds: Sequence[bytes]) -> Mutator:
    parts = [_parts(seed) for seed in seeds]
    words = (*json_damage.texts_and_keys([rows for rows, _ in parts]), "F8_E4M3", "F4", "")

    def mutated(random: Random) -> bytes:
        rows, data = random.choice(parts)
        kind = random.random()
        if kind < 0.65:
            header = json_damage.damaged(random, rows, words).encode()
        else:
            header = json_damage.spelled(rows).encode()
        file = raw_file(header + b" " * random.choice((0, 0, 1, 7)), data)
        if kind > 0.6:
            for _ in range(random.choice((1, 1, 2, 4))):
                file = byte_damage.damaged(
                    random, file, random.choice(seeds), front=8 + len(header)
                )
        if random.random() < 0.1:
            file = byte_damage.with_number(random, file, 0, 8)
        return file

    return mutated


def _parts(seed: bytes) -> tuple[dict[str, object], bytes]:
    end = 8 + int.from_bytes(seed[:8], "little")
    return json.loads(seed[8:end]), seed[end:]
