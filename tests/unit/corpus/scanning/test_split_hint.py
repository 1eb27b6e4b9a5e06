"""A suggested split: the coarsest groups of which there are enough."""

import pytest

from apr.corpus.document import Document
from apr.corpus.scanning.split_hint import GroupCount


def suggestion(documents: list[tuple[Document, object]]) -> tuple[str, float]:
    groups = GroupCount()
    for document, repo in documents:
        groups.add(document, repo)
    return groups.suggestion()


def files(num_repos: int, num_packages: int, num_files: int) -> list[tuple[Document, object]]:
    return [
        (Document("x", f"in/r/{at % num_packages}/{at}.py", f"r{at % num_repos}"), None)
        for at in range(num_files)
    ]


@pytest.mark.parametrize(
    ("counts", "suggested"),
    [
        ((3000, 3000, 3000), ("repo", 0.01)),
        ((1000, 1000, 1000), ("repo", 0.01)),
        ((999, 999, 999), ("repo", 0.02)),
        ((100, 1500, 2000), ("repo", 0.1)),
        ((99, 1500, 2000), ("package", 0.01)),
        ((1, 201, 2000), ("package", 0.05)),
        ((1, 2, 501), ("file", 0.02)),
        ((1, 1, 3), ("file", 0.1)),
    ],
)
def test_the_coarsest_groups_that_are_enough(
    counts: tuple[int, int, int], suggested: tuple[str, float]
) -> None:
    assert suggestion(files(*counts)) == suggested


def test_rows_are_split_by_the_repo_they_name() -> None:
    def row(at: int, repo: object) -> tuple[Document, object]:
        return Document("x", "a.jsonl", f"a.jsonl:{at}", at), repo

    named = [row(at, f"r{at % 400}") for at in range(1, 2000)]
    assert suggestion(named) == ("repo", 0.03)
    for unknown in (None, "", 7):
        assert suggestion([*named, row(2000, unknown)]) == ("file", 0.01)
    # Of rows no package is known.
    assert suggestion([*files(1, 1000, 1000), row(1, "r")]) == ("file", 0.01)
