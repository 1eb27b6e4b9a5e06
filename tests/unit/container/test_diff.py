"""`apr diff`: each kind of difference, how far it goes, and what is none."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.container_files import GOLDEN, Row, build, f32
from tests.container_models import LLAMA, QWEN2, UNTIED, ModelFile, hashes, model_file
from tests.peak_memory import measured

from apr.container.inspecting.diff import ContainerDifference, diff_containers
from apr.container.inspecting.value_difference import ValueDifference
from apr.container.stamp import Claims, stamp
from apr.errors import DamagedFile, Refusal
from apr.progress import Progress

NORM = "model.norm.weight"


def compare(
    tmp_path: Path, a: ModelFile, b: ModelFile, *, tolerance: float | None = None
) -> ContainerDifference:
    paths = a.write(tmp_path / "a.apr"), b.write(tmp_path / "b.apr")
    found = diff_containers(*paths, tolerance=tolerance)
    mirrored = diff_containers(*reversed(paths), tolerance=tolerance)
    assert (mirrored.verdict, mirrored.same) == (found.verdict, found.same)
    assert len(mirrored.metadata) == len(found.metadata)
    json.dumps(found.as_dict(), allow_nan=False)
    return found


def rows(tmp_path: Path, a: list[Row], b: list[Row], **options: Any) -> ContainerDifference:
    paths = tmp_path / "a.apr", tmp_path / "b.apr"
    for path, side in zip(paths, (a, b), strict=True):
        path.write_bytes(build({}, side))
    return diff_containers(*paths, **options)


def floats(tmp_path: Path, a: list[float], b: list[float]) -> ValueDifference | None:
    values = rows(tmp_path, [f32("x", *a)], [f32("x", *b)]).tensors.values
    return values[0] if values else None


def test_the_harmless_twin(tmp_path: Path) -> None:
    found = compare(tmp_path, model_file(), model_file())
    assert (found.same, found.verdict) == (True, "PASS")
    assert found.compared_tensors == 20
    assert found.compared_values == LLAMA.num_parameters
    assert (found.metadata, found.format, found.tensors.values) == ((), (), ())
    assert diff_containers(tmp_path / "a.apr", tmp_path / "a.apr").same


def test_values(tmp_path: Path) -> None:
    other = model_file()
    other.arrays[NORM] = other.arrays[NORM].copy()
    other.arrays[NORM][3] += np.float32(0.25)
    base = float(model_file().arrays[NORM][3])
    found = compare(tmp_path, model_file(), other)
    assert (found.same, found.verdict) == (False, "FAIL")
    (each,) = found.tensors.values
    assert (each.name, each.num_different, each.at) == (NORM, 1, [3])
    assert each.max_abs == pytest.approx(0.25, rel=1e-6)
    larger = max(abs(base), abs(float(other.arrays[NORM][3])))
    assert each.max_relative == pytest.approx(0.25 / larger, rel=1e-6)
    for tolerance, verdict in ((0.0, "FAIL"), (0.2, "FAIL"), (0.26, "PASS")):
        found = compare(tmp_path, model_file(), other, tolerance=tolerance)
        assert (found.same, found.verdict) == (False, verdict)


def test_a_nan_equals_only_its_own_bits(tmp_path: Path) -> None:
    nan = [Row(b"x", 0, (2,), struct.pack("<II", bits, 0)) for bits in (0x7FC00000, 0x7FC00001)]
    assert rows(tmp_path, [nan[0]], [nan[0]]).same
    found = rows(tmp_path, [nan[0]], [nan[1]], tolerance=1e9)
    assert found.verdict == "FAIL"
    assert found.tensors.values[0].num_not_comparable == 1
    assert found.tensors.values[0].max_abs == 0.0


@pytest.mark.parametrize(
    ("a", "b"), [(math.nan, 1.0), (math.inf, 1.0), (math.inf, -math.inf), (math.nan, math.inf)]
)
def test_what_is_no_distance_is_beyond_every_tolerance(tmp_path: Path, a: float, b: float) -> None:
    each = floats(tmp_path, [a, 1.0], [b, 1.5])
    assert each is not None
    assert (each.num_different, each.num_not_comparable) == (2, 1)
    assert (each.max_abs, each.at) == (0.5, [1])
    assert each.exceeds(1e30)


def test_equal_infinities_and_zeros_of_either_sign(tmp_path: Path) -> None:
    assert floats(tmp_path, [math.inf, 0.0], [math.inf, 0.0]) is None
    found = rows(tmp_path, [f32("x", 0.0)], [f32("x", -0.0)])
    assert (found.same, found.verdict) == (False, "FAIL")
    assert (found.tensors.values[0].max_abs, found.tensors.values[0].max_relative) == (0.0, 0.0)
    assert rows(tmp_path, [f32("x", 0.0)], [f32("x", -0.0)], tolerance=0.0).verdict == "PASS"


@pytest.mark.parametrize(
    ("code", "form"), [(0, "<f4"), (1, "<f2"), (3, "<f8"), (4, "<i4"), (5, "<i8"), (6, "i1")]
)
def test_every_plain_type(tmp_path: Path, code: int, form: str) -> None:
    a, b = np.arange(6).astype(form), np.arange(6).astype(form)
    b[4] += 2
    sides = [[Row(b"x", code, (2, 3), each.tobytes())] for each in (a, b)]
    (each,) = rows(tmp_path, *sides).tensors.values
    assert (each.num_different, each.max_abs, each.at) == (1, 2.0, [1, 1])


def test_bf16_is_the_upper_half_of_f32(tmp_path: Path) -> None:
    sides = [[Row(b"x", 30, (1,), struct.pack("<f", value)[2:])] for value in (1.0, 1.5)]
    (each,) = rows(tmp_path, *sides).tensors.values
    assert (each.max_abs, each.max_relative) == (0.5, pytest.approx(1 / 3))


def test_another_type_is_another_model_and_its_values_are_compared(tmp_path: Path) -> None:
    half = [Row(b"x", 1, (2,), struct.pack("<2e", 1.0, 0.1))]
    found = rows(tmp_path, [f32("x", 1.0, 0.1)], half, tolerance=1.0)
    assert found.verdict == "FAIL"
    assert found.tensors.dtype == ({"name": "x", "a": "f32", "b": "f16"},)
    (each,) = found.tensors.values
    assert (each.num_different, each.at) == (1, [1])
    assert each.max_abs == pytest.approx(abs(float(np.float32(0.1)) - float(np.float16(0.1))))
    same = rows(tmp_path, [f32("x", 1.0)], [Row(b"x", 1, (1,), struct.pack("<e", 1.0))])
    assert (same.tensors.values, same.same) == ((), False)


def test_names_and_shapes(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        [f32("a", 1.0), f32("b", 1.0, 2.0), f32("same", 0.0)],
        [f32("b", 1.0), f32("c", 1.0), f32("same", 0.0)],
        tolerance=10.0,
    )
    assert (found.tensors.only_a, found.tensors.only_b) == (("a",), ("c",))
    assert found.tensors.shape == ({"name": "b", "a": [2], "b": [1]},)
    assert found.tensors.not_compared == ("b",)
    assert (found.compared_tensors, found.verdict) == (1, "FAIL")
    for a, b in ((LLAMA, QWEN2), (LLAMA, UNTIED)):
        assert compare(tmp_path, model_file(a), model_file(b), tolerance=100).verdict == "FAIL"


def test_quantised_tensors_are_compared_by_what_they_stand_for(tmp_path: Path) -> None:
    q8 = [Row(b"x", 129, (4,), struct.pack("<f4b", 0.5, 1, 2, 3, last)) for last in (4, 6)]
    assert rows(tmp_path, [q8[0]], [q8[0]]).same
    found = rows(tmp_path, [q8[0]], [q8[1]])
    (each,) = found.tensors.values
    assert (each.num_different, each.num_compared, each.at) == (1, 4, [3])
    assert (each.max_abs, each.max_relative) == (1.0, pytest.approx(1 / 3))
    assert found.verdict == "FAIL"
    assert rows(tmp_path, [q8[0]], [q8[1]], tolerance=1.0).verdict == "PASS"
    # The same numbers in another format: nothing is apart, and yet it is another file.
    found = rows(tmp_path, [q8[0]], [f32("x", 0.5, 1.0, 1.5, 2.0)], tolerance=100.0)
    assert (found.tensors.values, found.compared_tensors, found.verdict) == ((), 1, "FAIL")


def test_long_quantised_tensors_are_compared_piece_by_piece(tmp_path: Path) -> None:
    number = (1 << 20) + 7
    values = np.arange(number) % 100
    data = struct.pack("<f", 0.25) + values.astype(np.int8).tobytes()
    other = bytearray(data)
    other[-2] = 101
    left = [Row(b"x", 129, (number,), data)]
    found = rows(tmp_path, left, [Row(b"x", 129, (number,), bytes(other))])
    (each,) = found.tensors.values
    assert (each.num_compared, each.num_different, each.at) == (number, 1, [number - 2])
    floats = Row(b"x", 0, (number,), (values * 0.25).astype("<f4").tobytes())
    assert rows(tmp_path, left, [floats]).tensors.values == ()


def test_nothing_to_compare_is_unknown(tmp_path: Path) -> None:
    for sides in (([], []), ([f32("a", 1.0)], [f32("b", 1.0)]), ([f32("a")], [f32("a")])):
        for tolerance in (None, 1.0):
            found = rows(tmp_path, *sides, tolerance=tolerance)
            assert (found.verdict, found.same) == ("UNKNOWN", False)


@pytest.mark.parametrize(
    ("keys", "kind", "is_forgiven"),
    [
        ({"license": "MIT"}, "provenance", True),
        ({"created_at": "today"}, "provenance", True),
        ({"param_count": 0}, "recorded", True),
        ({"hidden_size": 16}, "identity", False),
        ({"rope_theta": 5.0}, "identity", False),
        ({"hf_architecture": None}, "identity", False),
        ({"chat_template": "x"}, "tokenizer", False),
    ],
)
def test_named_keys(tmp_path: Path, keys: dict[str, Any], kind: str, is_forgiven: bool) -> None:
    other = model_file()
    other.set(**keys)
    found = compare(tmp_path, model_file(), other)
    (each,) = found.metadata
    assert (found.same, found.verdict) == (False, "FAIL")
    assert (each["key"], each["kind"]) == (*keys, kind)
    forgiven = compare(tmp_path, model_file(), other, tolerance=0.0)
    assert (forgiven.same, forgiven.verdict) == (False, "PASS" if is_forgiven else "FAIL")


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"apr.provenance": [1]}, "provenance"),
        (hashes(model_file().arrays), "recorded"),
        ({"tokenizer.merges": []}, "tokenizer"),
        ({"apr.eos_token": "x"}, "tokenizer"),
        ({"tied_embeddings": False}, "identity"),
        ({"something": None}, "other"),
    ],
)
def test_free_keys(tmp_path: Path, keys: dict[str, Any], kind: str) -> None:
    (key,) = keys
    other = model_file(free=keys)
    (each,) = compare(tmp_path, model_file(), other).metadata
    assert (each["key"], each["kind"]) == (key, kind)
    assert each["b"] == keys[key] or each["b"]["length"] == len(keys[key])
    assert ("a" in each) == (key == "tied_embeddings")


def test_equal_numbers_of_other_kinds_differ(tmp_path: Path) -> None:
    sides = [model_file(free={"x": value}) for value in (1, 1.0)]
    assert [each["key"] for each in compare(tmp_path, *sides).metadata] == ["x"]


def test_long_values_are_shown_by_their_hash(tmp_path: Path) -> None:
    sides = [model_file(free={"x": ["word"] * 100_000 + [last]}) for last in "ab"]
    (each,) = compare(tmp_path, *sides).metadata
    assert each["a"].keys() == {"type", "length", "sha256"}
    assert (each["a"]["length"], each["a"]["type"]) == (100_001, "list")
    assert each["a"]["sha256"] != each["b"]["sha256"]


def test_header_fields(tmp_path: Path) -> None:
    paths = tmp_path / "a.apr", tmp_path / "b.apr"
    paths[0].write_bytes(build({}, [f32("x", 1.0)]))
    paths[1].write_bytes(build({}, [f32("x", 1.0)], flags=0x0480, footer=False))
    found = diff_containers(*paths)
    assert [each["field"] for each in found.format] == ["flags", "has_footer"]
    assert (found.same, found.verdict) == (False, "FAIL")
    assert diff_containers(*paths, tolerance=0.0).verdict == "PASS"


def test_a_stamp_changes_the_story_and_not_the_model(tmp_path: Path) -> None:
    file = model_file()
    file.set_free(hashes(file.arrays))
    path = file.write(tmp_path / "a.apr")
    stamp(path, Claims(license="MIT"), output=tmp_path / "b.apr")
    found = diff_containers(path, tmp_path / "b.apr")
    assert {each["kind"] for each in found.metadata} == {"provenance"}
    assert (found.tensors.values, found.verdict) == ((), "FAIL")
    assert diff_containers(path, tmp_path / "b.apr", tolerance=0.0).verdict == "PASS"


@pytest.mark.parametrize("tolerance", [-1.0, math.inf, math.nan])
def test_a_tolerance_that_is_none(tmp_path: Path, tolerance: float) -> None:
    with pytest.raises(Refusal) as caught:
        diff_containers(tmp_path / "a", tmp_path / "b", tolerance=tolerance)
    assert (caught.value.id, caught.value.exit_code) == ("diff.tolerance", 2)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.apr", tmp_path / "bad.apr"
    good.write_bytes(GOLDEN)
    for data, id in ((b"", "container.truncated"), (b"PK\3\4" + bytes(90), "container.not-apr")):
        bad.write_bytes(data)
        for pair in ((good, bad), (bad, good)):
            with pytest.raises(DamagedFile) as caught:
                diff_containers(*pair)
            assert (caught.value.id, caught.value.where) == (id, str(bad))


def test_a_file_that_shrinks_while_it_is_compared(tmp_path: Path) -> None:
    paths = [model_file().write(tmp_path / name) for name in ("a.apr", "b.apr")]

    def cut(_progress: Progress) -> None:
        with paths[1].open("r+b") as file:
            file.truncate(file.seek(0, 2) // 2)

    with pytest.raises(DamagedFile) as caught:
        diff_containers(*paths, progress=cut)
    assert caught.value.id == "container.truncated"


def test_progress_covers_what_is_compared(tmp_path: Path) -> None:
    reports: list[Progress] = []
    path = model_file().write(tmp_path / "a.apr")
    diff_containers(path, path, progress=reports.append)
    assert reports[-1].done == reports[-1].total == 4 * LLAMA.num_parameters


MEMORY = """
import json, sys
from pathlib import Path
from tests.peak_memory import peak_kib
from apr.container.inspecting.diff import diff_containers

before = peak_kib()
found = diff_containers(Path(sys.argv[1]), Path(sys.argv[2]))
values = found.tensors.values
print(json.dumps({"grown_mib": (peak_kib() - before) / 1024,
                  "different": [each.num_different for each in values]}))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    count = 24 << 20
    a, b = tmp_path / "a.apr", tmp_path / "b.apr"
    data = np.arange(count, dtype="<f4")
    a.write_bytes(build({}, [Row(b"x", 0, (count,), data.tobytes())]))
    b.write_bytes(build({}, [Row(b"x", 0, (count,), (data + 1e6).tobytes())]))
    found = measured(MEMORY, a, b)
    assert found["different"] == [count]
    assert found["grown_mib"] < 100
