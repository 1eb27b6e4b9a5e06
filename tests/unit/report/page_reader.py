"""Reads a report as a browser would: tags in balance, texts by section, attributes."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

_VOID = {"meta"}


class Page(HTMLParser):
    """A parsed page; parsing fails on a tag that is not closed where it should be."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.style = ""
        self._open: list[str] = []
        self._sections: list[str] = []
        self.texts: dict[str, str] = {"": ""}
        self.feed(self.source)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in _VOID:
            return
        self._open.append(tag)
        if tag == "section":
            self._sections.append(dict(attrs)["id"] or "")
            self.texts[self._sections[-1]] = ""

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> in the wrong place"
        if tag == "section":
            self._sections.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            self.style += data
        else:
            section = self._sections[-1] if self._sections else ""
            self.texts[section] += data

    @property
    def text(self) -> str:
        """Everything a reader sees, outside the style sheet."""
        return "\n".join(self.texts.values())

    @property
    def body(self) -> ET.Element:
        """The body as XML, which it is by construction."""
        found = re.search(r"<body>.*</body>", self.source, re.DOTALL)
        assert found is not None
        return ET.fromstring(found.group())

    @property
    def charts(self) -> dict[str, ET.Element]:
        """The pictures by the id of their figure."""
        return {
            figure.get("id", ""): picture
            for figure in self.body.iter("figure")
            for picture in figure.iter("svg")
            if picture.get("class") == "chart"
        }
