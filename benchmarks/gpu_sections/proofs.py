"""The proofs beside the speed: the fast path against eager fp32, leaks, and repeated steps."""

from collections.abc import Callable
from typing import Any

import torch

from apr.train.gates import Finding
from gpu_sections.setting import Setting

_STEPS = 3


def measure(setting: Setting) -> None:
    """Gradients, causal and document masks, and whether a step gives the same bits twice."""
    from apr.model.init import initialize
    from apr.model.transformer import Transformer
    from apr.train.acceleration import choose_acceleration
    from apr.train.gradients_gate import check_gradients
    from apr.train.loss import masked_logits
    from apr.train.repeatable import repeatable

    length = setting.sizes.proof_length
    config = setting.config(sequence_length=length, micro_batch_tokens=2 * length)
    acceleration = choose_acceleration(config, setting.architecture)
    with repeatable(config.device, seed=0):
        model = Transformer(setting.architecture)
        initialize(model, seed=0)
    acceleration.apply_to(model)
    model.to(setting.device)
    summed_loss, logits = acceleration.loss_function(), acceleration.logits_function()
    whole = setting.batch(rows=2, sequence_length=length)
    packed = setting.batch(rows=2, sequence_length=length, num_documents=4)

    def proof(name: str, check: Callable[[], Finding]) -> None:
        setting.attempt(name, lambda: _told(check()))

    proof(
        "gradients against eager fp32",
        lambda: check_gradients(
            model,
            packed,
            accelerated_loss=summed_loss,
            document_mask=True,
        ),
    )

    def causal() -> Finding:
        from apr.train.selftest.leaks import check_causal_leak

        return check_causal_leak(
            model, whole, whole, document_mask=True, logits=logits, summed_loss=summed_loss
        )

    def documents() -> Finding:
        from apr.train.selftest.leaks import check_document_leak

        return check_document_leak(
            model,
            packed,
            whole,
            logits=logits,
            summed_loss=summed_loss,
            unmasked_logits=masked_logits,
        )

    proof("no look ahead", causal)
    proof("no look into another document", documents)
    for deterministic in (True, False):
        name = "the same steps twice" + (", --deterministic" if deterministic else "")
        proof(name, lambda d=deterministic: _same_twice(setting, config, deterministic=d))


def _told(found: Finding) -> dict[str, Any]:
    return {"verdict": found.verdict, "found": found.found, "expected": found.expected}


def _same_twice(setting: Setting, config: Any, *, deterministic: bool) -> Finding:
    """Without `--deterministic` a GPU may differ: that is told, and no failure."""
    first, second = _weights_twice(setting, config, deterministic=deterministic)
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    found = f"{len(differing)} of {len(first)} parameters differ after {_STEPS} steps"
    is_promised = deterministic or not setting.on_cuda
    verdict = "FAIL" if differing and is_promised else "PASS"
    return Finding(verdict, found, "no bit differs" if is_promised else "nothing is promised")


def _weights_twice(
    setting: Setting, config: Any, *, deterministic: bool
) -> list[dict[str, torch.Tensor]]:
    """The weights after the same steps, twice, by one compiled function."""
    from apr.train.repeatable import repeatable
    from gpu_sections.training import TrainingSteps

    found: list[dict[str, torch.Tensor]] = []
    with repeatable(config.device, seed=0, deterministic=deterministic):
        steps = TrainingSteps(setting, config)
        for _ in range(2):
            steps.restart()
            for _ in range(_STEPS):
                steps.take()
            weights = steps.model.named_parameters()
            found.append({name: value.detach().cpu().clone() for name, value in weights})
    return found
