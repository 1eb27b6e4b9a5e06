import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.container_models import model_file, source

from apr.container import layout
from apr.container.named_keys import Metadata
from apr.container.reader import Container
from apr.container.writer import TensorSource, write_container
from apr.errors import IoFailed, Refusal
from apr.progress import Progress

ONE = TensorSource("one", "f32", (1,), lambda: [memoryview(struct.pack("<f", 1.0))])


def tensor(**changes: Any) -> TensorSource:
    return TensorSource(**({"name": "t", "dtype": "f32", "shape": (2,), "chunks": eight} | changes))


def eight() -> list[memoryview]:
    return [memoryview(bytes(8))]


@pytest.mark.parametrize(
    ("bad", "id"),
    [
        (tensor(name="n" * 257), "container.tensor-name"),
        (tensor(name="\N{SNOWMAN}" * 86), "container.tensor-name"),
        (tensor(name="\ud800"), "container.tensor-name"),
        (tensor(name="one"), "container.tensor-repeated"),
        (tensor(shape=(1,) * 9), "container.tensor-shape"),
        (tensor(shape=(-1,)), "container.tensor-shape"),
        (tensor(dtype="i32"), "container.tensor-dtype"),
        (tensor(dtype="float32"), "container.tensor-dtype"),
        (tensor(shape=(3,)), "container.tensor-size"),
        (tensor(shape=(0,)), "container.tensor-size"),
        (tensor(chunks=lambda: [memoryview(bytes(16))[::2]]), "container.tensor-size"),
        (tensor(chunks=lambda: [memoryview(bytes(4))]), "container.tensor-size"),
        (tensor(chunks=lambda: [memoryview(bytes(4))] * 3), "container.tensor-size"),
        (tensor(chunks=list), "container.tensor-size"),
        (tensor(dtype="q4_k", shape=(2, 250)), "container.tensor-shape"),
        (tensor(dtype="q6_k", shape=()), "container.tensor-shape"),
    ],
)
def test_what_is_never_written(tmp_path: Path, bad: TensorSource, id: str) -> None:
    with pytest.raises(Refusal) as caught:
        write_container(tmp_path / "x.apr", metadata=Metadata(), tensors=[ONE, bad])
    assert (caught.value.id, caught.value.exit_code) == (id, 5)
    assert list(tmp_path.iterdir()) == []


def test_the_harmless_twins(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    tensors = [
        ONE,
        tensor(name="n" * 256),
        tensor(name="\N{SNOWMAN}" * 85),
        tensor(name="", shape=(1, 2) + (1,) * 6),
        tensor(name="q", dtype="q4_k", shape=(1, 256), chunks=lambda: [memoryview(bytes(144))]),
    ]
    write_container(path, metadata=Metadata(), tensors=tensors)
    with Container.open(path) as container:
        assert set(container.tensors) == {t.name for t in tensors}


def test_flags_follow_from_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    quantised = tensor(dtype="q4", shape=(32,), chunks=lambda: [memoryview(bytes(18))])
    for metadata, tensors, flags in (
        (Metadata(), [ONE], layout.ROW_MAJOR),
        (Metadata(), [quantised], layout.ROW_MAJOR | layout.QUANTIZED),
        (
            Metadata().with_free({"tokenizer.vocabulary": ["a"]}),
            [ONE],
            layout.ROW_MAJOR | layout.HAS_VOCAB,
        ),
    ):
        write_container(path, metadata=metadata, tensors=tensors, overwrite=True)
        with Container.open(path) as container:
            assert container.sections.header.flags == flags


def test_nothing_is_overwritten_without_consent(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_text("precious")
    with pytest.raises(Refusal) as caught:
        write_container(path, metadata=Metadata(), tensors=[ONE])
    assert caught.value.id == "files.exists"
    assert path.read_text() == "precious"
    write_container(path, metadata=Metadata(), tensors=[ONE], overwrite=True)
    assert path.read_bytes().startswith(b"APR\0")


def failing(error: BaseException) -> Callable[[], Iterable[memoryview]]:
    def chunks() -> Iterable[memoryview]:
        raise error

    return chunks


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_stops_half_way_leaves_the_old_file(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "x.apr"
    write_container(path, metadata=Metadata(), tensors=[ONE])
    before = path.read_bytes()
    tensors = [tensor(name="a"), tensor(name="b", chunks=failing(error))]
    with pytest.raises((IoFailed, KeyboardInterrupt)):
        write_container(path, metadata=Metadata(), tensors=tensors, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_one_tensor_in_memory_at_a_time(tmp_path: Path) -> None:
    alive: list[str] = []
    most = 0

    class Tracked(np.ndarray[Any, Any]):
        def __del__(self) -> None:
            alive.pop()

    def chunks(name: str) -> Callable[[], Iterable[memoryview]]:
        def make() -> Iterable[memoryview]:
            nonlocal most
            alive.append(name)
            most = max(most, len(alive))
            yield memoryview(np.zeros(1000, "<f4").view(Tracked))

        return make

    tensors = [TensorSource(f"t{n}", "f32", (1000,), chunks(f"t{n}")) for n in range(5)]
    write_container(tmp_path / "x.apr", metadata=Metadata(), tensors=tensors)
    assert most == 1
    assert alive == []


def test_a_tensor_may_come_in_pieces_of_any_size(tmp_path: Path) -> None:
    whole, pieces = tmp_path / "whole.apr", tmp_path / "pieces.apr"
    data = bytes(range(80))
    cut = [memoryview(data)[:3], memoryview(b""), memoryview(data)[3:70], memoryview(data)[70:]]
    for path, chunks in ((whole, [memoryview(data)]), (pieces, cut)):
        source = TensorSource("t", "f32", (20,), lambda chunks=chunks: chunks)
        write_container(path, metadata=Metadata(), tensors=[source])
    assert whole.read_bytes() == pieces.read_bytes()


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    reports: list[Progress] = []
    file = model_file()
    write_container(
        path,
        metadata=file.metadata,
        tensors=[source(name, array) for name, array in file.arrays.items()],
        progress=reports.append,
    )
    written = [report for report in reports if report.activity.startswith("writing")]
    assert written[-1].done == written[-1].total == path.stat().st_size - 4
    assert reports[-1].activity.startswith("reading")


def test_the_file_follows_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    write_container(path, metadata=Metadata(), tensors=[ONE])
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
