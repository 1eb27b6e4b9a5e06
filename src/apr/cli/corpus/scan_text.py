"""A scan as a person reads it: short tables, with bars where a share says more than a number."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from apr.cli.corpus.options import place_text
from apr.corpus.scanning.scan import Scan
from apr.units import format_bytes

_BAR_WIDTH = 20
_ROWS_SHOWN = 15
_PLACES_SHOWN = 3
_LINE_CHARACTERS = 100
_WORST: tuple[tuple[str, str, str, Callable[[Any], str]], ...] = (
    ("largest", "largest documents", "size_bytes", format_bytes),
    ("longest_line", "longest lines", "line_bytes", format_bytes),
    ("least_compressible", "least regular text", "ratio", "{:.2f} times".format),
    ("most_compressible", "most regular text", "ratio", "{:.2f} times".format),
)


def scan_text(scan: Scan) -> str:
    """All sections; one that has nothing to say is not there."""
    found = scan.as_dict()
    sections = (
        _overview(found),
        _left_out(found["left_out"]),
        _unreadable(found),
        _languages(found),
        _licences(found),
        _encodings(found),
        _duplicates(found),
        *_worst(found["worst"]),
        _stops(found),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _overview(found: dict[str, Any]) -> list[str]:
    formats = ", ".join(
        f"{counts['num_files']:,} {name}" for name, counts in found["formats"].items()
    )
    return _table(
        [
            ("files", f"{found['num_files']:,}", f"{format_bytes(found['size_bytes'])}: {formats}"),
            ("rows", f"{found['num_rows']:,}", "texts of a tree are one each"),
            (
                "documents",
                f"{found['num_documents']:,}",
                f"{format_bytes(found['text_bytes'])} of text ({found['text_bytes']:,} bytes, "
                f"{found['num_characters']:,} characters)",
            ),
        ]
    )


def _left_out(left_out: list[dict[str, Any]]) -> list[str]:
    lines = ["left out:"] if left_out else []
    width = max((len(f"{each['num_rows']:,}") for each in left_out), default=0)
    for each in left_out:
        fate = "quarantined" if each["is_quarantined"] else "dropped"
        lines.append(f"  {each['num_rows']:>{width},}  {fate}: {each['reason']}")
        found = "" if each["found"] is None else f": {_line(each['found'])}"
        places = [_line(place) for place in each["places"][:_PLACES_SHOWN]]
        lines += [f"  {'':>{width}}    {place}" for place in [f"{places[0]}{found}", *places[1:]]]
    return lines


def _unreadable(found: dict[str, Any]) -> list[str]:
    if not found["num_unreadable"]:
        return []
    shown = found["unreadable"][:_ROWS_SHOWN]
    lines = [f"could not be read to the end: {found['num_unreadable']:,} files"]
    lines += [f"  {_line(each['where'])}: {_line(each['found'])}" for each in shown]
    return [*lines, *_more(found["num_unreadable"] - len(shown), "files")]


def _languages(found: dict[str, Any]) -> list[str]:
    rows = [(_language(each), each) for each in found["languages"]]
    lines = _shares("languages", rows, found["text_bytes"])
    return lines + _hint(found["fields"]["path"], "a path", "--path-field")


def _language(row: dict[str, Any]) -> str:
    if row["language"] is not None:
        return str(row["language"])
    if not row["extensions"]:
        return "unknown: no path"
    return f"unknown: {next(iter(row['extensions'])) or 'no extension'}"


def _licences(found: dict[str, Any]) -> list[str]:
    spelled = {"row": "row", "tag": "SPDX tag", "file": "licence file"}
    licences = found["licences"]
    rows = [
        (f"{_line(each['licence'], 40)} ({spelled[each['named_in']]})", each)
        for each in licences["found"]
    ]
    # What names none is no licence, and stands last however much it is.
    without = [("none of their own", licences["without"])]
    kept = rows[:_ROWS_SHOWN]
    lines = _shares("licences", [*kept, *without], found["text_bytes"])
    lines += _more(len(rows) - len(kept), "licences")
    return lines + _hint(found["fields"]["license"], "a licence", "--license-field")


def _encodings(found: dict[str, Any]) -> list[str]:
    encodings = found["encodings"]
    counts = {"ASCII": encodings["ascii"], "UTF-8": encodings["utf-8"]}
    counts["with a byte-order mark"] = encodings["num_byte_order_marks"]
    counts["with a NUL"] = encodings["num_with_nul"]
    counts |= {f"line ends {name}": count for name, count in encodings["line_ends"].items()}
    rows = [(name, f"{count:,}", "") for name, count in counts.items() if count]
    rows += [
        # Where binary files are, the drops say.
        (
            f"not UTF-8, {name}",
            f"{each['num_files']:,}",
            "" if name == "binary" else _line(each["places"][0]),
        )
        for name, each in encodings["not_utf8"].items()
    ]
    return _headed("encodings", rows)


def _duplicates(found: dict[str, Any]) -> list[str]:
    duplicates, num_documents = found["duplicates"], max(1, found["num_documents"])
    rows = [
        (
            name,
            f"{each['num_documents']:,}",
            f"{format_bytes(each['text_bytes'])}, {each['num_documents'] / num_documents:.1%} "
            f"of the documents",
        )
        for name, each in (
            ("to the byte", duplicates["exact"]),
            ("but for white space at line ends, BOM and NFC", duplicates["normal_form"]),
        )
    ]
    lines = _headed("copies of an earlier document", rows)
    for each in duplicates["most_repeated"]:
        spellings = f" in {each['num_spellings']} spellings" if each["num_spellings"] > 1 else ""
        lines.append(
            f"  {each['num_copies']:,} times{spellings}, {format_bytes(each['text_bytes'])} in all"
        )
        lines += [f"    {_line(place_text(place))}" for place in each["places"]]
    return [*lines, "  near-duplicates are found by apr corpus dedup"]


def _worst(worst: dict[str, Any]) -> list[list[str]]:
    sections = [
        _headed(
            title,
            [("", spell(each[name]), _line(place_text(each))) for each in worst[kind]],
        )
        for kind, title, name, spell in _WORST
    ]
    ratios = worst["compression"]
    low, high = ratios["band"]
    if ratios["num_measured"]:
        sections.append(
            [
                f"zlib shrinks the middle {format_bytes(ratios['sample_bytes'])} of text and code "
                f"{low:g} to {high:g} times;",
                f"{ratios['num_outside_band']:,} of {ratios['num_measured']:,} documents of that "
                "length are outside",
            ]
        )
    return sections


def _stops(found: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for stop in found["stops"]:
        where = _line(stop["where"])
        if stop["id"] == "corpus.quarantined":
            count = stop["max_quarantined"]
            lines.append(
                f"  {count:,} rows would be quarantined: encode-corpus refuses them unless "
                f"--max-quarantined {count}; the first is {where}"
            )
        elif stop["id"] == "corpus.empty":
            lines.append("  there is no document: every command refuses that (corpus.empty)")
        else:
            lines.append(f"  every command refuses to read {where} ({stop['id']})")
    return ["what stops the other commands:", *lines] if lines else []


def _shares(title: str, rows: Sequence[tuple[str, dict[str, Any]]], total_bytes: int) -> list[str]:
    shown = [
        (
            name,
            f"{counts['num_documents']:,}",
            f"{format_bytes(counts['text_bytes']):>8}  "
            f"{counts['text_bytes'] / max(1, total_bytes):6.1%}  "
            + "#"
            * round(_BAR_WIDTH * counts["text_bytes"] / max(1, total_bytes)),
        )
        for name, counts in rows[: _ROWS_SHOWN + 1]
    ]
    return _headed(title, shown) + _more(len(rows) - len(shown), title)


def _hint(field: dict[str, Any], what: str, option: str) -> list[str]:
    if field["num_found"] or not field["num_documents"]:
        return []
    return [f"  no row has {what} in {field['name']!r}; {option} names another field"]


def _headed(title: str, rows: Iterable[tuple[str, str, str]]) -> list[str]:
    lines = [f"  {line}" for line in _table(list(rows))]
    return [f"{title}:", *lines] if lines else []


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """A name, a number aligned to the right, and what is to be said about it."""
    if not rows:
        return []
    names, numbers = (max(len(row[at]) for row in rows) for at in (0, 1))
    return [
        f"{f'{name:<{names}}  ' if names else ''}{number:>{numbers}}  {rest}".rstrip()
        for name, number, rest in rows
    ]


def _more(count: int, what: str) -> list[str]:
    return [f"  and {count:,} more {what}, which --json lists"] if count > 0 else []


def _line(text: str, limit: int = _LINE_CHARACTERS) -> str:
    """A text of others in one line; of a long one the end, which tells more of a path."""
    text = text.replace("\n", "\N{REPLACEMENT CHARACTER}").replace(
        "\t", "\N{REPLACEMENT CHARACTER}"
    )
    return text if len(text) <= limit else f"...{text[3 - limit :]}"
