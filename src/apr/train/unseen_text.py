"""Whether the model that a run starts from may have been trained on what the run holds out."""

from collections.abc import Mapping
from typing import Any

from apr.train.inputs import Inputs


def why_not_unseen(inputs: Inputs) -> str | None:
    """Why nobody can say that the initial model has not seen the held-out text; None if all can.

    A run keeps its two sides apart, and its model names both. A model that was trained on these
    training shards, or held out the same shards, has not seen them.
    """
    if inputs.init is None:
        return None
    runs = [entry for entry in inputs.init.provenance if "train_manifests_sha256" in entry]
    if not runs:
        return "nobody says what the initial model was trained on"
    if all(_was_kept_apart(entry, inputs) for entry in runs):
        return None
    return (
        "the initial model was trained on other shards than these, and did not hold out the same: "
        "nothing says that it has not seen the held-out text"
    )


def _was_kept_apart(entry: Mapping[str, Any], inputs: Inputs) -> bool:
    trained_on, held_out = entry["train_manifests_sha256"], entry.get("val_manifest_sha256")
    here = {shards.manifest_sha256 for shards in inputs.train}
    if inputs.val is None:
        return set(trained_on) == here and held_out is None
    return held_out == inputs.val.manifest_sha256 or set(trained_on) <= here
