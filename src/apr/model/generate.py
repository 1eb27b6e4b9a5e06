"""Text out of a model: one token at a time, from a seed, until the declared end."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from apr.errors import UsageRefusal
from apr.model.kv_cache import KeyValueCache
from apr.model.transformer import Transformer
from apr.progress import Progress, Report, silent

# Divided by less, logits leave the range of float32.
_LEAST_TEMPERATURE = 1e-6
_SEED_BITS = 64

StopReason = Literal["end_of_text", "max_new_tokens", "context_full"]


@dataclass(frozen=True)
class Generation:
    """New ids, without the prompt and without the end-of-text id that stopped them."""

    token_ids: list[int]
    stop_reason: StopReason


@torch.inference_mode()
def generate(
    model: Transformer,
    prompt_token_ids: Sequence[int],
    *,
    num_token_ids: int,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    end_of_text_ids: Collection[int] = (),
    progress: Report = silent,
) -> Generation:
    """Continue a prompt with a key/value cache; temperature 0 takes the likeliest token.

    `num_token_ids` is the number of ids the tokenizer has; padded rows of the embedding beyond
    it are never produced. The same seed gives the same text; without one it is 0.

    Refuses: run.empty-prompt, run.prompt-too-long, run.sampling.
    """
    require_sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, num_new=max_new_tokens
    )
    context = model.architecture.max_position_embeddings
    _require_prompt(prompt_token_ids, context)
    generator = torch.Generator().manual_seed(seed or 0)
    capacity = min(context, len(prompt_token_ids) + max_new_tokens)
    device = model.head_weight.device
    cache = KeyValueCache(
        model.architecture, capacity=capacity, dtype=model.compute_dtype, device=device
    )
    pending, new_ids = list(prompt_token_ids), list[int]()
    while len(new_ids) < max_new_tokens:
        if cache.length + len(pending) > context:
            return Generation(new_ids, "context_full")
        input_ids_BT = torch.tensor([pending]).to(device)
        logits_V = model(input_ids_BT, cache=cache)[0, -1, :num_token_ids].float()
        # Chosen on the CPU, whose generator gives the same numbers everywhere.
        token_id = _choose(
            logits_V.cpu(), temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
        )
        if token_id in end_of_text_ids:
            return Generation(new_ids, "end_of_text")
        new_ids.append(token_id)
        pending = [token_id]
        progress(Progress("writing", len(new_ids), max_new_tokens, "tokens"))
    return Generation(new_ids, "max_new_tokens")


def _choose(
    logits_V: Tensor,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator,
) -> int:
    if temperature == 0.0:
        return int(logits_V.argmax())
    ordered, ids = torch.sort(logits_V / temperature, descending=True, stable=True)
    probabilities = torch.softmax(ordered, dim=-1)
    kept = torch.ones_like(probabilities, dtype=torch.bool)
    if top_k is not None:
        kept[min(top_k, len(kept)) :] = False
    if top_p is not None:
        # The token that crosses the threshold is kept, so that one always is.
        kept &= probabilities.cumsum(0) - probabilities < top_p
    chosen = torch.multinomial(probabilities * kept, 1, generator=generator)
    return int(ids[chosen])


def _require_prompt(prompt_token_ids: Sequence[int], context: int) -> None:
    if not prompt_token_ids:
        raise UsageRefusal(
            "run.empty-prompt",
            "PROMPT",
            found="no token",
            expected="at least one token",
            fix="give a prompt, or a model whose tokenizer declares an end of text to start from",
        )
    if len(prompt_token_ids) >= context:
        raise UsageRefusal(
            "run.prompt-too-long",
            "PROMPT",
            found=f"{len(prompt_token_ids)} tokens",
            expected=f"fewer than the model's {context} positions",
            fix="shorten the prompt",
        )


def require_sampling(
    *, temperature: float, top_k: int | None, top_p: float | None, seed: int | None, num_new: int
) -> None:
    """Refuse options that no text can be sampled with; it needs no model.

    Refuses: run.sampling.
    """
    is_warm = _LEAST_TEMPERATURE <= temperature < float("inf")
    for name, value, valid, expected in (
        (
            "--temperature",
            temperature,
            temperature == 0.0 or is_warm,
            f"0, or {_LEAST_TEMPERATURE:g} and more, finite",
        ),
        ("--top-k", top_k, top_k is None or top_k >= 1, "1 or more"),
        ("--top-p", top_p, top_p is None or 0.0 < top_p <= 1.0, "above 0, at most 1"),
        (
            "--seed",
            seed,
            seed is None or 0 <= seed < 1 << _SEED_BITS,
            f"0 or more, below 2**{_SEED_BITS}",
        ),
        ("-n", num_new, num_new >= 1, "1 or more"),
    ):
        if not valid:
            raise UsageRefusal(
                "run.sampling", name, found=value, expected=expected, fix="correct the option"
            )
    has_choice = top_k not in (None, 1) or top_p is not None or seed is not None
    if temperature == 0.0 and has_choice:
        raise UsageRefusal(
            "run.sampling",
            "--temperature",
            found="0, which always takes the likeliest token",
            expected="a temperature above 0 with --top-k, --top-p or --seed",
            fix="add --temperature 0.8, or drop the other option",
        )
