"""F15: shards without identity.

The truth lies in a hashed manifest that is written last; the reader opens only what it names; a
directory that holds anything else is refused, for reading and for writing.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.run_data import RunData
from tests.shard_files import TEXTS, encode, manifest_value, write_corpus
from tests.tokenizer_files import tokenizer

from apr.errors import DamagedFile, Refusal
from apr.jobs.pretrain import pretrain
from apr.jobs.resume import resume
from apr.jobs.sitting import Listener
from apr.shards.provenance import PROVENANCE_NAME, read_provenance
from apr.shards.reader import ShardReader


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return encode(tmp_path)[0]


def refusal_id(directory: Path) -> str:
    with pytest.raises(Refusal) as refused:
        ShardReader.open(directory)
    return refused.value.id


def flip_one_byte(directory: Path) -> None:
    path = directory / "shard-00000.bin"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def cut_one_token(directory: Path) -> None:
    path = directory / "shard-00000.bin"
    path.write_bytes(path.read_bytes()[:-4])


def empty_a_shard(directory: Path) -> None:
    (directory / "shard-00000.bin").write_bytes(b"")


def add_a_stale_shard(directory: Path) -> None:
    shutil.copy(directory / "shard-00000.bin", directory / "shard-00009.bin")


def take_a_shard_of_another_run(directory: Path) -> None:
    swapped_case = [text.swapcase() for text in TEXTS]
    other, _ = encode(directory.parent, swapped_case, name="other")
    shutil.copy(other / "shard-00000.bin", directory / "shard-00000.bin")


def swap_two_shards(directory: Path) -> None:
    """Both are sound and of one size; only their order is not that of the encoding."""
    first, second = directory / "shard-00000.bin", directory / "shard-00001.bin"
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])


def lose_a_named_shard(directory: Path) -> None:
    (directory / "shard-00001.bin").unlink()


def lose_the_manifest(directory: Path) -> None:
    (directory / "manifest.json").unlink()


def edit_the_manifest(directory: Path) -> None:
    path = directory / "manifest.json"
    path.write_text(path.read_text().replace('"text_bytes": ', '"text_bytes": 1'))


@pytest.mark.parametrize(
    ("plant", "id"),
    [
        (add_a_stale_shard, "shards.foreign-file"),
        (flip_one_byte, "shards.hash-mismatch"),
        (cut_one_token, "shards.size"),
        (take_a_shard_of_another_run, "shards.size"),
        (empty_a_shard, "shards.size"),
        (lose_a_named_shard, "shards.file-missing"),
        (lose_the_manifest, "shards.manifest-missing"),
        (edit_the_manifest, "shards.manifest-edited"),
    ],
)
def test_it_is_noticed(shards: Path, plant: Callable[[Path], object], id: str) -> None:
    assert ShardReader.open(shards).num_tokens > 0
    plant(shards)
    assert refusal_id(shards) == id


def test_an_equally_long_shard_of_another_run_is_noticed(tmp_path: Path) -> None:
    first, _ = encode(tmp_path, ["aaaa", "bbbb"], name="first")
    second, _ = encode(tmp_path, ["cccc", "dddd"], name="second")
    shutil.copy(second / "shard-00000.bin", first / "shard-00000.bin")
    assert refusal_id(first) == "shards.hash-mismatch"


def test_two_shards_of_one_size_that_were_swapped_are_noticed(tmp_path: Path) -> None:
    output, manifest = encode(tmp_path, ["a" * 19, "b" * 19])
    assert [shard.num_tokens for shard in manifest.shards] == [20, 20]
    swap_two_shards(output)
    assert refusal_id(output) == "shards.hash-mismatch"


def opened_long_ago(directory: Path) -> ShardReader:
    """A reader whose files were last written to before it was opened, as a run's are."""
    for path in directory.glob("shard-*.bin"):
        os.utime(path, (1, 1))
    return ShardReader.open(directory)


