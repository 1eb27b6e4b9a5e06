"""`apr corpus scan`: what is there, before anything is decided."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.corpus.options import CORPUS_PATH, source_options, source_words

if TYPE_CHECKING:
    from apr.corpus.scanning.scan import Scan

# The first that is free becomes the output of the next command.
_NEXT_OUTPUTS = ("data", "data-split", "../data", "../data-split")


@click.command("scan")
@click.argument("paths", nargs=-1, required=True, type=CORPUS_PATH)
@click.option(
    "--path-field",
    default="path",
    show_default=True,
    help="Field of a row that holds a path, whose extension tells the language.",
)
@click.option(
    "--license-field",
    default="license",
    show_default=True,
    help="Field of a row that names its licence, or a list of them.",
)
@click.option(
    "--show",
    "num_shown",
    default=5,
    show_default=True,
    type=click.IntRange(min=0),
    help="Documents to show of each kind that stands out.",
)
@source_options
@output.standard_options
def command(paths: tuple[str | Path, ...], **options: Any) -> output.Result:
    """Tell what PATHS hold: documents, languages, licences, encodings, copies and oddities.

    \b
    apr corpus scan repos
    apr corpus scan stack.parquet --license-field max_stars_repo_licenses \\
        --path-field max_stars_repo_path

    Files are read as every other command reads them: source trees, .jsonl(.gz, .zst), .parquet and
    URLs. Bad rows and unreadable files stop nothing here; the answer says what they would stop.
    Languages are told by extension; licences by SPDX tags, licence files and the field of a row.
    """  # noqa: D301  click reads the escaped character
    from apr.cli.corpus.scan_text import scan_text
    from apr.corpus.scanning.scan import scan_corpus

    scan = scan_corpus(paths, progress=output.progress(), **options)
    return output.Result(
        data=scan.as_dict(), text=scan_text(scan), next_commands=_next(scan, paths, options)
    )


def _next(scan: "Scan", paths: tuple[str | Path, ...], options: dict[str, Any]) -> tuple[str, ...]:
    if not scan.documents.num_documents:
        return ()
    words = source_words(options)
    if scan.account.num_quarantined:
        words += ["--max-quarantined", scan.account.num_quarantined]
    group, share = scan.groups.suggestion()
    words += ["--group", group] if group != "repo" else []
    words += ["--val-fraction", share]
    data = Path(_free_output(paths))
    return (
        output.command_line("apr", "corpus", "split", *paths, "-o", data, *words),
        output.command_line(
            "apr", "corpus", "dedup", data / "train", "--held-out", data / "held-out",
            "--certificate", data / "certificate.json", "-o", data / "duplicates.jsonl",
        ),
    )  # fmt: skip


def _free_output(paths: tuple[str | Path, ...]) -> str:
    from apr.errors import Refusal
    from apr.files import require_absent, require_apart

    for name in _NEXT_OUTPUTS:
        try:
            require_apart(Path(name), [path for path in paths if isinstance(path, Path)])
            require_absent(Path(name), overwrite=False)
        except Refusal:
            continue
        return name
    return _NEXT_OUTPUTS[-1]
