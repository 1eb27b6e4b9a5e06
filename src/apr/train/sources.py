"""Where training text comes from: one shard directory, or a mixture of several."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from apr.errors import Refusal, UsageRefusal
from apr.shards.manifest import read_manifest


def _require_local(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        # As a path it would lose a slash and become a directory beside the caller.
        raise ValueError("a local path; only documents are read from a URL")
    if "\0" in str(value):
        raise ValueError("a path, which holds no NUL")
    return value


LocalPath = Annotated[Path, BeforeValidator(_require_local)]


class Source(BaseModel):
    """A shard directory, and its weight in a mixture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: LocalPath
    """Directory of training shards."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Its share of the training tokens, relative to the other weights."""


def _as_sources(value: Any) -> Any:
    """One path is a source, and a list may hold paths."""
    items = value if isinstance(value, list | tuple) else [value]
    return [
        {"path": _require_local(item)} if isinstance(item, str | Path) else item for item in items
    ]


Sources = Annotated[tuple[Source, ...], BeforeValidator(_as_sources), Field(min_length=1)]


def require_mixture(sources: tuple[Source, ...], *, has_val: bool) -> None:
    """Refuse weights that do not say a mixture, and a mixture that no held-out set stands beside.

    Refuses: config.mixture-weights, config.mixture-without-val.
    """
    weighted = [source for source in sources if source.weight is not None]
    if weighted and (len(sources) == 1 or len(weighted) < len(sources)):
        raise UsageRefusal(
            "config.mixture-weights",
            "--dataset",
            found=f"a weight for {len(weighted)} of {len(sources)} datasets",
            expected="a weight for each of several datasets, or for none",
            fix="weigh all (DIR=WEIGHT) or none; one dataset alone is read whole",
        )
    if len(sources) > 1 and not has_val:
        raise Refusal(
            "config.mixture-without-val",
            "--dataset",
            found=f"{len(sources)} datasets and no held-out shards",
            expected="held-out shards, as nothing says from which dataset to set documents aside",
            fix="encode a held-out corpus and pass it with --val-shard",
        )


def require_distinct(sources: tuple[Source, ...]) -> None:
    """Refuse data that would be two sources of one mixture, before any of it is read.

    Refuses: config.mixture-repeated.
    """
    known: dict[str, Path] = {}
    for source in sources:
        _, sha256 = read_manifest(source.path)
        if sha256 in known:
            raise UsageRefusal(
                "config.mixture-repeated",
                source.path,
                found=f"the manifest of {known[sha256]}",
                expected="other shards in each dataset of a mixture",
                fix="name each dataset once, with the weight of both",
            )
        known[sha256] = source.path


def short_names(directories: Sequence[Path]) -> list[str]:
    """The last part of each path, or all of it where two end alike."""
    ends = [directory.name for directory in directories]
    return [
        end if ends.count(end) == 1 else str(directory)
        for end, directory in zip(ends, directories, strict=True)
    ]
