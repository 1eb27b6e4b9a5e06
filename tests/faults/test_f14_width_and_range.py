"""F14: token width and id range.

The width stands in the manifest and in every index; sizes must fit it; every id is below the
tokenizer's size, which is the largest id plus one and not the number of entries.
"""

from pathlib import Path

import numpy as np
import pytest
from tests.shard_files import edit_manifest, encode, ids_of, manifest_value, rewrite_shard, sha256
from tests.tokenizer_files import changed, set_in, tokenizer

from apr.errors import Refusal
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer


def refusal_id(directory: Path) -> str:
    with pytest.raises(Refusal) as refused:
        ShardReader.open(directory)
    return refused.value.id


def test_a_directory_of_u16_shards_is_refused(tmp_path: Path) -> None:
    output, _ = encode(tmp_path)
    assert ShardReader.open(output).num_tokens
    entries = manifest_value(output)["shards"]
    for shard_index, entry in enumerate(entries):
        data = np.array(ids_of(output, shard_index), "<u2").tobytes()
        (output / entry["file"]).write_bytes(data)
        entry |= {"size_bytes": len(data), "sha256": sha256(data)}
    edit_manifest(output, dtype="uint16", shards=entries)
    assert refusal_id(output) == "shards.manifest-damaged"
    edit_manifest(output, dtype="uint32")
    assert refusal_id(output) == "shards.manifest-inconsistent"


def test_a_shard_of_odd_size_is_refused(tmp_path: Path) -> None:
    output, _ = encode(tmp_path)
    path = output / "shard-00000.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal_id(output) == "shards.size"


@pytest.mark.parametrize(("id", "is_refused"), [(259, True), (260, True), (258, False)])
def test_an_id_equal_to_the_vocabulary_is_refused(
    tmp_path: Path, id: int, is_refused: bool
) -> None:
    output, _ = encode(tmp_path, ["aaaa"])
    rewrite_shard(output, 0, [id, *ids_of(output, 0)[1:]])
    if not is_refused:
        assert ShardReader.open(output).read(0, 1)[0] == 258
        return
    assert refusal_id(output) == ("shards.id-range" if id == 260 else "shards.separators")


def test_a_gap_whose_count_fits_and_whose_largest_id_does_not(tmp_path: Path) -> None:
    gap = changed(set_in("added_tokens", 0, "id", to=300))
    with pytest.raises(Refusal) as refused:
        Tokenizer.from_json_bytes(gap, eos_token=None, where="x")
    assert refused.value.id == "tokenizer.vocab-gap"
    assert refused.value.found == "260 pieces, largest id 300, no piece for id 259"
    assert tokenizer().vocab_size == 260
