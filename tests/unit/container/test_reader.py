from pathlib import Path

import numpy as np
import pytest
from tests.container_files import GOLDEN, Row, build
from tests.container_models import hashes, model_file

from apr.container.reader import Container
from apr.errors import Refusal
from apr.progress import Progress


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "golden.apr"
    path.write_bytes(GOLDEN)
    return path


def test_arrays_are_views_that_cannot_be_written(golden: Path) -> None:
    with Container.open(golden) as container:
        array = container.array("b.weight")
        assert not array.flags.owndata
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1.0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_arrays_outlive_the_container(golden: Path) -> None:
    with Container.open(golden) as container:
        array = container.array("a.bias")
    assert array.tolist() == [0.5, -1.0, 2.0, 65504.0]
    with pytest.raises(ValueError, match="closed"):
        container.array("a.bias")


def test_a_tensor_that_is_not_there(golden: Path) -> None:
    with Container.open(golden) as container, pytest.raises(Refusal) as caught:
        container.array("c")
    assert caught.value.id == "container.tensor-missing"
    assert caught.value.upstream_id == "FALSIFY-APR-PRETRAIN-INIT-007"


@pytest.mark.parametrize(
    ("code", "dtype", "numpy_dtype", "size_bytes"),
    [
        (0, "f32", "<f4", 32),
        (1, "f16", "<f2", 16),
        (30, "bf16", "<u2", 16),
        (3, "f64", "<f8", 64),
        (4, "i32", "<i4", 32),
        (5, "i64", "<i8", 64),
        (6, "i8", "i1", 8),
        (7, "u8", "u1", 8),
    ],
)
def test_plain_types(
    tmp_path: Path, code: int, dtype: str, numpy_dtype: str, size_bytes: int
) -> None:
    data = bytes(range(size_bytes))
    path = tmp_path / "x.apr"
    path.write_bytes(build({}, [Row(b"t", code, (2, 4), data)]))
    with Container.open(path) as container:
        assert container.tensors["t"].dtype == dtype
        array = container.array("t")
        assert (array.dtype.str, array.shape) == (np.dtype(numpy_dtype).str, (2, 4))
        assert array.tobytes() == bytes(container.raw("t")) == data


@pytest.mark.parametrize(
    ("code", "dtype", "shape", "size_bytes"),
    [
        (128, "q4", (33,), 36),
        (129, "q8", (3,), 7),
        (12, "q4_k", (2, 256), 288),
        (14, "q6_k", (256,), 210),
    ],
)
def test_quantised_types_come_as_bytes(
    tmp_path: Path, code: int, dtype: str, shape: tuple[int, ...], size_bytes: int
) -> None:
    data = bytes(number % 251 for number in range(size_bytes))
    path = tmp_path / "x.apr"
    path.write_bytes(build({}, [Row(b"t", code, shape, data)]))
    with Container.open(path) as container:
        entry = container.tensors["t"]
        assert (entry.dtype, entry.shape, entry.size_bytes) == (dtype, shape, size_bytes)
        assert container.array("t").dtype == np.uint8
        assert container.array("t").tobytes() == data


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    rows = [Row(b"none", 0, (3, 0, 2), b""), Row(b"one", 0, (), b"\0\0\x80\x3f")]
    path.write_bytes(build({}, rows))
    with Container.open(path) as container:
        assert container.array("none").shape == (3, 0, 2)
        assert container.array("one").shape == ()
        assert container.array("one") == 1.0
        assert container.verify().num_tensors == 2


def test_empty_tensors_have_a_hash(tmp_path: Path) -> None:
    empty = np.zeros((0, 2), "<f4")
    path = tmp_path / "x.apr"
    path.write_bytes(build(hashes({"none": empty}), [Row(b"none", 0, (0, 2), b"")]))
    with Container.open(path) as container:
        assert container.verify().num_tensors_hashed == 1


def test_verifying_reports_every_byte_once(tmp_path: Path) -> None:
    path = model_file().write(tmp_path / "x.apr")
    reports: list[Progress] = []
    with Container.open(path) as container:
        integrity = container.verify(progress=reports.append)
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert done[-1] == reports[-1].total == path.stat().st_size - 4
    assert integrity.size_bytes == path.stat().st_size


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = model_file().write(tmp_path / "x.apr")
    with Container.open(path) as container:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 10)
        with pytest.raises(Refusal) as caught:
            container.verify()
    assert caught.value.id == "container.truncated"


def test_tensors_larger_than_one_chunk(tmp_path: Path) -> None:
    # Two chunks of reading, and a block size that does not divide the chunk.
    data = np.arange(9 << 20, dtype=np.uint8).tobytes()
    blocks = bytes(18 * ((9 << 20) // 18))
    rows = [Row(b"a", 7, (len(data),), data), Row(b"b", 128, (len(blocks) // 18 * 32,), blocks)]
    path = tmp_path / "x.apr"
    path.write_bytes(build({}, rows))
    with Container.open(path) as container:
        assert container.verify().num_tensors == 2
        assert container.scan(with_values=True).num_non_finite == {}
