"""A whole HTML page that loads and runs nothing: its policy allows one style sheet, by hash."""

import base64
import hashlib
from importlib.resources import files as package_files

from apr.report.markup import Html, join


def document(title: Html, *body: Html) -> Html:
    """The parts of a page as one self-contained file."""
    style = package_files("apr.report").joinpath("style.css").read_text(encoding="ascii")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return Html(
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n{join(body)}\n</body>\n</html>\n"
    )
