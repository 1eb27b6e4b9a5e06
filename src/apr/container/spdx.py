"""Licence expressions as SPDX writes them: `MIT`, `Apache-2.0 OR MIT`, `LicenseRef-ours`.

The list of identifiers and the grammar are the library's; a name of one's own is allowed in the
form that SPDX gives it.
"""

import re
from difflib import get_close_matches
from functools import cache
from typing import Any

from apr.errors import UsageRefusal

_LONGEST = 500
_OWN_NAME = re.compile(r"(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")
_OPERATOR = re.compile(r"\s+(?:AND|OR|WITH)\s+|[()]", re.IGNORECASE)
# The library takes these for what their writers may have meant; SPDX knows none of them.
_NO_IDENTIFIERS = frozenset({"gpl", "gpl 2.0", "gpl 2.0+", "bsd-2"})
_SUGGESTIONS = 3


def require_spdx(text: str, *, where: str) -> str:
    """The expression in its canonical spelling.

    Refuses: stamp.not-spdx.
    """
    expression, problem = _read(text)
    if expression is None:
        near = near_misses(text)
        raise UsageRefusal(
            "stamp.not-spdx",
            where,
            found=f"{text!r:.80}: {problem}",
            expected="an SPDX licence expression, such as MIT, or Apache-2.0 OR MIT",
            fix=f"did you mean {' or '.join(near)}?" if near else "give it a name: LicenseRef-NAME",
        )
    return expression


def spdx_problem(text: str) -> str | None:
    """Why a text is no SPDX expression, or None."""
    return _read(text)[1]


def near_misses(text: str) -> list[str]:
    """Identifiers that a wrong one may stand for, the likeliest first."""
    spelled = {
        key.lower(): key for key in _licensing().known_symbols if not key.startswith("LicenseRef-")
    }
    wanted = re.sub(r"\b(the|licen[cs]e|version)\b|[\s_,]+", " ", text[:_LONGEST].lower())
    wanted = "-".join(wanted.split())
    longer = sorted((key for key in spelled if key.startswith(f"{wanted}-")), key=len)
    close = get_close_matches(wanted, spelled, n=_SUGGESTIONS, cutoff=0.7) if wanted else []
    found = dict.fromkeys([*(close if wanted in spelled else longer[:1]), *close, *longer[1:]])
    return [spelled[key] for key in found][:_SUGGESTIONS]


def _read(text: str) -> tuple[str | None, str | None]:
    """The canonical spelling, or what is wrong."""
    from license_expression import (  # pyright: ignore[reportMissingTypeStubs]
        ExpressionError,
    )

    if not text.strip() or len(text) > _LONGEST:
        return None, "empty" if not text.strip() else f"{len(text)} characters"
    licensing = _licensing()
    try:
        parsed = licensing.parse(text, strict=True)
    except ExpressionError as err:
        return None, " ".join(str(err).split())[:160]
    except (LookupError, AttributeError, TypeError):
        return None, "not an expression"  # The library trips over some of these: `()`.
    named = [word.strip() for word in _OPERATOR.split(text)]
    unknown = [word for word in named if word.lower() in _NO_IDENTIFIERS]
    unknown += [
        str(key)
        for key in licensing.unknown_license_keys(parsed)
        if not _OWN_NAME.fullmatch(str(key))
    ]
    if unknown:
        return None, f"no SPDX identifier: {', '.join(unknown)[:80]}"
    return str(parsed.render()), None


@cache
def _licensing() -> Any:
    from license_expression import (  # pyright: ignore[reportMissingTypeStubs]
        get_spdx_licensing,
    )

    return get_spdx_licensing()
