"""A real browser shows the page without a word of complaint; skipped where there is none."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.unit.report.synthetic_run import write_run

from apr.report.page import write_report

_BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def _complaints(page: Path, profile: Path) -> list[str]:
    assert _BROWSER is not None
    shown = subprocess.run(
        [
            _BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={profile}", "--enable-logging=stderr",
            "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert "Key numbers" in shown.stdout, shown.stderr
    return [line for line in shown.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(_BROWSER is None, reason="no chromium is installed")
def test_a_browser_has_nothing_to_complain_about(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "run"))
    assert _complaints(page, tmp_path / "profile") == []
    # The same browser does complain about a style sheet that the policy does not name.
    page.write_text(re.sub(r"sha256-.", "sha256-_", page.read_text(), count=1))
    complaints = _complaints(page, tmp_path / "profile")
    assert any("Content Security Policy" in line for line in complaints)
