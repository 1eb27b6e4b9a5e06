"""Which licences a corpus names, as evidence and not as legal advice.

Three things are recognised: an `SPDX-License-Identifier:` tag anywhere in a text, also where a
program only mentions one; the usual text or title of a licence in a file that is named for it
(LICENSE, COPYING, ...); and the licence field of a row. A notice at the head of a source file is
not, nor does the licence file of a directory count for the files beside it.
"""

import re
from collections.abc import Iterator
from typing import Any, cast

UNRECOGNISED = "unrecognised"

_TAG = "SPDX-License-Identifier:"
_ID = r"\(*[A-Za-z0-9][A-Za-z0-9.+:-]{0,79}\)*"
_EXPRESSION = re.compile(rf"[ \t]*({_ID}(?:[ \t]+(?:AND|OR|WITH|and|or|with)[ \t]+{_ID}){{0,15}})")
_MOST_TAGS = 16
_FIELD_CHARACTERS = 100
_FILE_NAME = re.compile(
    r"(?:.*[-_.])?(?:licen[cs]es?|unlicen[cs]e|copying|copyright|mit-licen[cs]e)(?:[-_.].*)?",
    re.IGNORECASE,
)
_CODE_NAME = re.compile(r".*\.(?:[chm]|cc|cpp|cs|go|java|jsx?|kt|php|pl|py|rb|rs|sh|swift|tsx?)")
# The longest of the texts below, GPL-3.0, has 35 KB; a bundle of several may be longer.
_FILE_CHARACTERS = 1 << 18
_GRANT_MIT = (
    "permission is hereby granted, free of charge, to any person obtaining a copy of this "
    "software and associated documentation files"
)
_GRANT_ISC = "distribute this software for any purpose with or without fee is hereby granted"
_GRANT_BSD = (
    "redistribution and use in source and binary forms, with or without modification, are permitted"
)
_BSD_NAMES = "be used to endorse or promote"
_BSD_CREDIT = "all advertising materials"
_ZLIB = "this software is provided 'as-is', without any express or implied warranty"
# A licence is there when all of the first phrases are, and none of the second.
_PHRASES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("0BSD", (_GRANT_ISC,), ("provided that the above copyright notice",)),
    ("AGPL-3.0", ("gnu affero general public license version 3, 19 november 2007",), ()),
    ("Apache-2.0", ("apache license version 2.0, january 2004",), ()),
    ("Apache-2.0", ("licensed under the apache license, version 2.0",), ("january 2004",)),
    ("Artistic-2.0", ("the artistic license 2.0",), ()),
    ("BSD-2-Clause", (_GRANT_BSD,), (_BSD_NAMES, _BSD_CREDIT)),
    ("BSD-3-Clause", (_GRANT_BSD, _BSD_NAMES), (_BSD_CREDIT,)),
    ("BSD-4-Clause", (_GRANT_BSD, _BSD_CREDIT), ()),
    ("BlueOak-1.0.0", ("blue oak model license version 1.0.0",), ()),
    ("BSL-1.0", ("boost software license - version 1.0",), ()),
    ("CC-BY-4.0", ("creative commons attribution 4.0 international",), ()),
    ("CC-BY-SA-4.0", ("creative commons attribution-sharealike 4.0 international",), ()),
    ("CC0-1.0", ("cc0 1.0 universal",), ()),
    ("EPL-2.0", ("eclipse public license - v 2.0",), ()),
    ("GPL-2.0", ("gnu general public license version 2, june 1991",), ()),
    ("GPL-3.0", ("gnu general public license version 3, 29 june 2007",), ()),
    ("ISC", (_GRANT_ISC, "provided that the above copyright notice"), ()),
    ("LGPL-2.0", ("gnu library general public license version 2, june 1991",), ()),
    ("LGPL-2.1", ("gnu lesser general public license version 2.1, february 1999",), ()),
    ("LGPL-3.0", ("gnu lesser general public license version 3, 29 june 2007",), ()),
    ("MIT", (_GRANT_MIT, "permission notice shall be included"), ()),
    ("MIT-0", (_GRANT_MIT, "furnished to do so. the software is provided"), ()),
    ("MPL-1.1", ("mozilla public license version 1.1",), ()),
    ("MPL-2.0", ("mozilla public license version 2.0",), ()),
    ("NCSA", (_GRANT_MIT, "list of conditions and the following disclaimers"), ()),
    ("PSF-2.0", ("python software foundation license version 2",), ()),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",), ()),
    ("WTFPL", ("do what the fuck you want to public license",), ()),
    ("Zlib", (_ZLIB, "altered source versions must be plainly marked"), ()),
)  # fmt: skip


def spdx_expressions(text: str) -> list[str]:
    """The distinct expressions of the first tags, with single spaces and as they are written."""
    if _TAG not in text:
        return []
    return list(dict.fromkeys(_tagged(text)))


def _tagged(text: str) -> Iterator[str]:
    at = 0
    for _ in range(_MOST_TAGS):
        at = text.find(_TAG, at)
        if at < 0:
            return
        at += len(_TAG)
        if match := _EXPRESSION.match(text, at):
            expression = " ".join(match[1].split())
            # As in "(SPDX-License-Identifier: MIT)".
            while expression.endswith(")") and expression.count(")") > expression.count("("):
                expression = expression[:-1]
            yield expression.rstrip(".:")


def is_licence_file(path: str) -> bool:
    """Whether a file is named as licences are, and not as a program that deals with them."""
    name = path.rpartition("/")[2]
    return _FILE_NAME.fullmatch(name) is not None and _CODE_NAME.fullmatch(name.lower()) is None


def licences_of_file(text: str) -> list[str]:
    """The licences whose usual text or title stands in a licence file, by SPDX id."""
    words = " ".join(re.sub(r"[*#>;\"]|//", " ", text[:_FILE_CHARACTERS]).lower().split())
    found = {
        name
        for name, wanted, unwanted in _PHRASES
        if all(phrase in words for phrase in wanted)
        and not any(phrase in words for phrase in unwanted)
    }
    return sorted(found) or [UNRECOGNISED]


def licences_of_row(value: object) -> list[str]:
    """The licences in the field of a row: a text, or a list of texts; anything else names none."""
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    texts = [each.strip()[:_FIELD_CHARACTERS] for each in values if isinstance(each, str)]
    return list(dict.fromkeys(text for text in texts if text))
