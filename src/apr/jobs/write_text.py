"""`apr run`: open a container, continue a prompt."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apr.errors import Refusal
from apr.model.generate import generate, require_sampling
from apr.model.weights import end_of_text_ids, load_model
from apr.progress import Report, silent


@dataclass(frozen=True)
class WrittenText:
    """What a model wrote after a prompt; `text` is without the prompt."""

    text: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    stop_reason: str

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr run --json` prints."""
        return asdict(self)


def write_text(
    path: Path,
    prompt: str,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    progress: Report = silent,
) -> WrittenText:
    """Continue `prompt` with the model in an `.apr` file.

    What the tokenizer puts before every text comes first. An empty prompt starts where a document
    starts: after that, or after the declared end of text.

    Refuses: container.*, model.tensors, run.no-tokenizer, run.empty-prompt,
    run.prompt-too-long, run.sampling.
    """
    # Before the time that a large model takes to read.
    require_sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, num_new=max_new_tokens
    )
    loaded = load_model(path, progress=progress)
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        raise Refusal(
            "run.no-tokenizer",
            path,
            found="a model without a tokenizer",
            expected="an embedded tokenizer",
            fix="use a model file that apr pretrain wrote",
        )
    prompt_token_ids = [*tokenizer.prefix_ids, *tokenizer.encode(prompt).tolist()]
    if not prompt_token_ids and tokenizer.eos_token_id is not None:
        prompt_token_ids = [tokenizer.eos_token_id]
    written = generate(
        loaded.model,
        prompt_token_ids,
        num_token_ids=tokenizer.vocab_size,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        end_of_text_ids=end_of_text_ids(loaded),
        progress=progress,
    )
    return WrittenText(
        tokenizer.decode(written.token_ids),
        prompt_token_ids,
        written.token_ids,
        written.stop_reason,
    )
