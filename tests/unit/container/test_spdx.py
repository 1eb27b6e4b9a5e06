import subprocess
import sys

import pytest

from apr.container.spdx import near_misses, require_spdx, spdx_problem
from apr.errors import UsageRefusal


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("MIT", "MIT"),
        ("apache-2.0", "Apache-2.0"),
        (" MIT  or  Apache-2.0 ", "MIT OR Apache-2.0"),
        ("(MIT)", "MIT"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        (
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "GPL-2.0-only WITH Classpath-exception-2.0",
        ),
        ("CC-BY-4.0", "CC-BY-4.0"),
        ("LicenseRef-our.own-1", "LicenseRef-our.own-1"),
        ("MIT AND DocumentRef-x:LicenseRef-y", "MIT AND DocumentRef-x:LicenseRef-y"),
    ],
)
def test_expressions(text: str, canonical: str) -> None:
    assert require_spdx(text, where="--license") == canonical
    assert spdx_problem(text) is None


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("Apache 2.0", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("MIT License", "MIT"),
        ("apache2", "Apache-2.0"),
        ("cc-by", "CC-BY-4.0"),
        ("BSD", "BSD-1-Clause"),
        ("GPL", "GPL-CC-1.0"),
        ("MIT OR GPL", None),
        ("proprietary", None),
        ("mit/apache", None),
        ("MIT AND", None),
        ("MIT OR ()", None),
        ("()", None),
        ("", None),
        ("NOASSERTION", None),
        ("LicenseRef-", None),
        ("MIT WITH Apache-2.0", None),
        ("x" * 501, None),
    ],
)
def test_what_is_none_is_refused_with_near_misses(text: str, suggestion: str | None) -> None:
    with pytest.raises(UsageRefusal) as caught:
        require_spdx(text, where="--license")
    assert (caught.value.id, caught.value.where) == ("stamp.not-spdx", "--license")
    assert spdx_problem(text)
    if suggestion:
        assert suggestion in near_misses(text)
        assert suggestion in caught.value.fix
    elif not near_misses(text):
        assert "LicenseRef-NAME" in caught.value.fix


def test_a_long_text_costs_nothing() -> None:
    assert near_misses("- " * 100_000) == []
    assert near_misses("a" * 1_000_000) == []


def test_the_library_is_loaded_only_when_a_licence_is_read() -> None:
    program = "import sys, apr.container.stamp; print('license_expression' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