@pytest.mark.parametrize(
    ("plant", "id"),
    [
        (flip_one_byte, "shards.hash-mismatch"),
        (cut_one_token, "shards.size"),
        (empty_a_shard, "shards.size"),
    ],
)
def test_a_shard_written_to_under_its_reader_is_noticed(
    shards: Path, plant: Callable[[Path], object], id: str
) -> None:
    """Unnoticed, what was cut off kills the process, and what was changed is trained on."""
    reader = opened_long_ago(shards)
    reader.read(0, reader.num_tokens)
    plant(shards)
    for _ in range(2):
        with pytest.raises(DamagedFile) as refused:
            reader.read(0, reader.num_tokens)
        assert refused.value.id == id


def test_a_shard_that_is_the_same_again_is_read_on(shards: Path) -> None:
    """Touched, copied over itself, replaced by name, or gone: what was opened is still there."""
    reader = opened_long_ago(shards)
    path, ids = shards / "shard-00000.bin", reader.read(0, reader.num_tokens)
    data = path.read_bytes()
    other = shards / "other"
    other.write_bytes(bytes(len(data)))
    for change in (path.touch, lambda: path.write_bytes(data), lambda: other.replace(path)):
        change()
        assert reader.read(0, reader.num_tokens).tolist() == ids.tolist()
    path.unlink()
    assert reader.read(0, reader.num_tokens).tolist() == ids.tolist()


def test_a_run_ends_where_its_shards_are_written_to_and_goes_on_when_they_are_back(
    run_data: RunData, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(run_data.train, tmp_path / "train"))
    config = run_data.config(tmp_path / "run", dataset=data, checkpoint_every=1)
    path, asked = data / "shard-00000.bin", iter(range(3))
    whole = path.read_bytes()

    def cut_after_three_steps() -> bool:
        if next(asked, None) is None:
            path.write_bytes(whole[:4])
        return False

    with pytest.raises(DamagedFile) as refused:
        pretrain(config, listener=Listener(should_stop=cut_after_three_steps))
    assert refused.value.id == "shards.size"
    path.write_bytes(whole)
    assert resume(config.run_dir)["outcome"] == "budget_exhausted"


def test_bare_shards_of_another_tool_are_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "shard-00000.bin").write_bytes(bytes(400))
    with pytest.raises(Refusal) as refused:
        ShardReader.open(tmp_path)
    assert refused.value.id == "shards.manifest-missing"
    assert "1 .bin files" in refused.value.found
    assert "encode-corpus" not in refused.value.fix


def test_a_smaller_second_run_leaves_no_old_shard(tmp_path: Path) -> None:
    output, first = encode(tmp_path, TEXTS * 6)
    _, second = encode(tmp_path, overwrite=True)
    assert first.shard_count > second.shard_count
    assert len(list(output.glob("shard-*.bin"))) == second.shard_count
    assert ShardReader.open(output).manifest == second


ENCODE_FOR_EVER = """
import sys
from pathlib import Path
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer
corpus, tok, output = map(Path, sys.argv[1:])
tokenizer = Tokenizer.load(tok)
while True:
    encode_corpus(
        [corpus], tokenizer=tokenizer, encoder="reference", output=output, shard_tokens=50,
        overwrite=True,
    )
"""


def test_a_killed_writer_leaves_whole_shards_or_none(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl", TEXTS * 40)
    tokenizer().save(tmp_path / "tok")
    output = tmp_path / "shards"
    environment = {"PYTHONPATH": ":".join(sys.path), "RAYON_NUM_THREADS": "1"}
    num_complete = 0
    for delay_s in (0.0, 0.013, 0.037):
        words = [sys.executable, "-c", ENCODE_FOR_EVER, corpus, tmp_path / "tok", output]
        writer = subprocess.Popen(list(map(str, words)), env=environment)
        while not output.exists() and writer.poll() is None:
            time.sleep(0.01)
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        if output.exists():
            assert ShardReader.open(output).num_tokens == manifest_value(output)["total_tokens"]
            num_complete += 1
            shutil.rmtree(output)
    assert num_complete > 0


def test_no_flipped_byte_gives_a_document_another_source(shards: Path) -> None:
    path = shards / PROVENANCE_NAME
    data, rows = path.read_bytes(), list(read_provenance(shards))
    assert len(rows) == len(TEXTS)
    num_refused = 0
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            assert list(read_provenance(shards)) == rows
        except DamagedFile:
            num_refused += 1
    # Of a frame's header, a bit may change that changes nothing else.
    assert num_refused > 0.9 * len(data)
