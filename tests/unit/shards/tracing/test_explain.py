"""Every token of a corpus leads back to its document, its row and its line."""

from pathlib import Path

import numpy as np
import pytest
from tests.corpus_files import program, write_jsonl, write_tree
from tests.shard_files import encode, ids_of, rewrite_shard
from tests.tokenizer_files import EOS, set_in, swapped, tokenizer

from apr.cli.main import run
from apr.corpus.splitting.split import split_corpus
from apr.corpus.splitting.split_rule import SplitRule
from apr.errors import Refusal, UsageRefusal
from apr.shards.encode import encode_corpus
from apr.shards.provenance import PROVENANCE_NAME
from apr.shards.reader import ShardReader
from apr.shards.tracing.explain import Explanation, explain

TEXTS = ["one\ntwo\n\nhello", "naïve 🎉\r\nlast", "x = 1\n" * 4]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    tokenizer().save(tmp_path / "tok")
    return encode(tmp_path, TEXTS)[0]


def told(directory: Path, token_index: int, *, context: int = 2) -> Explanation:
    tok = directory.parent / "tok"
    return explain(directory, token_index=token_index, tokenizer_path=tok, context=context)


@pytest.mark.parametrize("policy", ["after", "between", "none"])
def test_every_token_knows_its_row_and_line(tmp_path: Path, policy: str) -> None:
    tokenizer().save(tmp_path / "tok")
    output, _ = encode(tmp_path, TEXTS, eos_policy=policy)
    reader = ShardReader.open(output)
    for index, text in enumerate(TEXTS):
        start, stop = reader.document_range(index)
        spelled = b""
        for token_index in range(start, stop):
            found = told(output, token_index)
            assert found.token.document_index == index
            assert found.place is not None
            assert found.place.row == index + 1
            assert (found.first_token, found.num_document_tokens) == (start, stop - start)
            if found.token.is_separator:
                assert (found.token.data, found.line) == (EOS.encode(), None)
                assert token_index == stop - 1
                continue
            assert found.line == 1 + spelled.count(b"\n")
            assert found.token.data is not None
            spelled += found.token.data
        assert spelled == text.encode()


