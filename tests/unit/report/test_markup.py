"""Text becomes markup in one place, which neither trusts nor hides a character."""

import xml.etree.ElementTree as ET

import pytest

from apr.report.markup import CELL_BYTES, element, escape, facts, table


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("<b a='1' c=\"2\">&", "&lt;b a=&#x27;1&#x27; c=&quot;2&quot;&gt;&amp;"),
        ("a\x00\x1b\x7f\x85b", "a⟨U+0000⟩⟨U+001B⟩⟨U+007F⟩⟨U+0085⟩b"),
        ("\u202eabc\u2066\u200b", "⟨U+202E⟩abc⟨U+2066⟩⟨U+200B⟩"),
        ("\ud800 \uffff \U0001fffe \ufdd0", "⟨U+D800⟩ ⟨U+FFFF⟩ ⟨U+1FFFE⟩ ⟨U+FDD0⟩"),
        ("line\nnext\tcell", "line⟨U+000A⟩next⟨U+0009⟩cell"),
        ("grün 日本 🙂", "grün 日本 🙂"),
    ],
)
def test_every_character_is_shown_and_none_acts(text: str, markup: str) -> None:
    assert escape(text) == markup


def test_line_ends_stay_where_lines_matter() -> None:
    assert escape("a\n\tb\r", multiline=True) == "a\n\tb⟨U+000D⟩"


def test_long_text_is_cut_by_its_size_as_markup_and_says_so() -> None:
    cut = escape('"' * 10_000)
    assert cut.startswith("&quot;" * (CELL_BYTES // 6))
    assert cut.endswith(f"\u2026 ({10_000 - CELL_BYTES // 6:,} more characters)")
    assert escape("x" * CELL_BYTES) == "x" * CELL_BYTES


def test_attributes_are_escaped_and_never_cut() -> None:
    made = element("p", class_='a"b<\x1b', data_label="y" * 5000, id='<">', d="é" * 5000)
    parsed = ET.fromstring(made)
    assert parsed.get("class") == 'a"b<⟨U+001B⟩'
    assert parsed.get("data-label") == "y" * 5000
    assert parsed.get("id") == '<">'
    assert parsed.get("d") == "é" * 5000


def test_a_table_keeps_its_meaning_when_rows_become_cards() -> None:
    made = ET.fromstring(table("Caption", ("A", "B"), [[escape("1"), escape("2")]], class_="t"))
    caption = made.find("caption")
    assert caption is not None
    assert caption.text == "Caption"
    assert [cell.get("data-label") for cell in made.iter("td")] == ["A", "B"]
    assert {made.get("role"), *(row.get("role") for row in made.iter("tr"))} == {"table", "row"}
    assert [head.get("scope") for head in made.iter("th")] == ["col", "col"]


def test_what_a_list_leaves_out_is_counted() -> None:
    made = facts([(f"k{number}", number) for number in range(250)])
    assert "150 more are in the record" in made
    assert "k99" in made
    assert "k100" not in made
