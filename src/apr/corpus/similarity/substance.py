"""A text without what many texts share for good reasons: licence notices and imports.

Two files under one licence that use the same library have not been copied from each other.
"""

import re

_IMPORT = re.compile(
    r"\s*(?:import\b|from\s+[\w.]+\s+import\b|#\s*include\b|using\s|package\s|use\s|require\b"
    r"|(?:const|let|var)\s.*\brequire\()"
)
_COMMENT = re.compile(r"\s*(?:#|//|/\*|\*|--|;|<!--|\"\"\"|''')")
_NOTICE = re.compile(r"licen[cs]e|copyright|\(c\)\s|all rights reserved|spdx-", re.IGNORECASE)


def substance(text: str) -> str:
    """The lines of a text that are neither imports nor in a comment that is a legal notice."""
    kept: list[str] = []
    comment: list[str] = []
    in_brackets = False
    for line in text.splitlines():
        if in_brackets:
            in_brackets = ")" not in line
            continue
        if _COMMENT.match(line) and not _IMPORT.match(line):
            comment.append(line)
            continue
        kept += _unless_notice(comment)
        comment = []
        if _IMPORT.match(line):
            in_brackets = "(" in line and ")" not in line
        else:
            kept.append(line)
    return "\n".join([*kept, *_unless_notice(comment)])


def _unless_notice(comment: list[str]) -> list[str]:
    """A block of comment lines, unless it speaks of rights."""
    return [] if any(_NOTICE.search(line) for line in comment) else comment
