"""F21: the trainer demands a certificate of the very pair it is given."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.corpus_files import program, write_jsonl, write_tree
from tests.run_data import RunData

from apr.corpus.deduplication.dedup import dedup_corpus
from apr.corpus.splitting.split import split_corpus
from apr.corpus.splitting.split_rule import SplitRule
from apr.errors import DamagedFile, Refusal
from apr.jobs.pretrain import preflight, pretrain
from apr.shards.certified import certificate_of
from apr.shards.encode import encode_corpus
from apr.shards.reader import ShardReader
from apr.shards.repairing.repair import repair_manifest
from apr.shards.verifying.verify import verify
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.gates import judge
from apr.train.split_gate import check_split_certificate

GATE = "preflight.split-certificate"


@dataclass(frozen=True)
class Corpora:
    """A split of a small tree, and how its sides become shards."""

    root: Path
    tokenizer: Tokenizer

    def encode(self, corpus: Path, name: str, **changes: Any) -> ShardReader:
        output = self.root / "shards" / name
        encode_corpus(
            [corpus], tokenizer=self.tokenizer, output=output, encoder="reference", **changes
        )
        return ShardReader.open(output)


@pytest.fixture
def corpora(run_data: RunData, tmp_path: Path) -> Corpora:
    texts = {f"package_{number}/module.py": program(number) for number in range(12)}
    write_tree(tmp_path / "tree", texts)
    split_corpus([tmp_path / "tree"], output=tmp_path / "data", rule=SplitRule("package", 0.3, 1))
    return Corpora(tmp_path, Tokenizer.load(run_data.tokenizer))


def test_the_two_sides_of_a_split_pass(corpora: Corpora) -> None:
    train = corpora.encode(corpora.root / "data" / "train", "train")
    val = corpora.encode(corpora.root / "data" / "held-out", "val")
    found = check_split_certificate(train, val)
    assert found.verdict == "PASS"
    assert found.found == (
        "no copy left (0 removed); not looked for: near-duplicates and common runs of words"
    )
    certificate = certificate_of(train)
    assert certificate is not None
    assert certificate == certificate_of(val)


def test_shards_swapped_between_their_roles_fail(corpora: Corpora) -> None:
    train = corpora.encode(corpora.root / "data" / "held-out", "train")
    val = corpora.encode(corpora.root / "data" / "train", "val")
    assert check_split_certificate(train, val).verdict == "FAIL"


@pytest.mark.parametrize("side", ["train", "held-out"])
def test_a_side_rebuilt_after_the_certificate_fails(corpora: Corpora, side: str) -> None:
    row = {"content": program(99), "source": "late.py", "group": "late"}
    write_jsonl(corpora.root / "data" / side / "part-99999.jsonl", [row])
    train = corpora.encode(corpora.root / "data" / "train", "train")
    val = corpora.encode(corpora.root / "data" / "held-out", "val")
    rebuilt = {"train": train, "held-out": val}[side]
    assert rebuilt.manifest.certificate is None
    found = check_split_certificate(train, val)
    assert found.verdict == "FAIL"
    assert rebuilt.manifest.documents_sha256[:12] in found.expected
    assert rebuilt.manifest.documents_sha256[:12] not in found.found


def test_a_named_certificate_of_other_documents_is_refused_at_once(corpora: Corpora) -> None:
    write_tree(corpora.root / "other", {f"p{n}/m.py": program(50 + n) for n in range(6)})
    with pytest.raises(Refusal) as refused:
        corpora.encode(
            corpora.root / "other", "x", certificate=corpora.root / "data" / "certificate.json"
        )
    assert refused.value.id == "corpus.certificate-mismatch"
    assert not (corpora.root / "shards" / "x").exists()


@pytest.mark.parametrize("content", [b"{}", b"{", b"[1]", b""])
def test_a_damaged_certificate_is_refused_before_any_work(corpora: Corpora, content: bytes) -> None:
    damaged = corpora.root / "certificate.json"
    damaged.write_bytes(content)
    with pytest.raises(DamagedFile) as refused:
        corpora.encode(corpora.root / "data" / "train", "x", certificate=damaged)
    assert refused.value.id == "corpus.certificate-damaged"
    assert not list(corpora.root.glob("shards/*"))


def test_a_later_certificate_of_the_training_side_fits_the_held_out_side(
    corpora: Corpora,
) -> None:
    """A near-duplicate of held-out text is removed; the held-out shards stay as they are."""
    train_corpus, held_out = corpora.root / "data" / "train", corpora.root / "data" / "held-out"
    val = corpora.encode(held_out, "val")
    edited = _held_out_text(val, corpora.tokenizer).replace("argument", "parameter", 1)
    write_jsonl(train_corpus / "part-99999.jsonl", [{"content": edited}])
    before = corpora.encode(train_corpus, "before")
    assert check_split_certificate(before, val).verdict == "FAIL"

    found = dedup_corpus([train_corpus], held_out=[held_out], output=corpora.root / "d.jsonl")
    assert found.search.counts == {"near_duplicate_of_held_out": 1}
    train = corpora.encode(
        train_corpus,
        "train",
        removals=[corpora.root / "d.jsonl"],
        certificate=corpora.root / "d.certificate.json",
    )
    assert certificate_of(train) != certificate_of(val)
    passed = check_split_certificate(train, val)
    assert passed.verdict == "PASS"
    assert "no near-duplicate from 0.8 on (1 removed; largest left" in passed.found
    # Without the edited text these are the very documents that the split certified.
    again = corpora.encode(train_corpus, "again", removals=[corpora.root / "d.jsonl"])
    assert certificate_of(again) == certificate_of(val)
    assert "not looked for: near-duplicates" in check_split_certificate(again, val).found


def _held_out_text(val: ShardReader, tokenizer: Tokenizer) -> str:
    start, stop = val.document_range(0)
    return tokenizer.decode(val.read(start, stop - 1).tolist())


def _judged(train: ShardReader, val: ShardReader) -> tuple[str, str]:
    gate = judge(GATE, lambda: check_split_certificate(train, val))
    return gate.verdict, gate.found.partition(":")[0]


def test_a_certificate_taken_away_or_exchanged_fails(corpora: Corpora) -> None:
    train = corpora.encode(corpora.root / "data" / "train", "train")
    val = corpora.encode(corpora.root / "data" / "held-out", "val")
    path = train.directory / "certificate.json"
    original = path.read_bytes()
    assert _judged(train, val)[0] == "PASS"

    path.unlink()
    assert _judged(train, val) == ("FAIL", "shards.certificate-missing")

    split_corpus(
        [corpora.root / "tree"], output=corpora.root / "again", rule=SplitRule("package", 0.3, 2)
    )
    shutil.copy(corpora.root / "again" / "certificate.json", path)
    assert _judged(train, val) == ("FAIL", "shards.certificate-differs")

    fields = json.loads(original)
    fields["held_out"]["num_documents"] += 1
    path.write_text(json.dumps(fields, indent=2) + "\n")
    assert _judged(train, val) == ("FAIL", "corpus.certificate-edited")

    path.write_bytes(original)
    assert _judged(train, val)[0] == "PASS"


@pytest.mark.parametrize(
    ("fault", "id"),
    [
        (lambda path: path.unlink(), "shards.certificate-missing"),
        (lambda path: path.write_bytes(b"{}"), "corpus.certificate-damaged"),
    ],
)
def test_verify_reads_the_certificate(corpora: Corpora, fault: object, id: str) -> None:
    train = corpora.encode(corpora.root / "data" / "train", "train")
    tokenizer = corpora.root / "tok"
    corpora.tokenizer.save(tokenizer)
    assert verify(train.directory, tokenizer_path=tokenizer).verdict == "PASS"
    assert callable(fault)
    fault(train.directory / "certificate.json")
    found = verify(train.directory, tokenizer_path=tokenizer)
    assert found.verdict == "FAIL"
    assert found.refusal is not None
    assert found.refusal.id == id


def test_a_pair_without_a_certificate_is_refused_and_its_waiver_recorded(
    run_data: RunData, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(run_data.tokenizer)
    for side in ("train", "val"):
        encode_corpus(
            [run_data.root / f"{side}.jsonl"],
            tokenizer=tokenizer,
            encoder="reference",
            output=tmp_path / side,
        )
    config = run_data.config(
        tmp_path / "run", dataset=tmp_path / "train", val_shard=tmp_path / "val"
    )
    with pytest.raises(Refusal) as refused:
        pretrain(config)
    assert refused.value.id == GATE
    assert refused.value.exit_code == 5
    assert not config.run_dir.exists()

    waived = config.model_copy(
        update={"waive": config.waive | {GATE: "two public sets, checked by their makers"}}
    )
    record = pretrain(waived)
    (gate,) = [gate for gate in record["gates"] if gate["id"] == GATE]
    assert gate["verdict"] == "UNKNOWN"
    assert gate["waiver"] == {"reason": "two public sets, checked by their makers"}
    assert record["inputs"]["train"][0]["certificate"] is None


def test_documents_that_the_run_reserves_are_no_pair(run_data: RunData, tmp_path: Path) -> None:
    plan = preflight(run_data.config(tmp_path / "run", val_shard=None))
    (gate,) = [gate for gate in plan.gates if gate.id == GATE]
    assert gate.verdict == "PASS"
    assert "near-duplicates between them and the others were not looked for" in gate.found


def test_the_record_of_a_run_names_the_certificate(run_data: RunData, tmp_path: Path) -> None:
    record = pretrain(run_data.config(tmp_path / "run"))
    named = ShardReader.open(run_data.train).manifest.certificate
    assert named is not None
    assert record["inputs"]["train"][0]["certificate"] == {"sha256": named.sha256, "side": "train"}
    assert record["inputs"]["val"]["certificate"] == {"sha256": named.sha256, "side": "held-out"}


def test_repaired_shards_are_unknown(run_data: RunData, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for shard in ShardReader.open(run_data.train).manifest.shards:
        shutil.copy(run_data.train / shard.file, bare / shard.file)
    repair_manifest(bare, tokenizer_path=run_data.tokenizer)
    found = check_split_certificate(ShardReader.open(bare), ShardReader.open(run_data.val))
    assert found.verdict == "UNKNOWN"
