"""`apr bench load`: how soon a model is in memory, beside others."""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from apr.bench.loading import (
    PEER_PACKAGES,
    PEERS,
    Loaded,
    measure_load,
    write_directory,
    write_made_up,
)
from apr.bench.peers import peer_missing, require_peers
from apr.bench.reference import workload
from apr.files import require_exists
from apr.jobs.fresh_process import Runner, in_fresh_process
from apr.jobs.import_model import import_model
from apr.progress import Report, silent


def bench_load(
    model: Path | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    against: Sequence[str] = (),
    num_rounds: int = 3,
    runner: Runner = in_fresh_process,
    progress: Report = silent,
) -> dict[str, Any]:
    """Load a model in fresh processes, in turn with the peers; return the seconds of each.

    `model` is an `.apr` file or a Hugging Face directory, which is imported first, with the proof
    timed apart; without one a model of the shape that `options` name is made up.

    Refuses: bench.unknown-peer, bench.peer-missing, files.not-found, container.*, and for a
    directory what `import_model` refuses.
    Writes: a scratch directory, gone afterwards.
    """
    require_peers(against, PEERS)
    for name in against:
        if missing := [each for each in PEER_PACKAGES.get(name, ()) if find_spec(each) is None]:
            raise peer_missing(name, missing)
    if model is not None:
        require_exists(model, "an .apr file or a Hugging Face directory")
    imported_s = None
    with tempfile.TemporaryDirectory(prefix="apr-bench-") as scratch:
        container, directory = Path(scratch) / "model.apr", Path(scratch) / "model"
        if model is None:
            work = workload(dict(options or {}), on_cpu=True, num_steps=1, num_warmup_steps=1)
            write_made_up(container, work.architecture)
        elif model.is_dir():
            imported = import_model(
                model, output=container, ask_transformers=False, progress=progress
            )
            imported_s, directory = dict(imported.elapsed_s), model
        else:
            container = model
        if against and directory != model:
            write_directory(container, directory)
        places = {"apr": container} | dict.fromkeys(against, directory)
        rounds = [
            {
                side: runner(measure_load, side, place, progress=progress)
                for side, place in places.items()
            }
            for _ in range(num_rounds)
        ]
    return summarize_loads(rounds) | {"import_s": imported_s}


def summarize_loads(rounds: Sequence[Mapping[str, Loaded]]) -> dict[str, Any]:
    """Seconds and rates of every side, ratios by round; a side that read another model has none."""
    ours = rounds[0]["apr"]
    sides = {
        side: {
            "elapsed_s": statistics.median(each[side].elapsed_s for each in rounds),
            "first_s": statistics.median(each[side].first_s for each in rounds),
            "elapsed_s_by_round": [each[side].elapsed_s for each in rounds],
            "file_bytes": loaded.file_bytes,
            "bytes_per_s": loaded.file_bytes
            / statistics.median(each[side].elapsed_s for each in rounds),
            "peak_memory_bytes": loaded.peak_memory_bytes,
            "same_model": (loaded.num_parameters, loaded.checksum)
            == (ours.num_parameters, ours.checksum),
        }
        for side, loaded in rounds[0].items()
    }
    ratios: dict[str, dict[str, Any]] = {}
    for side, facts in sides.items():
        if side == "apr":
            continue
        by_round = [each[side].elapsed_s / each["apr"].elapsed_s for each in rounds]
        ratios[side] = (
            {"median": statistics.median(by_round), "by_round": by_round, "reason": None}
            if facts["same_model"]
            else {"median": None, "by_round": None, "reason": f"invalid: {side} read another model"}
        )
    return {
        "num_parameters": ours.num_parameters,
        "sides": sides,
        "ratios": ratios,
        "valid": all(side["same_model"] for side in sides.values()),
    }
