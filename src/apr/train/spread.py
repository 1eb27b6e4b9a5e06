"""A prepared run made ready to train on its ranks."""

from dataclasses import replace

from apr.train.data_parallel import replicate
from apr.train.prepare import PreparedRun
from apr.train.start import require_same_start


def spread(run: PreparedRun) -> PreparedRun:
    """Compare the weights that the ranks of a run start from, and have it exchange gradients.

    Refuses: ranks.differ.
    """
    if not run.ranks.are_many:
        return run
    require_same_start(run.model, run.ranks, run.dealt)
    if run.dealt is not None:
        return replace(run, shared_loss=run.summed_loss)
    loss, exchange = replicate(run.model, run.summed_loss, run.ranks)
    return replace(run, shared_loss=loss, exchange=exchange)
