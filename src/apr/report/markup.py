"""HTML as values: the only place where text becomes markup.

Strings from a corpus, a model or a path are hostile until `escape` has seen them, and the type
says so: elements take `Html`, and only `escape` and `element` make it.
"""

import html
import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NewType

Html = NewType("Html", str)

NOTHING = Html("")
CELL_BYTES = 400
_ATTRIBUTE_BYTES = 1 << 20
ROW_LIMIT = 100

_LEFT, _RIGHT = "\N{MATHEMATICAL LEFT ANGLE BRACKET}", "\N{MATHEMATICAL RIGHT ANGLE BRACKET}"
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def escape(text: object, *, limit_bytes: int = CELL_BYTES, multiline: bool = False) -> Html:
    """Text as markup that shows exactly these characters, the invisible ones by name.

    Cut after `limit_bytes` bytes of markup, saying how much is left out, so that no string of
    a record can make a page large. Line ends and tabs stay as they are only in `multiline` text.
    """
    source = str(text)
    kept = "\n\t" if multiline else ""
    pieces: list[str] = []
    size_bytes = 0
    for index, character in enumerate(source):
        piece = character if character in kept else html.escape(_visible(character))
        size_bytes += len(piece.encode("utf-8"))
        if size_bytes > limit_bytes:
            pieces.append(f"\N{HORIZONTAL ELLIPSIS} ({len(source) - index:,} more characters)")
            break
        pieces.append(piece)
    return Html("".join(pieces))


def _visible(character: str) -> str:
    code = ord(character)
    noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    if noncharacter or unicodedata.category(character) in _INVISIBLE:
        return f"{_LEFT}U+{code:04X}{_RIGHT}"
    return character


def element(tag: str, *children: Html, **attributes: object) -> Html:
    """One element; attribute values are escaped here.

    A name is written with hyphens for underscores and without a trailing one (`class_`).
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_attribute(str(value))}"'
        for name, value in attributes.items()
    )
    return Html(f"<{tag}{written}>{''.join(children)}</{tag}>")


def _attribute(value: str) -> Html:
    # Curves are long and plain; walking them character by character would take most of the time.
    if value.isascii() and value.isprintable():
        return Html(html.escape(value))
    return escape(value, limit_bytes=_ATTRIBUTE_BYTES)


def join(parts: Iterable[Html]) -> Html:
    """Markup, one piece after the other."""
    return Html("\n".join(parts))


def paragraph(*children: Html, class_: str = "note") -> Html:
    """Running text."""
    return element("p", *children, class_=class_)


def absent(words: str, reason: str | None = None) -> Html:
    """What stands where something should be, with the reason where there is one."""
    told = words if reason is None else f"{words}: {reason}"
    return element("span", escape(told), class_="missing")


def not_measured(reason: str | None = None) -> Html:
    """What stands where a number would, had anybody measured it."""
    return absent("not measured", reason)


def value_words(value: object) -> Html:
    """A value of a record as it stands there; text without its quotes, nothing as a dash."""
    if value is None:
        return element("span", escape("none"), class_="missing")
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escape(text) if text else element("span", escape("empty"), class_="missing")


def section(title: str, *content: Html, id: str) -> Html:
    """One titled part of the page."""
    body = element("div", *content, class_="body")
    heading = element("h2", escape(title), id=f"{id}-heading")
    return element("section", heading, body, id=id, aria_labelledby=f"{id}-heading")


def facts(pairs: Sequence[tuple[str, object]]) -> Html:
    """Names with the values they have on record, at most `ROW_LIMIT` of them."""
    rows = [
        element(
            "div",
            element("dt", escape(name, limit_bytes=200)),
            element("dd", value_words(value)),
        )
        for name, value in pairs[:ROW_LIMIT]
    ]
    return join([element("dl", *rows, class_="facts"), left_out(len(pairs), ROW_LIMIT)])


def table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[Html]], *, class_: str
) -> Html:
    """A captioned table whose rows become small cards on a narrow page.

    The roles repeat what the tags say, because browsers forget it once a style turns rows into
    blocks.
    """
    heads = [element("th", escape(name), scope="col", role="columnheader") for name in header]
    lines = [
        element(
            "tr",
            *(
                element("td", cell, role="cell", data_label=name)
                for name, cell in zip(header, row, strict=True)
            ),
            role="row",
        )
        for row in rows
    ]
    return element(
        "table",
        element("caption", escape(caption, limit_bytes=1000)),
        element("thead", element("tr", *heads, role="row"), role="rowgroup"),
        element("tbody", *lines, role="rowgroup"),
        class_=class_,
        role="table",
    )


def left_out(total: int, shown: int) -> Html:
    """A line saying how many entries are not on the page; nothing when all are."""
    if total <= shown:
        return NOTHING
    return paragraph(escape(f"{total - shown:,} more are in the record and not listed here."))
