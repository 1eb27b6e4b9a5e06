"""The writer: byte for byte what gguf-py writes, read by gguf-py, whole or not at all."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from tests import gguf_models
from tests.gguf_models import GgufModel, source_tensor, source_tensors

from apr.convert.gguf import values
from apr.convert.gguf.layout import ValueType
from apr.convert.gguf.reader import read_gguf
from apr.convert.gguf.values import Field
from apr.convert.gguf.writer import write_gguf
from apr.convert.source import SourceTensor
from apr.errors import Refusal

FIELDS = [
    values.text("general.architecture", "llama"),
    values.uint32("a.count", 7),
    values.float32("a.epsilon", 1e-6),
    values.float64("a.exact", 0.1),
    values.boolean("a.yes", True),
    values.texts("a.tokens", ["<unk>", "caf\u00e9"]),
    values.int32s("a.types", [1, 3]),
    values.float32s("a.scores", [0.0, -1e9]),
]
ARRAYS = {
    "one": np.arange(5, dtype=np.float32),
    "two": np.arange(12, dtype=np.float16).reshape(4, 3),
    "three": np.arange(8, dtype=np.float32).reshape(2, 2, 2),
}


def by_gguf_py(path: Path) -> bytes:
    made = GgufModel(slug="llama", arrays=dict(ARRAYS))
    for field in FIELDS[1:]:
        value = field.value.tolist() if isinstance(field.value, np.ndarray) else field.value
        made.set(field.key, value, field.type.name)
    return made.write(path).read_bytes()


def test_the_bytes_are_gguf_pys(tmp_path: Path) -> None:
    path = tmp_path / "ours.gguf"
    write_gguf(path, fields=FIELDS, tensors=list(source_tensors(ARRAYS).values()))
    assert path.read_bytes() == by_gguf_py(tmp_path / "theirs.gguf")


def test_gguf_py_reads_the_blocks_we_write(tmp_path: Path) -> None:
    path = tmp_path / "blocks.gguf"
    stored = np.random.default_rng(0).integers(0, 256, size=(6, 144), dtype=np.uint8)
    tensor = SourceTensor("q", "q4_k", (6, 256), lambda: [stored.data.cast("B")])
    write_gguf(path, fields=FIELDS, tensors=[tensor, source_tensor("v", ARRAYS["one"])])
    read = gguf.GGUFReader(path)
    assert [(t.name, t.tensor_type.name, t.shape.tolist()) for t in read.tensors] == [
        ("q", "Q4_K", [256, 6]),
        ("v", "F32", [5]),
    ]
    assert np.array_equal(read.tensors[0].data, stored)
    assert np.array_equal(read.tensors[1].data, ARRAYS["one"])
    assert [read.fields[f.key].contents() for f in FIELDS if f.key == "a.tokens"] == [
        ["<unk>", "caf\u00e9"]
    ]


def test_what_was_written_is_handed_back_and_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "ours.gguf"
    file = write_gguf(path, fields=FIELDS, tensors=[source_tensor("one", ARRAYS["one"])])
    assert file == replace(read_gguf(path), fields=file.fields)
    assert b"".join(file.chunks("one")()) == ARRAYS["one"].tobytes()


def test_nothing_is_written_over_without_consent(tmp_path: Path) -> None:
    path = tmp_path / "ours.gguf"
    path.write_text("mine")
    with pytest.raises(Refusal, match=r"files\.exists"):
        write_gguf(path, fields=FIELDS, tensors=[])
    assert path.read_text() == "mine"
    write_gguf(path, fields=FIELDS, tensors=[], overwrite=True)
    assert read_gguf(path).fields["a.count"].value == 7


def f32(name: str = "t", *, shape: tuple[int, ...] = (2,), data: bytes = bytes(8)) -> SourceTensor:
    return SourceTensor(name, "f32", shape, lambda: [memoryview(data)])


@pytest.mark.parametrize(
    ("id", "fields", "tensors"),
    [
        ("gguf.field-value", [values.uint32("a", 1 << 32)], []),
        ("gguf.field-value", [values.uint32("a", -1)], []),
        ("gguf.field-value", [values.text("a", "\ud800")], []),
        ("gguf.field-value", [values.texts("a", ["b", "\udfff"])], []),
        ("gguf.field-value", [Field("a", ValueType.BOOL, 1)], []),
        ("gguf.field-value", [Field("a", ValueType.ARRAY, [1, 2], ValueType.INT32)], []),
        ("gguf.tensor-not-writable", [values.uint32("a", 1), values.uint32("a", 1)], []),
        ("gguf.tensor-not-writable", [], [f32(), f32()]),
        ("gguf.tensor-not-writable", [], [f32("n" * 64)]),
        ("gguf.tensor-not-writable", [], [replace(f32(), dtype="q8")]),
        ("gguf.tensor-not-writable", [], [replace(f32(), dtype="q4_k", shape=(2, 128))]),
        ("gguf.tensor-not-writable", [], [f32(shape=())]),
        ("gguf.tensor-not-writable", [], [f32(shape=(0,))]),
        ("gguf.tensor-not-writable", [], [f32(shape=(1, 1, 1, 1, 1))]),
        ("gguf.tensor-size", [], [f32(data=bytes(4))]),
        ("gguf.tensor-size", [], [f32(data=bytes(12))]),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_left(
    tmp_path: Path, id: str, fields: list[Field], tensors: list[SourceTensor]
) -> None:
    with pytest.raises(Refusal) as caught:
        write_gguf(tmp_path / "out.gguf", fields=fields, tensors=tensors)
    assert caught.value.id == id
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_change_on_the_way_to_the_disk_are_noticed(tmp_path: Path) -> None:
    """A planted fault: while the second tensor is written, the first one changes on disk."""

    def meddle() -> list[memoryview]:
        (staged,) = tmp_path.iterdir()
        with staged.open("r+b") as file:
            file.seek(1 << 20)
            file.write(b"\1")
        return [memoryview(bytes(8))]

    first = f32("first", shape=(1 << 20,), data=bytes(1 << 22))
    for second, is_sound in ((f32("second"), True), (replace(f32(), chunks=meddle), False)):
        if is_sound:
            write_gguf(tmp_path / "out.gguf", fields=FIELDS, tensors=[first, second])
            (tmp_path / "out.gguf").unlink()
            continue
        with pytest.raises(Refusal, match=r"gguf\.read-back"):
            write_gguf(tmp_path / "out.gguf", fields=FIELDS, tensors=[first, second])
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    import tracemalloc

    piece = memoryview(bytes(1 << 20))
    tensor = SourceTensor("large", "f32", (64, 1 << 18), lambda: (piece for _ in range(64)))
    tracemalloc.start()
    try:
        file = write_gguf(tmp_path / "large.gguf", fields=FIELDS, tensors=[tensor])
        assert sum(len(chunk) for chunk in file.chunks("large")()) == 64 << 20
        assert tracemalloc.get_traced_memory()[1] < (24 << 20)
    finally:
        tracemalloc.stop()


def test_the_maker_of_test_models_is_read_by_gguf_py(tmp_path: Path) -> None:
    path = gguf_models.model().write(tmp_path / "model.gguf")
    assert len(gguf.GGUFReader(path).tensors) == len(gguf_models.weights(gguf_models.LLAMA))
