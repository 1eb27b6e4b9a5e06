from pathlib import Path

import pytest
from tests.container_files import GOLDEN

from apr.container.layout import (
    DTYPES,
    Header,
    TensorEntry,
    dtype_of_code,
    flag_names,
    header_checksum,
    padded,
    padding_after,
    stored_header_checksum,
)


def test_header_of_the_golden_file() -> None:
    header = Header.decode(GOLDEN[:64])
    assert header == Header(
        flags=0x0400,
        num_tensors=2,
        metadata_offset=64,
        metadata_bytes=109,
        index_offset=192,
        data_offset=320,
    )
    assert header.encode() == GOLDEN[:64]


def test_reserved_bytes_are_kept_and_covered() -> None:
    header = Header(0x400, 0, 64, 2, 128, 128, reserved=bytes(range(20)))
    data = header.encode()
    assert Header.decode(data) == header
    assert stored_header_checksum(data) == header_checksum(data)
    assert header_checksum(data[:50] + b"\xff" + data[51:]) != header_checksum(data)


def test_rows_of_the_golden_file() -> None:
    rows = [
        TensorEntry("a.bias", "f16", (4,), 0, 8),
        TensorEntry("b.weight", "f32", (2, 3), 64, 24),
    ]
    assert b"".join(row.encode() for row in rows) == GOLDEN[192:270]


def test_a_row_takes_twenty_bytes_and_its_name_and_shape() -> None:
    for name, shape in (("", ()), ("e\N{COMBINING ACUTE ACCENT}", (1, 2, 3))):
        row = TensorEntry(name, "f32", shape, 0, 0).encode()
        assert len(row) == 20 + len(name.encode()) + 8 * len(shape)


@pytest.mark.parametrize(
    ("dtype", "shape", "size_bytes"),
    [
        ("f32", (2, 3), 24),
        ("f32", (), 4),
        ("f32", (0, 7), 0),
        ("f16", (5,), 10),
        ("bf16", (5,), 10),
        ("f64", (3,), 24),
        ("i32", (3,), 12),
        ("i64", (3,), 24),
        ("i8", (3,), 3),
        ("u8", (3,), 3),
        ("q8", (3, 4), 16),
        ("q8", (), 5),
        ("q8", (0,), 0),
        # Blocks of the flattened tensor: 3 x 20 = 60 elements are two.
        ("q4", (3, 20), 36),
        ("q4", (32,), 18),
        ("q4", (33,), 36),
        ("q4", (0,), 0),
        # Blocks of every row: 3 rows of one.
        ("q4_k", (3, 20), 432),
        ("q4_k", (256,), 144),
        ("q4_k", (), 144),
        ("q4_k", (4, 0), 0),
        ("q6_k", (2, 257), 840),
        ("q6_k", (256, 2), 53760),
    ],
)
def test_sizes(dtype: str, shape: tuple[int, ...], size_bytes: int) -> None:
    assert DTYPES[dtype].size_bytes(shape) == size_bytes


def test_codes() -> None:
    names = {code: dtype_of_code(code) for code in range(256)}
    assert {code: dtype.name for code, dtype in names.items() if dtype} == {
        0: "f32",
        1: "f16",
        3: "f64",
        4: "i32",
        5: "i64",
        6: "i8",
        7: "u8",
        8: "q4",
        9: "q8",
        12: "q4_k",
        14: "q6_k",
        30: "bf16",
        128: "q4",
        129: "q8",
    }
    assert [name for name, dtype in DTYPES.items() if dtype.is_quantized] == [
        "q4_k",
        "q6_k",
        "q4",
        "q8",
    ]


def test_flag_names() -> None:
    assert flag_names(0x0600) == ["HAS_VOCAB", "LAYOUT_ROW_MAJOR"]
    assert flag_names(0x9001) == ["LZ4_COMPRESSED", "0x1000", "0x8000"]
    assert flag_names(0) == []


def test_padding() -> None:
    assert [padded(size) for size in (0, 1, 63, 64, 65)] == [0, 64, 64, 64, 128]
    assert [len(padding_after(size)) for size in (0, 1, 63, 64, 65)] == [0, 63, 1, 0, 63]


def test_the_layout_imports_nothing_of_ours() -> None:
    import apr.container.layout as module

    assert "from apr" not in Path(str(module.__file__)).read_text(encoding="utf-8")
