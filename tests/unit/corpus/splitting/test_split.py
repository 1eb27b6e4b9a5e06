"""A split by groups, on disk: both sides, their certificate, and what cannot be split."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.corpus_files import documents_in, program, texts_in, write_jsonl, write_tree

from apr.corpus.certificate import read_certificate
from apr.corpus.splitting.parts import PartWriter
from apr.corpus.splitting.split import Split, split_corpus
from apr.corpus.splitting.split_rule import SplitRule
from apr.errors import Refusal
from apr.progress import Progress

REPOS = {
    f"repo{number % 20}/pkg{number % 3}/file{number}.py": program(number) for number in range(120)
}


@pytest.fixture
def repos(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "repos", REPOS)


def split(
    *paths: Path,
    output: Path,
    fraction: float = 0.2,
    group: Any = "repo",
    seed: int = 0,
    **rest: Any,
) -> Split:
    return split_corpus(paths, output=output, rule=SplitRule(group, fraction, seed), **rest)


def sides(output: Path) -> tuple[set[str], set[str]]:
    return set(texts_in(output / "train")), set(texts_in(output / "held-out"))


def refusal(*paths: Path, output: Path, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        split(*paths, output=output, **options)
    assert not output.exists()
    assert [path.name for path in output.parent.iterdir() if path.suffix == ".tmp"] == []
    return refused.value


def test_every_document_is_on_one_side(repos: Path, tmp_path: Path) -> None:
    result = split(repos, output=tmp_path / "out")
    train, held_out = sides(tmp_path / "out")
    assert train | held_out == set(REPOS.values())
    assert train & held_out == set()
    assert result.train.num_documents == len(train)
    assert result.held_out.num_documents == len(held_out)
    assert result.account.drops == {}


@pytest.mark.parametrize(("group", "parts"), [("repo", 1), ("package", 2)])
def test_what_stays_together(repos: Path, tmp_path: Path, group: str, parts: int) -> None:
    split(repos, output=tmp_path / "out", group=group)
    below = [
        {
            Path(document.source.removeprefix(f"{repos}/")).parts[:parts]
            for document in map(_origin, documents_in(tmp_path / "out" / side))
        }
        for side in ("train", "held-out")
    ]
    assert len(below[0]) > len(below[1]) > 1
    assert below[0] & below[1] == set()


def _origin(document: Any) -> Any:
    """The file that a written row came from."""
    (row,) = [row for row in _rows(Path(document.source)) if row["content"] == document.text]
    return type(document)(document.text, row["source"], row["group"])


def _rows(path: Path) -> list[dict[str, str]]:
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_a_row_says_where_it_came_from(tmp_path: Path) -> None:
    rows = [{"content": program(number), "repo": f"r{number % 9}"} for number in range(30)]
    corpus = write_jsonl(tmp_path / "a.jsonl", rows)
    split(corpus, output=tmp_path / "out")
    written = _rows(tmp_path / "out" / "train" / "part-00000.jsonl.zst")
    assert len(written) > 10
    for row in written:
        number = int(row["source"].rpartition(":")[2]) - 1
        assert row == {
            "content": rows[number]["content"],
            "source": f"{corpus}:{number + 1}",
            "group": rows[number]["repo"],
        }


def test_rows_name_their_group_in_any_field(tmp_path: Path) -> None:
    rows = [{"text": program(number), "origin": f"r{number % 9}"} for number in range(60)]
    corpus = write_jsonl(tmp_path / "a.jsonl", rows)
    split(corpus, output=tmp_path / "out", group_field="origin", content_field="text")
    groups = [
        {row["group"] for row in _rows(tmp_path / "out" / side / "part-00000.jsonl.zst")}
        for side in ("train", "held-out")
    ]
    assert groups[0] | groups[1] == {f"r{number}" for number in range(9)}
    assert groups[0] & groups[1] == set()


def test_rows_in_a_repository_belong_to_it(tmp_path: Path) -> None:
    for repo in range(12):
        rows = [{"content": program(repo * 10 + number)} for number in range(3)]
        write_jsonl(tmp_path / "all" / f"repo{repo}" / "data.jsonl", rows)
    split(tmp_path / "all", output=tmp_path / "out", fraction=0.3)
    for side in ("train", "held-out"):
        groups = [row["group"] for row in _rows(tmp_path / "out" / side / "part-00000.jsonl.zst")]
        assert {groups.count(group) for group in groups} == {3}


def test_a_row_without_a_group_is_refused(tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "a.jsonl", [{"content": "x"}, {"content": "y"}])
    refused = refusal(corpus, output=tmp_path / "out")
    assert (refused.id, refused.where) == ("corpus.group-unknown", f"{corpus}:1")
    assert "--group file" in refused.fix


def test_equal_texts_of_single_files_stay_together(tmp_path: Path) -> None:
    rows = [{"content": program(number // 4)} for number in range(200)]
    result = split(write_jsonl(tmp_path / "a.jsonl", rows), output=tmp_path / "out", group="file")
    train, held_out = sides(tmp_path / "out")
    assert train & held_out == set()
    assert result.train.num_documents + result.held_out.num_documents == 200
    assert result.account.drops == {}


@pytest.mark.parametrize("change", [str, lambda text: text.replace("\n", " \r\n") + "\n\n"])
def test_a_training_copy_of_held_out_text_is_left_out(
    repos: Path, tmp_path: Path, change: Any
) -> None:
    split(repos, output=tmp_path / "before")
    train, held_out = sides(tmp_path / "before")
    copy = change(sorted(held_out)[0])
    (group,) = {name.split("/")[0] for name, text in REPOS.items() if text == sorted(train)[0]}
    write_tree(repos, {f"{group}/copy.py": copy})
    result = split(repos, output=tmp_path / "after")
    assert sides(tmp_path / "after") == (train, held_out)
    assert result.account.drops == {"duplicate_of_held_out": 1}
    assert result.account.examples["duplicate_of_held_out"] == [f"{repos}/{group}/copy.py"]
    result.account.require_balanced()
    certificate, _ = read_certificate(tmp_path / "after" / "certificate.json")
    assert [check.num_removed for check in certificate.checks if check.kind == "exact"] == [1]


def test_copies_inside_one_side_stay(repos: Path, tmp_path: Path) -> None:
    before = split(repos, output=tmp_path / "before")
    (name,) = [
        name for name, text in REPOS.items() if text == texts_in(tmp_path / "before" / "train")[0]
    ]
    write_tree(repos, {f"{name}.bak": REPOS[name]})
    after = split(repos, output=tmp_path / "after")
    assert after.train.num_documents == before.train.num_documents + 1
    assert after.train.documents_sha256 == before.train.documents_sha256


def test_documents_keep_their_order(repos: Path, tmp_path: Path) -> None:
    split(repos, output=tmp_path / "out")
    train = texts_in(tmp_path / "out" / "train")
    assert train == [text for text in texts_in(repos) if text in set(train)]


def test_the_seed_decides_and_nothing_else_does(repos: Path, tmp_path: Path) -> None:
    names = ("certificate.json", "split.json", "train/part-00000.jsonl.zst")
    split(repos, output=tmp_path / "a")
    split(repos, output=tmp_path / "b")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    split(repos, output=tmp_path / "c", seed=1)
    assert sides(tmp_path / "a") != sides(tmp_path / "c")


def test_the_certificate_names_what_was_written(repos: Path, tmp_path: Path) -> None:
    result = split(repos, output=tmp_path / "out")
    certificate, sha256 = read_certificate(tmp_path / "out" / "certificate.json")
    assert sha256 == result.certificate_sha256
    assert (certificate.train, certificate.held_out) == (result.train, result.held_out)
    assert certificate.side_of(result.train.documents_sha256) == "train"
    assert certificate.side_of(result.held_out.documents_sha256) == "held-out"
    assert certificate.side_of("0" * 64) is None
    record = json.loads((tmp_path / "out" / "split.json").read_bytes())
    assert record["held-out"] == result.held_out.model_dump()
    assert record["certificate_sha256"] == sha256


def test_a_large_side_is_cut_into_parts(tmp_path: Path) -> None:
    documents = documents_in(write_tree(tmp_path / "in", REPOS))
    with PartWriter(tmp_path / "out", part_bytes=30_000) as writer:
        for document in documents:
            writer.append(document)
    parts = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert parts == [f"part-{number:05d}.jsonl.zst" for number in range(len(parts))]
    assert len(parts) > 5
    assert texts_in(tmp_path / "out") == [document.text for document in documents]


@pytest.mark.parametrize("group", ["repo", "package", "file"])
def test_a_corpus_too_small_to_split_is_refused(tmp_path: Path, group: str) -> None:
    tree = write_tree(tmp_path / "in", {"a/one.py": "x = 1\n", "a/two.py": "x = 2\n"})
    refused = refusal(tree, output=tmp_path / "out", fraction=1e-6, group=group)
    assert refused.id == "corpus.split-impossible"
    assert "0 held-out" in refused.found


def test_training_text_that_is_all_held_out_is_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", {f"r{number}/same.py": "same\n" for number in range(40)})
    refused = refusal(tree, output=tmp_path / "out")
    assert refused.id == "corpus.split-impossible"
    assert "repeat held-out text" in refused.found


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(Refusal) as refused:
        SplitRule("repo", fraction)
    assert (refused.value.id, refused.value.exit_code) == ("corpus.split-fraction", 2)


def test_a_bad_row_stops_the_split(tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "a.jsonl", [{"content": "x"}, {"content": None}])
    assert refusal(corpus, output=tmp_path / "out", group="file").id == "corpus.jsonl-damaged"


def test_input_that_changes_between_the_readings_is_refused(repos: Path, tmp_path: Path) -> None:
    """A file of the same size, so that only the documents tell."""
    (repos / "repo1" / "z.py").write_text("a")
    seen: list[str] = []

    def change(progress: Progress) -> None:
        seen.append(progress.activity)
        if progress.activity.startswith("writing"):
            (repos / "repo1" / "z.py").write_text(" ")

    refused = refusal(repos, output=tmp_path / "out", progress=change)
    assert refused.id == "corpus.input-changed"
    assert len(set(seen)) == 2


def test_a_part_that_does_not_read_back_is_refused(repos: Path, tmp_path: Path) -> None:
    """A frame more at the end of the training part: the file is sound, its documents are others."""

    def append(progress: Progress) -> None:
        if progress.activity == "checking held-out":
            (staged,) = tmp_path.glob(".out.*.tmp")
            with (staged / "train" / "part-00000.jsonl.zst").open("ab") as part:
                part.write(zstandard.compress(b'{"content": "one more"}\n'))

    assert refusal(repos, output=tmp_path / "out", progress=append).id == "corpus.read-back"


def test_an_output_inside_the_input_is_refused(repos: Path) -> None:
    with pytest.raises(Refusal) as refused:
        split(repos, output=repos / "out")
    assert refused.value.id == "files.output-overlaps-input"


def test_overwriting_needs_consent_and_spares_foreign_files(repos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    split(repos, output=output)
    with pytest.raises(Refusal) as refused:
        split(repos, output=output, seed=1)
    assert refused.value.id == "files.exists"
    before = sides(output)
    split(repos, output=output, seed=1, overwrite=True)
    assert sides(output) != before
    (output / "train" / "thesis.tex").write_text("years of work")
    with pytest.raises(Refusal) as refused:
        split(repos, output=output, overwrite=True)
    assert refused.value.id == "files.foreign-content"
    assert (output / "train" / "thesis.tex").read_text() == "years of work"


def test_progress_reaches_its_end_once_per_reading(repos: Path, tmp_path: Path) -> None:
    reports: list[Progress] = []
    split(repos, output=tmp_path / "out", progress=reports.append)
    ended = [report.activity for report in reports if report.done == report.total]
    assert len(ended) == len(set(ended)) == 4
    assert all(a.done <= b.done for a, b in pairwise(reports) if a.activity == b.activity)
