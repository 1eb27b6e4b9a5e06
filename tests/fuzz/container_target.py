"""A fuzz target (see `target`): a container, by everything that only reads it."""

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from tests import tokenizer_files
from tests.container_files import GOLDEN, HEADER_FIELDS, Row, build, f32, sealed, version_1
from tests.container_models import LLAMA, QWEN2, UNTIED, hashes, model_file
from tests.fuzz import byte_damage, json_damage
from tests.fuzz.target import ACCEPTED, Mutator, outcome_of

from apr.architecture import Architecture, RopeScaling
from apr.container import free_keys
from apr.container.embedded_tokenizer import embed_tokenizer, restore_tokenizer
from apr.container.inspecting.inspection import describe
from apr.container.inspecting.lint import lint
from apr.container.inspecting.validation import validate
from apr.container.layout import DTYPES
from apr.container.metadata import architecture_from_metadata, claims_a_model
from apr.container.provenance import chained
from apr.container.reader import Container
from apr.convert.gguf import rope
from apr.errors import Refusal

_HEADER_BYTES = 64
_SCALING = RopeScaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16
)


def fuzz_one(data: bytes) -> bool:
    return outcome_of(read, data) == ACCEPTED


def read(path: Path) -> None:
    """Everything that reads a container; what one of them refuses does not spare the others."""
    refused: list[Refusal] = []

    def attempt(action: Callable[[], object]) -> None:
        try:
            action()
        except Refusal as err:
            refused.append(err)

    with Container.open(path) as container:
        for name, entry in container.tensors.items():
            stored = b"".join(container.pieces(name, piece_bytes=1 << 16))
            assert container.array(name).tobytes() == stored
            assert len(stored) == entry.size_bytes
        attempt(container.verify)
        attempt(container.metadata.encode)
        if claims_a_model(container.metadata, container.tensors):
            attempt(lambda: _use_architecture(container))
        attempt(lambda: restore_tokenizer(container.metadata, where=path))
    for reading in (describe(path), validate(path).as_dict(), lint(path).as_dict()):
        # What `--json` prints.
        json.dumps(reading, allow_nan=False, ensure_ascii=False).encode("utf-8")
    if refused:
        raise refused[0]


def _use_architecture(container: Container) -> None:
    architecture = architecture_from_metadata(container.metadata, container.tensors, container.path)
    assert architecture.num_parameters > 0
    if architecture.rope_scaling and architecture.head_dim < 1 << 14:
        theta, head_dim = architecture.rope_theta, architecture.head_dim
        rope.divisors(architecture.rope_scaling, rope_theta=theta, head_dim=head_dim)


def seeds() -> list[bytes]:
    tokenizer = tokenizer_files.tokenizer()
    wide = replace(LLAMA, vocab_size=tokenizer.vocab_size + 2, num_hidden_layers=1)
    entries: list[dict[str, Any]] = []
    for number in range(3):
        entries.append(chained(entries, {"event": "stamp", "number": number}))
    stamped = {
        free_keys.PROVENANCE: entries,
        "tokenizer.padding_token_id": 3,
        free_keys.HF_CONFIG: {"eos_token_id": 2},
    }
    named = {"name": "x", "license": "Apache-2.0", "data_source": "y", "version": "1.0"}
    special = {"quant_type": "q4_k", "bits": 4, "block_size": 256, "symmetric": False}
    every_key = named | {
        "model_type": "x",
        "quantization": special,
        "special_tokens": {"bos_token": "<s>"},
        "n_layers": 2,
        "d_model": 8,
        "rope_type": 2,
        "chat_template": "{{ x }}",
    }
    quantised = [
        Row(name.encode(), dtype.code, (2, 256), bytes(dtype.size_bytes((2, 256))))
        for name, dtype in sorted(DTYPES.items())
    ]
    odd = [Row(b"empty", 0, (0, 3), b""), Row(b"scalar", 3, (), bytes(8))]
    return [
        GOLDEN,
        version_1(),
        build(named, [f32("a", 1.0, 2.0), f32("b", *range(32))], footer=False),
        build(every_key, quantised),
        build({"model_type": "x"}, odd),
        build({"sharding": {"shard_count": 3, "shard_index": 1, "total_size": 0}}, flags=0x410),
        _model(LLAMA, {}),
        _model(wide, embed_tokenizer(tokenizer)),
        _model(QWEN2, stamped, with_hashes=True),
        _model(replace(UNTIED, model_type="mistral"), {}),
        _model(replace(LLAMA, model_type="qwen3", rope_scaling=_SCALING, num_hidden_layers=1), {}),
    ]


def _model(architecture: Architecture, free: dict[str, Any], *, with_hashes: bool = False) -> bytes:
    made = model_file(architecture, free)
    if with_hashes:
        made.set_free(hashes(made.arrays))
    with TemporaryDirectory() as directory:
        return made.write(Path(directory) / "model.apr").read_bytes()


