"""F21: training text in the validation set.

Whole groups are held out before anything else happens, by a rule that looks at nothing but the
group. A copy of a held-out text is taken out of training and counted, wherever it lies.
"""

from pathlib import Path

import pytest
from tests.corpus_files import program, texts_in, write_tree

from apr.corpus.splitting.split import Split, split_corpus
from apr.corpus.splitting.split_rule import SplitRule
from apr.errors import Refusal

REPOS = {f"repo{number % 10}/file{number}.py": program(number) for number in range(60)}
RULE = SplitRule("repo", 0.3)


def split(tree: dict[str, str], folder: Path, name: str = "out") -> tuple[Split, Path]:
    corpus, output = write_tree(folder / f"{name}-in", tree), folder / name
    return split_corpus([corpus], output=output, rule=RULE), output


def leaked(output: Path) -> int:
    train, held_out = texts_in(output / "train"), set(texts_in(output / "held-out"))
    assert train
    assert held_out
    return sum(text in held_out for text in train)


def test_the_harmless_twin_loses_nothing(tmp_path: Path) -> None:
    result, output = split(REPOS, tmp_path)
    assert leaked(output) == 0
    assert result.account.drops == {}
    assert result.train.num_documents + result.held_out.num_documents == len(REPOS)


def test_one_exact_copy_in_another_repository_is_taken_out(tmp_path: Path) -> None:
    _, twin = split(REPOS, tmp_path, "twin")
    copied = texts_in(twin / "held-out")[3]
    train_repo = next(
        name.split("/")[0] for name, text in REPOS.items() if text in texts_in(twin / "train")
    )
    result, output = split(REPOS | {f"{train_repo}/vendored.py": copied}, tmp_path)
    assert texts_in(output / "held-out") == texts_in(twin / "held-out")
    assert leaked(output) == 0
    assert result.account.drops == {"duplicate_of_held_out": 1}


def test_a_corpus_sampled_twice_before_the_split_does_not_leak(tmp_path: Path) -> None:
    """The same files in a second set of repositories: a split by documents would leak half."""
    doubled = REPOS | {f"fork-{name}": text for name, text in REPOS.items()}
    result, output = split(doubled, tmp_path)
    assert leaked(output) == 0
    assert result.account.drops["duplicate_of_held_out"] > 0


def test_an_empty_validation_set_is_no_split(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        split({"only/one.py": program(1), "only/two.py": program(2)}, tmp_path)
    assert refused.value.id == "corpus.split-impossible"
    assert not (tmp_path / "out").exists()
