"""`apr tokenize import-hf`: what is written of a published tokenizer, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tokenizer_files import EOS, Change, set_in, swapped, tokenizer, without, write

from apr.cli import main
from apr.errors import DamagedFile
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import train_bpe

Captured = pytest.CaptureFixture[str]
FILES = ["manifest.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a published tokenizer of 259 pieces and 2 added tokens."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "hf", control=(EOS, "<|im_end|>"))
    return tmp_path


def run(*words: str) -> int:
    return main.run(["tokenize", "import-hf", *words])


def run_json(capsys: Captured, *words: str) -> tuple[int, dict[str, Any]]:
    code = run(*words, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_every_file_says_the_same(here: Path, capsys: Captured) -> None:
    code, answer = run_json(capsys, "--input", "hf/tokenizer.json", "-o", "tok")
    assert code == 0
    assert sorted(path.name for path in (here / "tok").iterdir()) == FILES
    original = (here / "hf" / "tokenizer.json").read_bytes()
    assert (here / "tok" / "tokenizer.json").read_bytes() == original
    vocab = json.loads((here / "tok" / "vocab.json").read_text())
    assert list(vocab.values()) == list(range(259))
    assert (here / "tok" / "merges.txt").read_text() == "#version: 0.2\nh e\nhe l\nĠ he\n"
    manifest = json.loads((here / "tok" / "manifest.json").read_text())
    assert manifest["imported"] == {
        "file": "tokenizer.json",
        "includes_added_tokens": False,
        "vocab_size_without_added_tokens": 259,
        "vocab_size_with_added_tokens": 261,
        "config_eos_token": None,
    }
    for name in ("vocab_size", "merges_count", "eos_token", "eos_token_id", "fingerprint"):
        assert answer[name] == manifest[name]
    assert (answer["vocab_size"], answer["merges_count"]) == (259, 3)
    assert answer["added_tokens"] == [EOS, "<|im_end|>"]


def test_it_is_the_same_tokenizer(here: Path) -> None:
    assert run("--input", "hf", "-o", "tok", "--eos-token", EOS) == 0
    published, imported = Tokenizer.load(here / "hf"), Tokenizer.load(here / "tok")
    assert imported.fingerprint == published.fingerprint
    assert imported.encode("hello he").tolist() == published.encode("hello he").tolist()
    assert (published.eos_token_id, imported.eos_token_id) == (None, 259)


def test_added_tokens_are_listed_when_asked(here: Path, capsys: Captured) -> None:
    code, answer = run_json(capsys, "--input", "hf", "-o", "tok", "--include-added-tokens")
    assert (code, answer["vocab_size"]) == (0, 261)
    vocab = json.loads((here / "tok" / "vocab.json").read_text())
    assert (len(vocab), vocab["<|im_end|>"]) == (261, 260)
    assert Tokenizer.load(here / "tok").vocab_size == 261


def test_the_text_names_counts_candidates_and_the_next_command(
    here: Path, capsys: Captured
) -> None:
    (here / "hf" / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    assert run("--input", "hf", "-o", "tok") == 0
    shown = capsys.readouterr().out
    assert "259 entries, 261 with the added tokens" in shown
    assert "3 merges; no separator declared; candidates: <|endoftext|>, <|im_end|>" in shown
    assert "tokenizer_config.json names <|im_end|> as its eos_token" in shown
    assert shown.splitlines()[-1].split() == [
        *("apr", "tokenize", "encode-corpus", "--corpus", "PATH", "--tokenizer", "tok"),
        *("--eos-token", "TEXT", "-o", "shards"),
    ]
    assert run("--input", "hf", "-o", "declared", "--eos-token", EOS) == 0
    shown = capsys.readouterr().out
    assert f"separator {EOS} = 259" in shown
    assert "--eos-token" not in shown


def test_the_next_command_names_an_output_that_is_free(here: Path, capsys: Captured) -> None:
    (here / "shards").mkdir()
    (here / "shards-2").symlink_to("nowhere")
    assert run("--input", "hf", "-o", "tok", "--eos-token", EOS) == 0
    assert capsys.readouterr().out.endswith(" --tokenizer tok -o shards-3\n")


def test_a_chat_separator_is_recorded_and_not_used(here: Path, capsys: Captured) -> None:
    (here / "hf" / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    code, answer = run_json(capsys, "--input", "hf/tokenizer.json", "-o", "tok")
    assert (code, answer["config_eos_token"], answer["eos_token"]) == (0, "<|im_end|>", None)
    assert json.loads((here / "tok" / "tokenizer_config.json").read_text())["eos_token"] is None
    imported = Tokenizer.load(here / "tok")
    assert imported.eos_token is None
    assert "names <|im_end|> as its eos_token" in imported.separator_candidates


def test_neighbours_of_a_file_with_another_name_are_not_read(here: Path, capsys: Captured) -> None:
    (here / "hf" / "tokenizer.json").rename(here / "hf" / "qwen.json")
    (here / "hf" / "tokenizer_config.json").write_text('{"eos_token": "<|elsewhere|>"}')
    code, answer = run_json(capsys, "--input", "hf/qwen.json", "-o", "tok")
    assert (code, answer["config_eos_token"]) == (0, None)
    manifest = json.loads((here / "tok" / "manifest.json").read_text())
    assert manifest["imported"]["file"] == "qwen.json"


def test_the_same_input_gives_the_same_bytes(here: Path) -> None:
    for output in ("one", "two"):
        assert run("--input", "hf", "-o", output) == 0
    Tokenizer.load(here / "one").save(here / "three")
    for name in FILES:
        assert (here / "one" / name).read_bytes() == (here / "two" / name).read_bytes()
        assert (here / "one" / name).read_bytes() == (here / "three" / name).read_bytes()


def test_ours_can_be_imported_too(here: Path, capsys: Captured) -> None:
    train_bpe(["abc abc"], vocab_size=300).save(here / "ours")
    code, answer = run_json(capsys, "--input", "ours", "-o", "tok")
    assert (code, answer["eos_token"]) == (0, EOS)
    assert Tokenizer.load(here / "tok").training is not None
    assert run("--input", "tok", "-o", "again", "--eos-token", EOS) == 0


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (set_in("model", "type", to="Unigram"), "Unigram"),
        (set_in("model", "type", to="WordPiece"), "WordPiece"),
        (set_in("model", "type", to="WordLevel"), "WordLevel"),
        (set_in("model", "type", to="CharLevel"), "CharLevel"),
        (set_in("model", to={"unk_id": 0, "vocab": [["a", -1.0]]}), "Unigram"),
        (set_in("model", to={"vocab": {}, "max_input_chars_per_word": 100}), "WordPiece"),
        (set_in("model", to={"vocab": {"a": 0}, "unk_token": "a"}), "WordLevel"),
        (set_in("model", "merges", to=[]), "BPE without merges, which is a character model"),
    ],
)
def test_other_models_are_refused_by_name(
    here: Path, capsys: Captured, change: Change, name: str
) -> None:
    write(here / "other", change)
    code, answer = run_json(capsys, "--input", "other/tokenizer.json", "-o", "tok")
    assert code == 5
    assert answer["refused"]["id"] == "tokenizer.not-bpe"
    assert answer["refused"]["upstream_id"] == "FALSIFY-TOK-IMPORT-HF-005"
    assert answer["refused"]["found"] == name
    assert not (here / "tok").exists()


def test_a_file_without_a_type_that_has_merges_is_bpe(here: Path) -> None:
    write(here / "old", without("model", "type"))
    assert run("--input", "old", "-o", "tok") == 0


def spelled(left: str, right: str) -> Change:
    """A merge of these pieces, which are added to the vocabulary."""

    def change(value: dict[str, Any]) -> None:
        vocab = value["model"]["vocab"]
        for piece in (left, right, left + right):
            vocab.setdefault(piece, len(vocab))
        merges = [merge.split(" ") for merge in value["model"]["merges"]]
        value["model"]["merges"] = [*merges, [left, right]]
        value["added_tokens"][0]["id"] = len(vocab)

    return change


@pytest.mark.parametrize("pieces", [("a\n", "b"), ("a", "\r"), ("#version", "b")])
def test_a_merge_that_is_no_line_is_refused(
    here: Path, capsys: Captured, pieces: tuple[str, str]
) -> None:
    write(here / "odd", spelled(*pieces))
    assert Tokenizer.load(here / "odd").merges[-1] == " ".join(pieces)
    code, answer = run_json(capsys, "--input", "odd", "-o", "tok")
    assert (code, answer["refused"]["id"]) == (5, "tokenizer.merge-not-a-line")
    assert not (here / "tok").exists()
    write(here / "twin", spelled("a#version", "b"))
    assert run("--input", "twin", "-o", "tok") == 0
    assert Tokenizer.load(here / "tok").merges[-1] == "a#version b"


@pytest.mark.parametrize(
    ("words", "code", "id"),
    [
        ("--input nothing -o tok", 3, "files.not-found"),
        ("--input empty -o tok", 3, "tokenizer.json-missing"),
        ("--input spm.model -o tok", 4, "tokenizer.damaged"),
        ("--input hf -o hf", 2, "files.output-overlaps-input"),
        ("--input hf/tokenizer.json -o hf --overwrite", 2, "files.output-overlaps-input"),
        ("--input hf -o taken", 5, "files.exists"),
        ("--input hf -o taken --overwrite", 5, "files.foreign-content"),
        ("--input hf -o tok --eos-token he", 5, "tokenizer.eos-unknown"),
        ("--input hf -o tok --eos-token <|none|>", 5, "tokenizer.eos-unknown"),
        ("--input disagrees -o tok", 5, "tokenizer.sibling-disagrees"),
        ("--input disagrees/tokenizer.json -o tok", 5, "tokenizer.sibling-disagrees"),
        ("--input hf", 2, "usage"),
        ("-o tok", 2, "usage"),
    ],
)
def test_refusals_have_an_id_and_a_code_and_write_nothing(
    here: Path, capsys: Captured, words: str, code: int, id: str
) -> None:
    (here / "empty").mkdir()
    (here / "spm.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15")
    (here / "taken").mkdir()
    (here / "taken" / "thesis.txt").write_text("")
    write(here / "disagrees")
    (here / "disagrees" / "added_tokens.json").write_text('{"<|new|>": 260}')
    before = sorted(here.rglob("*"))
    found, answer = run_json(capsys, *words.split())
    assert (found, answer["exit_code"], answer["refused"]["id"]) == (code, code, id)
    assert sorted(here.rglob("*")) == before


def test_overwriting_needs_a_word(here: Path) -> None:
    assert run("--input", "hf", "-o", "tok") == 0
    assert run("--input", "hf", "-o", "tok") == 5
    assert run("--input", "hf", "-o", "tok", "--overwrite", "--eos-token", EOS) == 0
    assert Tokenizer.load(here / "tok").eos_token == EOS


@pytest.mark.parametrize(
    "change",
    [
        set_in("vocab_size", to=261),
        set_in("imported", "includes_added_tokens", to=True),
        set_in("imported", "vocab_size_without_added_tokens", to=258),
        set_in("imported", "vocab_size_with_added_tokens", to=262),
        set_in("imported", "unknown", to=1),
        set_in("imported", "file", to=None),
        set_in("merges_count", to=4),
    ],
)
def test_an_edited_record_is_noticed(here: Path, change: Change) -> None:
    assert run("--input", "hf", "-o", "tok") == 0
    path = here / "tok" / "manifest.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(DamagedFile) as caught:
        Tokenizer.load(here / "tok")
    assert caught.value.id in {"tokenizer.sibling-damaged", "tokenizer.manifest-mismatch"}


def test_an_edited_tokenizer_is_noticed(here: Path) -> None:
    assert run("--input", "hf", "-o", "tok") == 0
    (here / "tok" / "vocab.json").unlink()
    write(here / "tok", swapped("a", "b"), control=(EOS, "<|im_end|>"))
    with pytest.raises(DamagedFile) as caught:
        Tokenizer.load(here / "tok")
    assert caught.value.id == "tokenizer.manifest-mismatch"
    assert tokenizer(swapped("a", "b")).fingerprint != tokenizer().fingerprint