def test_a_file_of_a_tree_is_named_without_a_row(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a = 1\n")
    (tmp_path / "src" / "b.py").write_text("b = 2\nc = 3\n")
    tokenizer().save(tmp_path / "tok")
    encode_corpus(
        [tmp_path / "src"], encoder="reference", tokenizer=tokenizer(), output=tmp_path / "shards"
    )
    found = told(tmp_path / "shards", 15)
    assert found.place is not None
    assert found.place.place == str(tmp_path / "src" / "b.py")
    assert (found.line, found.token.text) == (2, "=")


def test_a_document_of_a_split_leads_back_to_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Line and file are those of the tree that was split."""
    tree = write_tree(tmp_path / "src", {f"p{at}/m.py": program(at) for at in range(8)})
    split_corpus([tree], output=tmp_path / "data", rule=SplitRule("package", 0.4))
    tokenizer().save(tmp_path / "tok")
    encode_corpus(
        [tmp_path / "data" / "train"],
        encoder="reference",
        tokenizer=tokenizer(),
        output=tmp_path / "shards",
    )
    reader = ShardReader.open(tmp_path / "shards")
    for index in range(reader.num_documents):
        start, stop = reader.document_range(index)
        found = told(tmp_path / "shards", (start + stop) // 2)
        assert found.place is not None
        assert found.place.origin is not None
        assert found.line is not None
        lines = Path(found.place.origin).read_text().splitlines(keepends=True)
        assert found.characters is not None
        assert found.characters in lines[found.line - 1]
        assert found.as_dict()["origin"] == found.place.origin
    assert run(["tokenize", "explain", str(tmp_path / "shards"), "--token", "0"]) == 0
    assert f"  before: {tree}/p" in capsys.readouterr().out


@pytest.mark.parametrize("source", [7, "", None, ["a.py"], "x" * 4097, {"path": "a"}])
def test_a_row_that_names_no_place_has_no_origin(tmp_path: Path, source: object) -> None:
    rows = write_jsonl(tmp_path / "a.jsonl", [{"content": "text", "source": source}])
    tokenizer().save(tmp_path / "tok")
    encode_corpus([rows], encoder="reference", tokenizer=tokenizer(), output=tmp_path / "shards")
    found = told(tmp_path / "shards", 0)
    assert found.place is not None
    assert (found.place.source, found.place.row) == (str(rows), 1)
    assert found.place.origin is None


def test_a_part_of_a_character_is_shown_with_the_whole(shards: Path) -> None:
    reader = ShardReader.open(shards)
    start, stop = reader.document_range(1)
    parts = [told(shards, at) for at in range(start, stop)]
    split = [part for part in parts if part.token.text is None]
    assert [part.characters for part in split] == ["ï"] * 2 + ["🎉"] * 4
    assert b"".join(part.token.data or b"" for part in split) == "ï🎉".encode()
    whole = [part for part in parts if part.token.text is not None]
    assert all(part.characters == part.token.text for part in whole)


def test_bytes_that_are_no_character_are_shown_as_bytes(tmp_path: Path) -> None:
    tokenizer().save(tmp_path / "tok")
    output, _ = encode(tmp_path, ["aïb"])
    ids = ids_of(output, 0)
    rewrite_shard(output, 0, [ids[0], ids[2], ids[1], *ids[3:]])
    found = told(output, 2)
    assert found.token.data == b"\xc3"
    assert found.token.text is None
    assert found.characters is None


def test_the_context_is_the_tokens_on_either_side(shards: Path) -> None:
    total = ShardReader.open(shards).num_tokens
    middle = told(shards, 20, context=3)
    assert [token.token_index for token in middle.context] == list(range(17, 24))
    assert middle.token in middle.context
    first, last = told(shards, 0, context=3), told(shards, total - 1, context=3)
    assert [token.token_index for token in first.context] == [0, 1, 2, 3]
    assert [token.token_index for token in last.context] == list(range(total - 4, total))
    assert [token.document_index for token in told(shards, 16, context=3).context][-1] == 1


def test_without_a_tokenizer_or_sources_it_says_what_it_cannot_know(shards: Path) -> None:
    (shards / PROVENANCE_NAME).unlink()
    found = explain(shards, token_index=1)
    assert set(found.unknown) == {"source", "text", "line"}
    assert found.document_hash == ShardReader.open(shards).document_hashes[0].tobytes().hex()
    value = found.as_dict()
    assert [value[name] for name in ("text", "bytes", "line", "source", "row")] == [None] * 5
    assert told(shards, 1).unknown == {"source": f"the directory has no {PROVENANCE_NAME}"}
    assert told(shards, 4).line == 2


def test_a_tokenizer_that_is_not_spelled_by_byte(tmp_path: Path) -> None:
    used = tokenizer(set_in("pre_tokenizer", "add_prefix_space", to=True))
    used.save(tmp_path / "tok")
    output, _ = encode(tmp_path, ["one\nhe"], with_tokenizer=used)
    found = told(output, ShardReader.open(output).num_tokens - 2)
    assert (found.line, found.token.text) == (2, "he")


@pytest.mark.parametrize("token_index", [-1, 56, 1 << 70])
def test_a_token_outside_the_stream_is_refused(shards: Path, token_index: int) -> None:
    assert ShardReader.open(shards).num_tokens == 56
    with pytest.raises(UsageRefusal) as refused:
        told(shards, token_index)
    assert refused.value.id == "shards.token-range"
    assert told(shards, 55).token.is_separator


def test_another_tokenizer_is_refused(shards: Path) -> None:
    tokenizer(swapped("he", "hel")).save(shards.parent / "tok", overwrite=True)
    with pytest.raises(Refusal) as refused:
        told(shards, 0)
    assert refused.value.id == "shards.other-tokenizer"


def test_a_shard_that_changed_is_refused_where_it_is_read(shards: Path) -> None:
    path = shards / "shard-00001.bin"
    np.array(ids_of(shards, 1)[::-1], "<u4").tofile(path)
    assert told(shards, 0).token.text == "o"
    with pytest.raises(Refusal) as refused:
        told(shards, 55)
    assert refused.value.id == "shards.hash-mismatch"


def test_an_id_beyond_the_tokenizer_is_refused(shards: Path) -> None:
    rewrite_shard(shards, 0, [300, *ids_of(shards, 0)[1:]])
    with pytest.raises(Refusal) as refused:
        told(shards, 1)
    assert refused.value.id == "tokenizer.id-range"
