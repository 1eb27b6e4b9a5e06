"""Kinds of values that options take, and options that would have no effect."""

import math
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from apr.cli import output
from apr.cli.free_name import free_name
from apr.errors import PathNotFound

_MODEL = "model.apr"


class _LocalPath(click.ParamType):
    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if "://" in str(value):
            # As a path it would lose a slash and become a directory beside the caller.
            self.fail(f"{str(value)!r} is a URL; only documents are read from one.", param, ctx)
        return Path(_require_text(self, value, param, ctx))


class _ModelPath(_LocalPath):
    """The path of an .apr file; another kind of directory, or a run without its model, is told."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        if path.is_dir() and (path / _MODEL).is_file():
            raise PathNotFound(
                "container.not-a-file",
                path,
                found=f"a directory that holds {_MODEL}",
                expected="an .apr file",
                fix=f"name the file itself: {path / _MODEL}",
            )
        if (path / "config.json").is_file():
            again = output.command_line("apr", "import", path, "-o", free_name(Path(_MODEL)))
            raise PathNotFound(
                "container.not-a-file",
                path,
                found="a directory with a config.json, as Hugging Face's libraries write them",
                expected="an .apr file",
                fix=f"import it first: {again}",
            )
        run_dir = path if path.is_dir() else path.parent
        is_missing = path.is_dir() or (path.name == _MODEL and not path.exists())
        if is_missing and (run_dir / "run.json").is_file():
            raise PathNotFound(
                "files.not-found",
                run_dir / _MODEL,
                found="nothing: the run beside it has not ended with a model",
                expected="an .apr file",
                fix=_how_to_have_a_model(run_dir),
            )
        return path


def _how_to_have_a_model(run_dir: Path) -> str:
    saved = sorted(run_dir.glob(f"checkpoints/step-*/{_MODEL}"))
    newest = f", or name its newest checkpoint: {saved[-1]}" if saved else ""
    return f"go on with the run: apr pretrain --resume {run_dir}{newest}"


class Location(click.ParamType):
    """A local path, or the URL of something in object storage, which a Path would mangle."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path | str:
        """A URL stays text, as it has two slashes in a row."""
        text = _require_text(self, value, param, ctx)
        return text if "://" in text else Path(text)


class Dataset(click.ParamType):
    """A local directory, with `=WEIGHT` after it where it is part of a mixture."""

    name = "dir[=weight]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        """The fields of a source; a directory whose own name ends so keeps it."""
        head, _, tail = str(value).rpartition("=")
        weight = _number(tail) if head and not Path(str(value)).is_dir() else None
        text = value if weight is None else head
        return {"path": LOCAL_PATH.convert(text, param, ctx), "weight": weight}


class Share(click.FloatRange):
    """A float within bounds, which NaN is not: it compares as neither too small nor too large."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self.min}<=x<={self.max}.", param, ctx)
        return number


LOCAL_PATH = _LocalPath()
MODEL_PATH = _ModelPath()


def require_used(ctx: click.Context, name: str, *, unless: str) -> None:
    """Refuse an option that was given and that nothing would read; `unless` says why."""
    if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE:
        option = next(each for each in ctx.command.params if each.name == name)
        raise click.UsageError(f"{option.opts[0]} has no effect {unless}.", ctx)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _require_text(
    kind: click.ParamType, value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> str:
    # As a path it would be the current directory; from a script it is a variable that is not set.
    return str(value) or kind.fail(
        "an empty name names nothing; '.' is this directory.", param, ctx
    )
