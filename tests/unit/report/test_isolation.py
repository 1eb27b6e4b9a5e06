"""The page refers to nothing, runs nothing, and its policy says so."""

import base64
import hashlib
import re
from pathlib import Path

import pytest
from tests.unit.report.page_reader import Page
from tests.unit.report.synthetic_run import run_record, write_run

from apr.report.page import write_report

ALLOWED_TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "section", "footer",
    "h1", "h2", "h3", "p", "span", "div", "dl", "dt", "dd", "code", "pre", "b", "figure",
    "figcaption", "details", "summary", "table", "caption", "thead", "tbody", "tr", "th",
    "td", "ul", "li", "svg", "desc", "line", "path", "circle", "rect", "text",
}  # fmt: skip
RUNS = tuple(f"run{number}" for number in range(1, 9))
_VARIABLE = re.compile(r"--(\w+): (#[0-9a-f]{6});")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a run that was resumed, so that every kind of mark is on it."""
    record = run_record(resumes=[{"step": 400, "at": "2026-11-21T09:00:00Z"}])
    return Page(write_report(write_run(tmp_path_factory.mktemp("report") / "demo", record)))


def test_no_element_can_load_or_run_anything(page: Page) -> None:
    assert set(page.tags) <= ALLOWED_TAGS, set(page.tags) - ALLOWED_TAGS


def test_no_attribute_refers_anywhere(page: Page) -> None:
    assert len(page.attributes) > 300
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in {"src", "href", "xlink:href", "style", "action", "srcset", "data"}
        assert "url(" not in value
        assert "//" not in value


def test_the_style_sheet_refers_nowhere(page: Page) -> None:
    assert len(page.style) > 1000
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert "http" not in page.style


def test_the_policy_allows_this_style_sheet_and_nothing_else(page: Page) -> None:
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    (policy,) = [value for tag, name, value in page.attributes
                 if tag == "meta" and name == "content" and "default-src" in value]  # fmt: skip
    assert [part.strip() for part in policy.split(";")] == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    head = page.source.split("<style>")[0]
    assert "Content-Security-Policy" in head


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_in_both_themes(page: Page, theme: str) -> None:
    light, dark = page.style.split("prefers-color-scheme: dark", 1)
    colours = dict(_VARIABLE.findall(light))
    if theme == "dark":
        colours |= dict(_VARIABLE.findall(dark))
    for ground in ("paper", "panel"):
        for text in ("ink", "soft", "train", "val", "good", "bad", "open", *RUNS):
            assert _contrast(colours[ground], colours[text]) >= 4.5, (ground, text)
    assert _contrast(colours["paper"], colours["bar"]) >= 3


def _contrast(one: str, other: str) -> float:
    """Source: WCAG 2, relative luminance and contrast ratio."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_style_sheet_is_where_an_installed_package_finds_it() -> None:
    import tomllib

    pyproject = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert "report/style.css" in pyproject["tool"]["setuptools"]["package-data"]["apr"]
