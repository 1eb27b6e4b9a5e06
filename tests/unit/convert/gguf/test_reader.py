"""The strict reader: what gguf-py writes is read as it is, and every false claim is refused."""

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tests import gguf_models
from tests.gguf_models import GgufModel

from apr.convert.gguf.layout import TENSOR_TYPES, ValueType
from apr.convert.gguf.reader import read_gguf
from apr.convert.source import CHUNK_BYTES
from apr.errors import Refusal

STRING, ARRAY, U32, U64, BOOL = 8, 9, 4, 10, 7


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def field(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(
    name: str = "t",
    *,
    dims: tuple[int, ...] = (4,),
    kind: int = 0,
    offset: int = 0,
    num_dims: int | None = None,
) -> bytes:
    count = len(dims) if num_dims is None else num_dims
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", count, *dims, kind, offset)


def file(
    *,
    fields: tuple[bytes, ...] = (),
    infos: tuple[bytes, ...] = (),
    data: bytes = b"",
    num_fields: int | None = None,
    num_tensors: int | None = None,
    version: int = 3,
) -> bytes:
    head = struct.pack(
        "<4sIQQ",
        b"GGUF",
        version,
        len(infos) if num_tensors is None else num_tensors,
        len(fields) if num_fields is None else num_fields,
    )
    front = head + b"".join(fields) + b"".join(infos)
    return front + bytes(-len(front) % 32) + data


def refused(tmp_path: Path, data: bytes) -> Refusal:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(data)
    with pytest.raises(Refusal) as caught:
        read_gguf(path)
    return caught.value


def test_what_gguf_py_writes_is_read_as_it_is(tmp_path: Path) -> None:
    numbers = {
        "UINT8": 200, "INT8": -3, "UINT16": 60_000, "INT16": -300, "UINT32": 1 << 31,
        "INT32": -70_000, "FLOAT32": 0.5, "BOOL": True, "UINT64": 1 << 60, "INT64": -(1 << 60),
        "FLOAT64": 1e-300, "STRING": "caf\u00e9",
    }  # fmt: skip
    made = GgufModel(slug="llama")
    for kind, value in numbers.items():
        made.set(f"a.{kind}", value, kind)
    made.set("a.texts", ["one", "two", ""], "ARRAY").set("a.ints", [1, -2], "ARRAY")
    made.set("a.floats", [0.25], "ARRAY").set("a.bools", [True, False], "ARRAY")
    made.set("a.nested", [[1, 2], [3]], "ARRAY")
    half = np.arange(6, dtype=np.float16).reshape(2, 3)
    single = np.arange(4, dtype=np.float32)
    blocks = np.arange(4 * 34, dtype=np.uint8).reshape(4, 34)
    made.arrays = {"half": half, "single": single, "blocks": blocks}
    made.types = {"blocks": gguf.GGMLQuantizationType.Q8_0}
    read = read_gguf(made.write(tmp_path / "all.gguf"))

    assert {kind: read.fields[f"a.{kind}"].value for kind in numbers} == numbers
    assert {kind: read.fields[f"a.{kind}"].type.name for kind in numbers} == {k: k for k in numbers}
    assert read.fields["a.texts"].value == ["one", "two", ""]
    assert np.asarray(read.fields["a.ints"].value).tolist() == [1, -2]
    assert np.asarray(read.fields["a.floats"].value).tolist() == [0.25]
    assert np.asarray(read.fields["a.bools"].value).tolist() == [1, 0]
    nested: Any = read.fields["a.nested"].value
    assert [part.tolist() for part in nested] == [[1, 2], [3]]
    assert [(each.name, each.type.name, each.shape) for each in read.tensors.values()] == [
        ("half", "F16", (2, 3)),
        ("single", "F32", (4,)),
        ("blocks", "Q8_0", (4, 32)),
    ]
    for name, array in made.arrays.items():
        assert b"".join(read.chunks(name)()) == array.tobytes()


def test_the_table_of_types_is_ggmls() -> None:
    sizes = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert {c: (t.block_elements, t.block_bytes) for c, t in TENSOR_TYPES.items()} == sizes
    names = {int(kind): kind.name for kind in gguf.GGMLQuantizationType}
    assert {code: kind.name for code, kind in TENSOR_TYPES.items()} == names
    assert {kind.name: int(kind) for kind in ValueType} == {
        kind.name: int(kind) for kind in gguf.GGUFValueType
    }


def test_a_tensor_comes_in_pieces_of_whole_blocks(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, size=(70_000, 144), dtype=np.uint8)
    made = GgufModel(slug="llama", arrays={"blocks": blocks})
    made.types = {"blocks": gguf.GGMLQuantizationType.Q4_K}
    chunks = read_gguf(made.write(tmp_path / "large.gguf")).chunks("blocks")
    sizes = [len(chunk) for chunk in chunks()]
    assert len(sizes) == 2
    assert max(sizes) <= CHUNK_BYTES
    assert not any(size % 144 for size in sizes)
    assert b"".join(chunks()) == blocks.tobytes() == b"".join(chunks())


def test_version_2_and_other_alignments_are_read(tmp_path: Path) -> None:
    aligned = field("general.alignment", U32, struct.pack("<I", 64))
    infos = (info("a", offset=0), info("b", offset=64))
    front = file(fields=(aligned,), infos=infos, version=2)
    data = front + bytes(-len(front) % 64) + bytes(range(16)) + bytes(48) + bytes(range(16))
    path = tmp_path / "two.gguf"
    path.write_bytes(data)
    read = read_gguf(path)
    assert (read.version, read.alignment) == (2, 64)
    assert b"".join(read.chunks("b")()) == bytes(range(16))


FALSE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "gguf.not-gguf"),
    "other magic": (lambda: b"GGML" + file()[4:], "gguf.not-gguf"),
    "cut header": (lambda: file()[:20], "gguf.truncated"),
    "version 1": (lambda: file(version=1), "gguf.version"),
    "version 4": (lambda: file(version=4), "gguf.version"),
    "big-endian": (lambda: file(version=3 << 24), "gguf.big-endian"),
    "2**60 fields": (lambda: file(num_fields=1 << 60), "gguf.count"),
    "2**60 tensors": (lambda: file(num_tensors=1 << 60), "gguf.count"),
    "one field too many": (lambda: file(num_fields=1), "gguf.count"),
    "key of 2**60 bytes": (
        lambda: file(fields=(struct.pack("<Q", 1 << 60) + bytes(40),)),
        "gguf.truncated",
    ),
    "empty key": (lambda: file(fields=(field("", U32, bytes(4)),)), "gguf.key"),
    "zero byte in key": (lambda: file(fields=(field("a\0b", U32, bytes(4)),)), "gguf.key"),
    "key twice": (
        lambda: file(fields=(field("a", U32, bytes(4)), field("a", U32, bytes(4)))),
        "gguf.key-repeated",
    ),
    "key no UTF-8": (lambda: file(fields=(field(b"\xff", U32, bytes(4)),)), "gguf.text-damaged"),
    "unknown value type": (lambda: file(fields=(field("a", 13, bytes(8)),)), "gguf.value-type"),
    "bool of 2": (lambda: file(fields=(field("a", BOOL, b"\2"),)), "gguf.bool-damaged"),
    "2**60 strings": (
        lambda: file(fields=(field("a", ARRAY, struct.pack("<IQ", STRING, 1 << 60)),), data=b"x"),
        "gguf.count",
    ),
    "2**60 numbers": (
        lambda: file(fields=(field("a", ARRAY, struct.pack("<IQ", U64, 1 << 60)),), data=b"x"),
        "gguf.truncated",
    ),
    "2**60 arrays": (
        lambda: file(fields=(field("a", ARRAY, struct.pack("<IQ", ARRAY, 1 << 60)),), data=b"x"),
        "gguf.count",
    ),
    "arrays in arrays in arrays": (
        lambda: file(fields=(field("a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9 + bytes(99)),)),
        "gguf.nesting",
    ),
    "array of unknown type": (
        lambda: file(fields=(field("a", ARRAY, struct.pack("<IQ", 77, 1)),), data=bytes(64)),
        "gguf.value-type",
    ),
    "alignment 3": (
        lambda: file(fields=(field("general.alignment", U32, struct.pack("<I", 3)),)),
        "gguf.alignment",
    ),
    "alignment 0": (
        lambda: file(fields=(field("general.alignment", U32, bytes(4)),)),
        "gguf.alignment",
    ),
    "alignment 2**31": (
        lambda: file(fields=(field("general.alignment", U32, struct.pack("<I", 1 << 31)),)),
        "gguf.alignment",
    ),
    "alignment as text": (
        lambda: file(fields=(field("general.alignment", STRING, text("32")),)),
        "gguf.alignment",
    ),
    "no name": (lambda: file(infos=(info(""),), data=bytes(16)), "gguf.tensor-name"),
    "long name": (lambda: file(infos=(info("n" * 64),), data=bytes(16)), "gguf.tensor-name"),
    "name twice": (
        lambda: file(infos=(info("a"), info("a", offset=32)), data=bytes(64)),
        "gguf.tensor-repeated",
    ),
    "no dimensions": (lambda: file(infos=(info(dims=()),), data=bytes(16)), "gguf.tensor-shape"),
    "5 dimensions": (
        lambda: file(infos=(info(dims=(1, 1, 1, 1, 1)),), data=bytes(16)),
        "gguf.tensor-shape",
    ),
    "2**31 dimensions": (
        lambda: file(infos=(info(num_dims=1 << 31),), data=bytes(16)),
        "gguf.tensor-shape",
    ),
    "empty dimension": (
        lambda: file(infos=(info(dims=(0,)),), data=bytes(16)),
        "gguf.tensor-shape",
    ),
    "dimensions that overflow": (
        lambda: file(infos=(info(dims=(1 << 62, 1 << 62)),), data=bytes(16)),
        "gguf.tensor-shape",
    ),
    "Q4_K rows of 128": (
        lambda: file(infos=(info(dims=(128, 2), kind=12),), data=bytes(144)),
        "gguf.tensor-shape",
    ),
    "unknown data type": (
        lambda: file(infos=(info(kind=99),), data=bytes(16)),
        "gguf.tensor-type-unknown",
    ),
    "offset of 8": (lambda: file(infos=(info(offset=8),), data=bytes(64)), "gguf.tensor-unaligned"),
    "beyond the end": (lambda: file(infos=(info(),), data=bytes(15)), "gguf.tensor-out-of-bounds"),
    "offset of 2**63": (
        lambda: file(infos=(info(offset=1 << 63),), data=bytes(64)),
        "gguf.tensor-out-of-bounds",
    ),
    "two in one place": (
        lambda: file(infos=(info("a"), info("b")), data=bytes(64)),
        "gguf.tensors-overlap",
    ),
    "one inside another": (
        lambda: file(infos=(info("a", dims=(16,)), info("b", offset=32)), data=bytes(64)),
        "gguf.tensors-overlap",
    ),
}


@pytest.mark.parametrize("name", FALSE)
def test_a_false_claim_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make, id = FALSE[name]
    assert refused(tmp_path, make()).id == id


def test_the_same_files_without_the_fault_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sound.gguf"
    sound = file(
        fields=(
            field("a", U32, bytes(4)),
            field("b", BOOL, b"\1"),
            field("c", ARRAY, struct.pack("<IQ", STRING, 1) + text("x")),
            field("d", ARRAY, struct.pack("<IQ", ARRAY, 1) * 2 + struct.pack("<IQ", U32, 0)),
            field("general.alignment", U32, struct.pack("<I", 32)),
        ),
        infos=(info("a", dims=(256, 2), kind=12), info("n" * 63, offset=288)),
        data=bytes(288 + 16),
    )
    path.write_bytes(sound)
    assert list(read_gguf(path).tensors) == ["a", "n" * 63]


@pytest.mark.parametrize("name", [name for name in FALSE if "2**" in name])
def test_nothing_is_allocated_from_a_claim(tmp_path: Path, name: str) -> None:
    data = FALSE[name][0]()
    refused(tmp_path, data)  # imports and caches
    tracemalloc.start()
    try:
        refused(tmp_path, data)
        assert tracemalloc.get_traced_memory()[1] < (4 << 20)
    finally:
        tracemalloc.stop()


def test_every_cut_is_refused(tmp_path: Path) -> None:
    whole = gguf_models.model().write(tmp_path / "whole.gguf").read_bytes()
    last = len(whole) - 32  # the last tensor may go without its padding
    for length in [*range(0, 3000, 41), *range(3000, last, 4001), last]:
        assert refused(tmp_path, whole[:length]).exit_code == 4


def test_a_file_written_again_is_not_read_on(tmp_path: Path) -> None:
    path = gguf_models.model().write(tmp_path / "model.gguf")
    chunks = read_gguf(path).chunks("token_embd.weight")
    assert b"".join(chunks())
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(Refusal, match=r"gguf\.file-changed"):
        list(chunks())


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"gguf\.not-a-file"):
        read_gguf(tmp_path)
    with pytest.raises(Refusal, match=r"files\.not-found"):
        read_gguf(tmp_path / "nowhere.gguf")
