"""Any step of a run as text: the tokens that training reads, and where they come from."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.run_data import RunData

from apr.errors import Refusal, UsageRefusal
from apr.jobs.show_batch import ShownRow, show_batch
from apr.shards.encode import encode_corpus
from apr.shards.provenance import PROVENANCE_NAME
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.inputs import open_inputs
from apr.train.mixture import BatchOrder
from apr.train.run_record import RunRecord

EOS = "<|endoftext|>"


def record_run(data: RunData, run_dir: Path, **changes: Any) -> Path:
    """The record of a run that has begun, without the training."""
    config = data.config(run_dir, **changes)
    inputs = open_inputs(config)

    def shards(reader: ShardReader | None) -> dict[str, str] | None:
        return reader and {"path": str(reader.directory), "sha256": reader.manifest_sha256}

    record = RunRecord.start(
        run_dir,
        config=config.model_dump(mode="json"),
        inputs={
            "tokenizer": {"fingerprint": inputs.tokenizer.fingerprint},
            "train": [shards(reader) for reader in inputs.train],
            "val": shards(inputs.val),
        },
        architecture={},
        gates=[],
        val={},
        environment={},
    )
    run_dir.mkdir(parents=True)
    record.write()
    return run_dir


@pytest.fixture
def run(run_data: RunData, tmp_path: Path) -> Path:
    return record_run(run_data, tmp_path / "run")


def text_of(row: ShownRow) -> str:
    return "".join(piece.text + (piece.separator or "") for piece in row.pieces)


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_the_text_is_that_of_the_tokens_the_training_reads(
    run_data: RunData, run: Path, step: int
) -> None:
    config = run_data.config(run)
    inputs = open_inputs(config)
    batch = BatchOrder(inputs.data.train, config.batch_size, config.seed).batch(step)
    shown = show_batch(run, step=step)
    assert [row.row_index for row in shown.rows] == list(batch.row_indices)
    for row, inputs_T, targets_T in zip(
        shown.rows, batch.input_ids_BT, batch.target_ids_BT, strict=True
    ):
        count = int((targets_T >= 0).sum())
        ids = [*inputs_T[:count], targets_T[count - 1]]
        assert row.num_tokens == len(ids)
        if not any(piece.cuts_character for piece in row.pieces):
            assert text_of(row) == inputs.tokenizer.decode(np.array(ids))


def test_one_row_is_that_row_of_the_batch(run: Path) -> None:
    every = show_batch(run, step=3)
    (one,) = show_batch(run, step=3, row=2).rows
    assert one == every.rows[2]
    assert one.row == 2


def test_pieces_know_their_documents_and_where_they_begin(
    run_data: RunData, tmp_path: Path
) -> None:
    run = record_run(run_data, tmp_path / "run", seq_length=512)
    reader = ShardReader.open(run_data.train)
    lines = (run_data.root / "train.jsonl").read_text().splitlines()
    texts = [json.loads(line)["content"] for line in lines]
    seen_beginning = seen_separator = False
    for step in range(1, 20):
        for row in show_batch(run, step=step).rows:
            assert sum(piece.num_tokens for piece in row.pieces) == row.num_tokens
            for piece in row.pieces:
                start, stop = reader.document_range(piece.document)
                assert start <= piece.first_token < piece.first_token + piece.num_tokens <= stop
                assert piece.row == piece.document + 1
                assert piece.source == str(run_data.root / "train.jsonl")
                assert piece.cuts_character or piece.text in texts[piece.document]
                if piece.begins_document:
                    assert texts[piece.document].startswith(piece.text)
                    seen_beginning = True
                if piece.separator:
                    assert piece.separator == EOS
                    assert piece.ends_document
                    seen_separator = True
    assert seen_beginning
    assert seen_separator


def test_the_short_last_row_ends_with_the_data(run_data: RunData, tmp_path: Path) -> None:
    # The data are this project's sources, and with each change of them a row may come out even.
    num_targets = ShardReader.open(run_data.train).num_tokens - 1
    length = next(length for length in (100, 99) if num_targets % length)
    run = record_run(run_data, tmp_path / "run", seq_length=length, batch_size=1)
    inputs = open_inputs(run_data.config(run, seq_length=length, batch_size=1))
    order = BatchOrder(inputs.data.train, 1, run_data.config(run).seed)
    (rows,) = order.mixture.sources
    last = rows.num_rows - 1
    steps = range(1, rows.num_rows + 1)
    step = next(step for step in steps if order.batch(step).row_indices[0] == last)
    (row,) = show_batch(run, step=step).rows
    assert row.row_index == last
    assert 0 < row.num_tokens - 1 < length
    assert row.first_token + row.num_tokens == inputs.train[0].num_tokens
    assert row.pieces[-1].separator == EOS


def test_every_row_of_an_epoch_is_shown_once_and_again_in_the_next(
    run_data: RunData, tmp_path: Path
) -> None:
    run = record_run(run_data, tmp_path / "run", seq_length=512, dataset=run_data.val)
    num_rows = -(-(ShardReader.open(run_data.val).num_tokens - 1) // 512)
    visits: dict[int, list[int]] = {1: [], 2: []}
    for step in range(1, -(-2 * num_rows // 4) + 1):
        for row in show_batch(run, step=step).rows:
            visits.setdefault(row.epoch, []).append(row.row_index)
    assert sorted(visits[1]) == sorted(visits[2]) == list(range(num_rows))


def test_a_character_cut_by_a_row_is_shown_as_bytes(run_data: RunData, tmp_path: Path) -> None:
    # Javanese: three bytes a character, none of which a tokenizer of our sources has joined.
    lines = [json.dumps({"content": "\ua980\ua981\ua982" * 200, "source": "x"})]
    (tmp_path / "javanese.jsonl").write_text("\n".join(lines) + "\n")
    tokenizer = Tokenizer.load(run_data.tokenizer)
    encode_corpus(
        [tmp_path / "javanese.jsonl"],
        encoder="reference",
        tokenizer=tokenizer,
        output=tmp_path / "javanese",
    )
    run = record_run(run_data, tmp_path / "run", dataset=tmp_path / "javanese")
    pieces = [piece for row in show_batch(run, step=1).rows for piece in row.pieces]
    cut = [piece for piece in pieces if piece.cuts_character]
    assert cut
    assert all("\\x" in piece.text for piece in cut)
    assert all("\N{REPLACEMENT CHARACTER}" not in piece.text for piece in pieces)


def test_without_sources_the_documents_are_still_named(run_data: RunData, tmp_path: Path) -> None:
    copy = shutil.copytree(run_data.train, tmp_path / "train")
    (copy / PROVENANCE_NAME).unlink()
    run = record_run(run_data, tmp_path / "run", dataset=copy)
    piece = show_batch(run, step=1, row=0).rows[0].pieces[0]
    assert (piece.source, piece.row) == (None, None)
    assert len(piece.document_hash) == 32


def test_other_shards_than_the_runs_are_refused(run_data: RunData, tmp_path: Path) -> None:
    copy = shutil.copytree(run_data.train, tmp_path / "train")
    run = record_run(run_data, tmp_path / "run", dataset=copy)
    assert show_batch(run, step=1).rows
    shutil.rmtree(copy)
    shutil.copytree(run_data.val, copy)
    with pytest.raises(Refusal) as refused:
        show_batch(run, step=1)
    assert refused.value.id == "resume.inputs-changed"
    assert refused.value.where == "training shards"


def test_a_shard_that_changed_since_is_refused(run_data: RunData, tmp_path: Path) -> None:
    copy = shutil.copytree(run_data.train, tmp_path / "train")
    run = record_run(run_data, tmp_path / "run", dataset=copy)
    shown = show_batch(run, step=1, row=0).rows[0]
    for path in copy.glob("*.bin"):
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.write_bytes(data)
    assert shown.first_token > 0
    with pytest.raises(Refusal) as refused:
        show_batch(run, step=1, row=0)
    assert refused.value.id == "shards.hash-mismatch"


def test_another_tokenizer_in_its_place_is_refused(run_data: RunData, tmp_path: Path) -> None:
    copy = shutil.copytree(run_data.tokenizer, tmp_path / "tok")
    run = record_run(run_data, tmp_path / "run", tokenizer=copy)
    value = json.loads((copy / "tokenizer.json").read_bytes())
    value["model"]["vocab"] = {
        piece: {300: 301, 301: 300}.get(id, id) for piece, id in value["model"]["vocab"].items()
    }
    Tokenizer.from_json_bytes(json.dumps(value).encode(), eos_token=EOS, where="x").save(
        copy, overwrite=True
    )
    with pytest.raises(Refusal) as refused:
        show_batch(run, step=1)
    assert refused.value.id == "resume.inputs-changed"


@pytest.mark.parametrize(
    ("step", "row", "id"),
    [(0, None, "run.step"), (-1, 0, "run.step"), (1 << 60, 0, "run.step"), (1, 4, "run.row"),
     (1, -1, "run.row")],
)  # fmt: skip
def test_a_place_outside_the_run_is_refused(run: Path, step: int, row: int, id: str) -> None:
    with pytest.raises(UsageRefusal) as refused:
        show_batch(run, step=step, row=row)
    assert refused.value.id == id
    assert show_batch(run, step=1, row=3).rows


def test_it_computes_nothing_and_loads_no_torch(run: Path) -> None:
    program = (
        "import sys\nfrom apr.cli.main import run\n"
        "code = run(['tokenize', 'show-batch', sys.argv[1], '--step', '2', '--json'])\n"
        "print('torch' in sys.modules, file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run)], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip().endswith("False")
    assert len(json.loads(done.stdout)["rows"]) == 4
