"""Whether all ranks are still computing the same run.

Replicas that drift apart go on training, each on its own model, and no loss shows it. Parameters
and moments are compared where every rank holds all of them; where they are dealt out, what decides
the step is.
"""

import json
from dataclasses import asdict

import torch

from apr.train.agreement import digest_of_tensors, digest_of_text, require_agreement
from apr.train.optimizer import applied_learning_rate, applied_settings, state_tensors
from apr.train.parts import are_dealt_out
from apr.train.prepare import PreparedRun
from apr.train.train_state import TrainState

EVERY_STEPS = 100


def require_same_run(run: PreparedRun, optimizer: torch.optim.Optimizer, state: TrainState) -> None:
    """Compare with the other ranks whatever must be the same on each; all of them ask at once.

    Refuses: ranks.differ.
    """
    if not run.ranks.are_many:
        return
    told = asdict(state)
    digests = {
        # Seconds are each rank's own.
        "the state": digest_of_text(
            json.dumps({key: told[key] for key in told if not key.endswith("_s")})
        ),
        "the learning rate": digest_of_text(
            str(applied_settings(optimizer)) + str(applied_learning_rate(optimizer))
        ),
        "the next rows": digest_of_text(
            str([each.tolist() for each in run.order.rows(state.step + 1)])
        ),
    }
    parameters = dict(run.model.named_parameters())
    if not are_dealt_out(parameters.values()):
        moments = state_tensors(run.model, optimizer)
        digests |= {
            "the parameters": digest_of_tensors(parameters.values()),
            "the optimizer": digest_of_tensors(moments.values()),
        }
    require_agreement(run.ranks, state.step, digests)