@dataclass(frozen=True)
class _Parts:
    """A seed taken apart; `front` is where its tensors begin."""

    data: bytes
    front: int
    metadata: dict[str, Any]
    rows: tuple[Row, ...]


def mutator(seeds: Sequence[bytes]) -> Mutator:
    parts = [_taken_apart(seed) for seed in seeds if seed.startswith(b"APR\0")]
    words = (*json_damage.texts_and_keys([each.metadata for each in parts]), "", "n_embd")

    def mutated(random: Random) -> bytes:
        if random.random() < 0.02:
            return byte_damage.damaged(random, random.choice(seeds), GOLDEN)
        chosen = random.choice(parts)
        kind = random.random()
        data = chosen.data
        if kind < 0.75:
            data = _built(random, chosen, random.choice(parts), words)
        if kind > 0.65:
            for _ in range(random.choice((1, 1, 2, 4))):
                data = _byte_damaged(random, data, random.choice(seeds), chosen.front)
        # Otherwise the checksums hide everything behind them.
        is_sealed = random.random() < 0.6
        return sealed(data[:-4]) if is_sealed and len(data) > _HEADER_BYTES + 4 else data

    return mutated


def _built(random: Random, chosen: _Parts, other: _Parts, words: Sequence[str]) -> bytes:
    metadata, rows = json_damage.spelled(chosen.metadata), list(chosen.rows)
    kind = random.random()
    if kind < 0.55 or not rows:
        metadata = json_damage.damaged(random, chosen.metadata, words)
    if kind > 0.5 and rows:
        rows = _other_rows(random, rows, other.rows)
    if random.random() < 0.03:
        metadata = json_damage.spelled(other.metadata)
    count = byte_damage.number(random, 4, (len(rows),)) if random.random() < 0.03 else None
    flags = random.getrandbits(16) if random.random() < 0.05 else 0x400
    has_footer = random.random() > 0.05
    return build(metadata.encode(), rows, num_tensors=count, flags=flags, footer=has_footer)


def _other_rows(random: Random, rows: list[Row], others: Sequence[Row]) -> list[Row]:
    for _ in range(random.choice((1, 1, 1, 2))):
        at = random.randrange(len(rows))
        kind = random.randrange(10)
        if kind == 0:
            rows.insert(random.randrange(len(rows)), rows[at])
        elif kind == 1:
            rows[at] = replace(random.choice(others or rows), name=rows[at].name)
        else:
            rows[at] = _other_row(random, rows[at])
    if random.random() < 0.1:
        del rows[random.randrange(len(rows))]
    # Readers want them sorted; that must not be all they ever say.
    return sorted(rows, key=lambda row: row.name) if random.random() < 0.8 else rows


def _other_row(random: Random, row: Row) -> Row:
    """A row with one of its fields changed."""
    kind, size = random.randrange(7), len(row.data)
    if kind == 0:
        return replace(row, name=byte_damage.damaged(random, row.name, b"model.lm_head.weight"))
    if kind == 1:
        return replace(row, code=random.choice((0, 1, 2, 3, 8, 9, 12, 14, 30, 128, 129, 255)))
    if kind == 2 and row.shape:
        shape = list(row.shape)
        which = random.randrange(len(shape))
        shape[which] = byte_damage.number(random, 8, (shape[which], size))
        return replace(row, shape=shape)
    if kind == 3:
        extra = [random.choice((0, 1, 1 << 63))] * random.randrange(1, 10)
        return replace(row, shape=[*row.shape, *extra])
    if kind == 4:
        return replace(row, offset=byte_damage.number(random, 8, (0, 64, size)))
    if kind == 5:
        return replace(row, size=byte_damage.number(random, 8, (size,)))
    return replace(row, data=byte_damage.damaged(random, row.data, GOLDEN))


def _byte_damaged(random: Random, data: bytes, other: bytes, front: int) -> bytes:
    if random.random() < 0.4 and len(data) > _HEADER_BYTES:
        at, form = random.choice(list(HEADER_FIELDS.values()))
        return byte_damage.with_number(random, data, at, min(8, struct.calcsize(form)))
    return byte_damage.damaged(random, data, other, front=front)


def _taken_apart(seed: bytes) -> _Parts:
    def field(name: str) -> Any:
        at, form = HEADER_FIELDS[name]
        return struct.unpack_from(form, seed, at)[0]

    metadata_at, data_at = field("metadata_offset"), field("data_offset")
    metadata = json.loads(seed[metadata_at : metadata_at + field("metadata_bytes")])
    rows: list[Row] = []
    at = field("index_offset")
    for _ in range(field("num_tensors")):
        (length,) = struct.unpack_from("<H", seed, at)
        name, code, rank = struct.unpack_from(f"<{length}sBB", seed, at + 2)
        *shape, offset, size = struct.unpack_from(f"<{rank}QQQ", seed, at + length + 4)
        at += length + 4 + 8 * rank + 16
        start = data_at + offset
        rows.append(Row(name, code, tuple(shape), seed[start : start + size]))
    return _Parts(seed, data_at, metadata, tuple(rows))
