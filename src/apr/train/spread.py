"""A prepared run made ready to train on its ranks."""

from dataclasses import replace

import torch

import apr
from apr.train.agreement import digest_of_text, require_agreement
from apr.train.data_parallel import replicate
from apr.train.prepare import PreparedRun
from apr.train.rank_config import require_same_options
from apr.train.start import require_same_start


def spread(run: PreparedRun) -> PreparedRun:
    """Compare what the ranks of a run start from, and have it exchange gradients.

    Refuses: ranks.differ.
    """
    if not run.ranks.are_many:
        return run
    require_same_options(run.config, run.ranks)
    _require_same_inputs(run)
    require_same_start(run.model, run.ranks, run.dealt)
    if run.dealt is not None:
        return replace(run, shared_loss=run.summed_loss)
    loss, exchange = replicate(run.model, run.summed_loss, run.ranks)
    return replace(run, shared_loss=loss, exchange=exchange)


def _require_same_inputs(run: PreparedRun) -> None:
    """What lies behind each rank's paths, which need not be on one file system."""
    inputs = run.inputs
    found = {
        "the training shards": [shards.manifest_sha256 for shards in inputs.train],
        "the held-out shards": inputs.val and inputs.val.manifest_sha256,
        "the tokenizer": inputs.tokenizer.fingerprint,
        "the initial file": inputs.init and inputs.init.sha256,
        "the version of apr": apr.__version__,
        "the version of torch": torch.__version__,
    }
    require_agreement(
        run.ranks,
        0,
        {what: digest_of_text(repr(value)) for what, value in found.items()},
        fix="give every rank the same files and the same environment",
    )
