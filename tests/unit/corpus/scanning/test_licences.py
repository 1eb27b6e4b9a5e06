"""Licences that texts and rows name: what is recognised, and what is not."""

import time
from pathlib import Path

import pytest

from apr.corpus.scanning.licences import (
    UNRECOGNISED,
    is_licence_file,
    licences_of_file,
    licences_of_row,
    spdx_expressions,
)

TAG = "SPDX-License-" + "Identifier:"


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("# {} MIT", "MIT"),
        ("/* {} GPL-2.0-only WITH Linux-syscall-note */", "GPL-2.0-only WITH Linux-syscall-note"),
        ("// {}\tApache-2.0  OR   MIT", "Apache-2.0 OR MIT"),
        ("// {} (MIT AND (ISC OR Zlib))", "(MIT AND (ISC OR Zlib))"),
        ("<!-- ({} MIT) -->", "MIT"),
        ("x = '{} LicenseRef-mine.'", "LicenseRef-mine"),
        ("# {} MIT\n# and more", "MIT"),
        ("{} MIT or later", "MIT or later"),
        ("{} MIT and", "MIT"),
        ("{}GPL-2.0+", "GPL-2.0+"),
    ],
)
def test_a_tag_gives_its_expression(line: str, expression: str) -> None:
    assert spdx_expressions(f"a\n{line.format(TAG)}\nb") == [expression]


@pytest.mark.parametrize("text", ["", "MIT", TAG, f"{TAG}\nMIT", f"{TAG} -->", f"{TAG} )(", "SPDX"])
def test_what_is_no_tag_gives_nothing(text: str) -> None:
    assert spdx_expressions(text) == []


def test_tags_are_told_once_and_few_and_short() -> None:
    assert spdx_expressions(f"{TAG} MIT\n{TAG} ISC\n{TAG} MIT\n") == ["MIT", "ISC"]
    many = "".join(f"{TAG} L{number}\n" for number in range(50))
    assert spdx_expressions(many) == [f"L{number}" for number in range(16)]
    assert spdx_expressions(f"{TAG} {'x' * 5000}") == ["x" * 80]
    (long,) = spdx_expressions(TAG + " MIT" + " OR MIT" * 5000)
    assert long.count("OR") == 15


def test_hostile_tags_take_linear_time() -> None:
    started_s = time.process_time()
    for text in (TAG * 200_000, TAG + "(" * 4_000_000, f"{TAG} A AND " * 100_000):
        spdx_expressions(text)
    assert time.process_time() - started_s < 2


@pytest.mark.parametrize(
    ("name", "is_licence"),
    [
        ("LICENSE", True),
        ("a/b/LICENCE.md", True),
        ("COPYING.LESSER", True),
        ("copying", True),
        ("LICENSE-MIT", True),
        ("zlib-license.txt", True),
        ("third_party.LICENSES", True),
        ("UNLICENSE", True),
        ("debian/copyright", True),
        ("license.py", False),
        ("LICENSE/a.txt", False),
        ("licensed.txt", False),
        ("sublicense", False),
        ("README", False),
    ],
)
def test_a_licence_file_is_known_by_its_name(name: str, is_licence: bool) -> None:
    assert is_licence_file(name) is is_licence


MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this
    software and associated documentation files (the "Software"), to deal in the Software,
    and to permit persons to whom the Software is furnished to do so{}
    THE SOFTWARE IS PROVIDED "AS IS"."""
NOTICE = """, subject to the following conditions: The above copyright notice and this
    permission notice shall be included in all copies."""
BSD = """Redistribution and use in source and binary forms, with or without
 * modification, are permitted provided that the following conditions are met:
 * 1. Redistributions of source code must retain the above copyright notice.\n"""
NAMES = " * Neither the name of X nor its contributors may be used to endorse or promote products."
CREDIT = " * All advertising materials mentioning features must display an acknowledgement."
ISC = """Permission to use, copy, modify, and/or distribute this software for any purpose with
    or without fee is hereby granted{}."""


@pytest.mark.parametrize(
    ("text", "licences"),
    [
        (MIT.format(NOTICE), ["MIT"]),
        (MIT.format("."), ["MIT-0"]),
        (BSD, ["BSD-2-Clause"]),
        (BSD + NAMES, ["BSD-3-Clause"]),
        (BSD + NAMES + CREDIT, ["BSD-4-Clause"]),
        (ISC.format(", provided that the above copyright notice appear"), ["ISC"]),
        (ISC.format(""), ["0BSD"]),
        ("Apache License\n  Version 2.0, January 2004", ["Apache-2.0"]),
        ("Licensed under the Apache License, Version 2.0 (the X)", ["Apache-2.0"]),
        ("GNU GENERAL PUBLIC LICENSE\nVersion 2, June 1991", ["GPL-2.0"]),
        ("GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007", ["GPL-3.0"]),
        ("GNU LESSER GENERAL PUBLIC LICENSE\nVersion 2.1, February 1999", ["LGPL-2.1"]),
        ("GNU LESSER GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007", ["LGPL-3.0"]),
        ("GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3, 19 November 2007", ["AGPL-3.0"]),
        ("Mozilla Public License Version 2.0", ["MPL-2.0"]),
        ("This is free and unencumbered software released into the public\ndomain", ["Unlicense"]),
        (MIT.format(NOTICE) + BSD + NAMES, ["BSD-3-Clause", "MIT"]),
        ("All rights reserved.", [UNRECOGNISED]),
        ("", [UNRECOGNISED]),
    ],
)
def test_the_usual_texts_are_recognised(text: str, licences: list[str]) -> None:
    assert licences_of_file(text) == licences
    # In a comment, or set otherwise.
    assert licences_of_file("// " + text.replace("\n", "\r\n//\t")) == licences


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("Apache-2.0", "Apache-2.0"),
        ("BSD", "BSD-3-Clause"),
        ("CC0-1.0", "CC0-1.0"),
        ("GPL-2", "GPL-2.0"),
        ("GPL-3", "GPL-3.0"),
        ("LGPL-2", "LGPL-2.0"),
        ("LGPL-2.1", "LGPL-2.1"),
        ("LGPL-3", "LGPL-3.0"),
        ("MPL-1.1", "MPL-1.1"),
        ("MPL-2.0", "MPL-2.0"),
    ],
)
def test_the_full_texts_that_debian_ships(name: str, licence: str) -> None:
    path = Path("/usr/share/common-licenses", name)
    if not path.is_file():
        pytest.skip("needs the licence texts of Debian")
    assert licences_of_file(path.read_text(encoding="utf-8")) == [licence]


@pytest.mark.parametrize(
    ("value", "licences"),
    [
        ("MIT", ["MIT"]),
        (["MIT", " ISC ", "MIT", ""], ["MIT", "ISC"]),
        ("x" * 500, ["x" * 100]),
        (None, []),
        ("", []),
        (" \n", []),
        ([], []),
        ([None, 3, ["MIT"]], []),
        ({"key": "MIT"}, []),
        (7, []),
    ],
)
def test_the_field_of_a_row_is_a_text_or_a_list_of_texts(
    value: object, licences: list[str]
) -> None:
    assert licences_of_row(value) == licences
