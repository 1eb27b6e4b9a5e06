"""What a name says about the language."""

import pytest

from apr.corpus.scanning.languages import extension_of, language_of


@pytest.mark.parametrize(
    ("path", "extension", "language"),
    [
        ("a.py", ".py", "Python"),
        ("src/a.PY", ".py", "Python"),
        ("a.test.tsx", ".tsx", "TypeScript"),
        ("x/Makefile", "Makefile", "Make"),
        ("CMakeLists.txt", "CMakeLists.txt", "CMake"),
        ("s3://bucket/a.rs", ".rs", "Rust"),
        ("a.c++", ".c++", "C++"),
        ("a.unheard", ".unheard", None),
        ("README", "", None),
        (".bashrc", "", None),
        ("a.py/b", "", None),
        ("a.", "", None),
        ("", "", None),
        ("a.no way", "", None),
        ("a." + "x" * 17, "", None),
        ("a.\n", "", None),
        ("a.été", "", None),
    ],
)
def test_an_extension_tells_the_language(path: str, extension: str, language: str | None) -> None:
    assert extension_of(path) == extension
    assert language_of(extension) == language
