"""The run that was planned, as the command that judges it."""

from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apr.cli import output
from apr.train.flags import flag_of

if TYPE_CHECKING:
    from apr.jobs.plan import RunPlan


def next_run(
    found: "RunPlan", given: dict[str, Any], config_path: Path | None
) -> tuple[list[str], tuple[str, ...]]:
    """The command that judges this very run; or, in a line, which options it lacks for that."""
    costs = (found.facts["memory"]["verdict"], found.facts["disk"]["verdict"])
    if found.refusal or "FAIL" in costs:
        return [], ()
    filled = _filled_in(found)
    if lacking := [flag_of(name) for name in found.unnamed if name not in filled]:
        return ["", f"apr pretrain also needs {', '.join(lacking)}"], ()
    words: list[object] = ["apr", "pretrain", "--dry-run"]
    words += ["--config", config_path] if config_path else []
    if found.on.card:
        given = given | {"device": found.config.device, "precision": found.config.precision}
    for name, value in (given | filled).items():
        words += _option(name, value)
    return [], (output.command_line(*words),)


def _filled_in(found: "RunPlan") -> dict[str, Any]:
    """What is known of options that were not given: where the tokenizer lay, and a free place."""
    from apr.shards.tokenizer_of import recorded_path

    filled: dict[str, Any] = {}
    if "run_dir" in found.unnamed:
        places = (Path("runs", name) for name in chain(["first"], map(str, count(2))))
        filled["run_dir"] = next(place for place in places if not place.exists())
    if "tokenizer" in found.unnamed and "dataset" not in found.unnamed:
        recorded = recorded_path(found.config.dataset[0].path)
        # A name that no file can have is no place either.
        with suppress(OSError):
            filled |= {"tokenizer": recorded} if recorded and recorded.exists() else {}
    return filled


def _option(name: str, value: Any) -> list[object]:
    """An option as it is typed."""
    if isinstance(value, bool):
        return [flag_of(name if value else f"no_{name}")]
    if name != "dataset":
        return [flag_of(name), value]
    words: list[object] = []
    for source in value:
        weight = "" if source["weight"] is None else f"={source['weight']}"
        words += ["--dataset", f"{source['path']}{weight}"]
    return words
