"""Training loops as they are written by hand: on this model in plain fp32, and on litgpt's."""

from collections.abc import Callable
from importlib import import_module

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from apr.bench.reference import Workload
from apr.bench.side import Side, measured_side, random_rows, settings, time_steps, watch_weights
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.progress import Report

_LEARNING_RATE = 1e-4
_MAX_GRAD_NORM = 1.0


def measure_plain(work: Workload, *, name: str, progress: Report) -> Side:
    """Eager fp32 on apr's own model, with torch's AdamW as it comes and one mean cross-entropy."""
    device = torch.device(work.config.device)
    torch.manual_seed(work.config.seed)
    model = Transformer(work.architecture)
    initialize(model, seed=work.config.seed)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    return _loop(model, model, optimizer, work, device, torch.float32, name, progress)


def measure_litgpt(work: Workload, *, name: str, progress: Report) -> Side:
    """The model of litgpt, compiled, in bf16 autocast, with the fused AdamW."""
    # A peer, and no extra of apr: it needs other versions of what apr has.
    litgpt = import_module("litgpt")
    shape, device = work.architecture, torch.device(work.config.device)
    torch.manual_seed(work.config.seed)
    model = litgpt.GPT(
        litgpt.Config(
            name="bench",
            block_size=work.config.seq_length,
            vocab_size=shape.vocab_size,
            padded_vocab_size=shape.vocab_size,
            n_layer=shape.num_hidden_layers,
            n_head=shape.num_attention_heads,
            n_query_groups=shape.num_key_value_heads,
            n_embd=shape.hidden_size,
            head_size=shape.head_dim,
            intermediate_size=shape.intermediate_size,
            rotary_percentage=1.0,
            rope_base=int(shape.rope_theta),
            parallel_residual=False,
            bias=False,
            attn_bias=shape.attention_bias,
            norm_class_name="RMSNorm",
            norm_eps=shape.rms_norm_eps,
            mlp_class_name="LLaMAMLP",
        )
    )
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    if shape.tie_word_embeddings:
        model.transformer.wte.weight = model.lm_head.weight
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, fused=True)
    compiled = torch.compile(model)
    return _loop(model, compiled, optimizer, work, device, torch.bfloat16, name, progress)


def _loop(
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    work: Workload,
    device: torch.device,
    dtype: torch.dtype,
    name: str,
    progress: Report,
) -> Side:
    """A training loop as it is written by hand: forward, mean loss, backward, clip, update."""
    random = np.random.default_rng(work.config.seed)
    grad_accum = work.config.num_micro_batches

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        total_nats = 0.0
        for _ in range(grad_accum):
            ids = torch.from_numpy(random_rows(work, work.micro_batch_size, random)).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
                found = logits(ids[:, :-1])
                loss = functional.cross_entropy(found.flatten(0, 1), ids[:, 1:].flatten())
            (loss / grad_accum).backward()
            total_nats += float(loss.detach()) / grad_accum
        nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRAD_NORM)
        optimizer.step()
        return total_nats

    moved = watch_weights(model)
    timed = time_steps(step, work, device, name=name, progress=progress)
    facts = settings(device, dtype, compiled=logits is not model)
    return measured_side(timed, model, moved, device, dtype, settings=facts)
