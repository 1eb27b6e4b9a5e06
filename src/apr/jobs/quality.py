"""What is measured of a model beside its metadata: `apr inspect --quality`.

Here the model reads and writes. Weights that learned nothing give themselves away: plain text
surprises them as much as noise would, and what they write repeats itself or is a guess.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import log
from pathlib import Path
from typing import Any

import torch

from apr.architecture import Architecture
from apr.container.contents import require_contents
from apr.container.inspecting.quality import Behaviour, Measured, completeness, stored_behaviour
from apr.container.reader import Container
from apr.errors import Refusal
from apr.model.generate import generate
from apr.model.transformer import Transformer
from apr.model.weights import load_model
from apr.progress import Report, silent
from apr.tokenizer.tokenizer import Tokenizer

PROMPTS = ("def main(", "The ", "import ")
NUM_TOKENS = 64
_TEMPERATURE = 0.8

# Written for this, so that no model has learned it by heart. The easier one counts, as a model may
# know only code, or only prose.
SAMPLES = {
    "code": (
        "def count_words(path):\n"
        '    """Return how often each word occurs in a file."""\n'
        "    counts = {}\n"
        "    with open(path) as source:\n"
        "        for line in source:\n"
        "            for word in line.split():\n"
        "                counts[word] = counts.get(word, 0) + 1\n"
        "    return counts\n"
    ),
    "prose": (
        "Once there was a little house at the end of the road. Every morning the old woman who "
        "lived there opened the window and said hello to the birds. One day a small bird came "
        "back with a letter, and she was very happy to see it.\n"
    ),
}
_MOST_SURPRISE = 0.9

# Fresh weights are within 5 % of guessing and go on and on; a model of 260K parameters that learned
# stories repeats no token more than twice and is 22 % as unsure (docs/log.md).
_FEWEST_TOKENS = 16
_LONGEST_RUN = 16
_LEAST_DISTINCT = {"greedy": 0.04, "sampled": 0.15}
_MOST_DISTINCT = 0.95
_MOST_ENTROPY = 0.9

_READING = "text-better-than-guessing"
_READING_EXPECTED = (
    f"a loss on plain code or prose under {_MOST_SURPRISE:.0%} of that of blind guessing"
)
_NEEDED = ("bytes-intact", "values-finite", "identity-derived")
_GENERATION = "generation-not-degenerate"
_EXPECTED = (
    f"most texts of {NUM_TOKENS} tokens without a run over {_LONGEST_RUN}, with at least "
    f"{_LEAST_DISTINCT['greedy']:.0%} (greedy) or {_LEAST_DISTINCT['sampled']:.0%} (sampled) "
    f"distinct tokens, at most {_MOST_DISTINCT:.0%} on average, not only special ones, and next "
    f"tokens surer than {_MOST_ENTROPY:.0%} of blind guessing"
)


@dataclass(frozen=True)
class WrittenText:
    """What one text looks like, without regard to what it says."""

    kind: str
    """`greedy` or `sampled`."""
    num_tokens: int
    distinct: float
    """Distinct tokens as a share of all."""
    longest_run: int
    """Most times that one token follows itself."""
    is_all_special: bool
    entropy: float
    """Mean entropy of the next token, as a share of that of blind guessing."""

    @property
    def is_degenerate(self) -> bool:
        """Whether it repeats itself, says nothing, or is a guess."""
        return (
            self.is_all_special
            or self.longest_run > _LONGEST_RUN
            or self.distinct < _LEAST_DISTINCT[self.kind]
            or self.entropy > _MOST_ENTROPY
        )


def describe_quality(path: Path, *, progress: Report = silent) -> dict[str, Any]:
    """Completeness of the metadata under `quality`, and what was measured under `behaviour`.

    Reads every byte, and builds the model where that is possible.

    Refuses: as `Container.open`; container.truncated.
    """
    with Container.open(path) as container:
        quality = completeness(container)
        checks = list(stored_behaviour(container, progress=progress))
        reason = _reason_not_to_write(container, checks)
    checks += _run(path, progress) if reason is None else _not_run(reason)
    return {"quality": quality, "behaviour": Behaviour(tuple(checks)).as_dict()}


def judge(texts: Sequence[WrittenText]) -> Measured:
    """Whether most of the texts, greedy and sampled ones each, look like something learned."""
    whole = [text for text in texts if text.num_tokens >= _FEWEST_TOKENS]
    if not whole:
        longest = max((text.num_tokens for text in texts), default=0)
        found = f"{len(texts)} texts, none over {longest} tokens"
        return Measured(_GENERATION, "UNKNOWN", found, _EXPECTED)
    distinct = sum(text.distinct for text in whole) / len(whole)
    entropy = sum(text.entropy for text in whole) / len(whole)
    num_degenerate = sum(text.is_degenerate for text in whole)
    found = (
        f"{num_degenerate} of {len(whole)} texts degenerate: {distinct:.0%} distinct tokens, "
        f"longest run {max(text.longest_run for text in whole)}, next tokens "
        f"{entropy:.0%} as unsure as guessing"
    )
    by_kind = {kind: [text for text in whole if text.kind == kind] for kind in _LEAST_DISTINCT}
    is_degenerate = distinct > _MOST_DISTINCT or any(
        2 * sum(text.is_degenerate for text in some) > len(some) for some in by_kind.values()
    )
    return Measured(_GENERATION, "FAIL" if is_degenerate else "PASS", found, _EXPECTED)


def _reason_not_to_write(container: Container, checks: Sequence[Measured]) -> str | None:
    """Why the model is not built, found before its memory is spent."""
    for check in checks:
        if check.id in _NEEDED and check.verdict != "PASS":
            return f"{check.id} is {check.verdict}"
    architecture = require_contents(container)
    needed_bytes = 2 * 4 * architecture.num_parameters
    available_bytes = _available_bytes()
    if available_bytes is not None and needed_bytes > available_bytes:
        return f"it needs {needed_bytes} bytes of memory, {available_bytes} are free"
    return None


def _available_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    lines = [line.split() for line in text.splitlines() if line.startswith("MemAvailable:")]
    return 1024 * int(lines[0][1]) if lines else None


def _not_run(reason: str) -> tuple[Measured, Measured]:
    found = f"the model is not run: {reason}"
    return (
        Measured(_READING, "UNKNOWN", found, _READING_EXPECTED),
        Measured(_GENERATION, "UNKNOWN", found, _EXPECTED),
    )


def _run(path: Path, progress: Report) -> tuple[Measured, Measured]:
    try:
        loaded = load_model(path, progress=progress)
    except Refusal as err:
        return _not_run(f"{err.id}: {err.found}")
    model, tokenizer = loaded.model, loaded.tokenizer
    if tokenizer is None:
        return _not_run("no tokenizer is embedded")
    return _reading(model, tokenizer), _generation(model, tokenizer, progress)


def _reading(model: Transformer, tokenizer: Tokenizer) -> Measured:
    """How well the model foresees plain text, as a share of blind guessing."""
    surprise = {name: _surprise(model, tokenizer, text) for name, text in SAMPLES.items()}
    found = ", ".join(
        f"{name} {'cannot be read' if share is None else f'{share:.1%} of guessing'}"
        for name, share in surprise.items()
    )
    read = [share for share in surprise.values() if share is not None]
    if not read:
        return Measured(_READING, "UNKNOWN", found, _READING_EXPECTED)
    # A loss that is no number is not below anything.
    is_better = any(share < _MOST_SURPRISE for share in read)
    return Measured(_READING, "PASS" if is_better else "FAIL", found, _READING_EXPECTED)


@torch.inference_mode()
def _surprise(model: Transformer, tokenizer: Tokenizer, text: str) -> float | None:
    """Mean loss over a text divided by ln(number of ids); None when there is nothing to foresee."""
    ids = tokenizer.encode(text).tolist()[: model.architecture.max_position_embeddings]
    if len(ids) < _FEWEST_TOKENS:
        return None
    logits_TV = model(torch.tensor([ids[:-1]]))[0, :, : tokenizer.vocab_size].float()
    loss_nats = torch.nn.functional.cross_entropy(logits_TV, torch.tensor(ids[1:]))
    return float(loss_nats) / log(tokenizer.vocab_size)


def _generation(model: Transformer, tokenizer: Tokenizer, progress: Report) -> Measured:
    try:
        texts = [
            _written(model, tokenizer, prompt, kind, seed, progress)
            for seed, prompt in enumerate(PROMPTS)
            for kind in _LEAST_DISTINCT
        ]
    except Refusal as err:
        return Measured(_GENERATION, "UNKNOWN", f"{err.id}: {err.found}", _EXPECTED)
    except RuntimeError as err:
        # What torch says of logits that are no numbers, though every weight is one.
        found = f"the model cannot be sampled: {' '.join(str(err).split())[:120]}"
        return Measured(_GENERATION, "FAIL", found, _EXPECTED)
    return judge(texts)


def _written(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt: str,
    kind: str,
    seed: int,
    progress: Report,
) -> WrittenText:
    prompt_ids = _prompt_ids(tokenizer, prompt, model.architecture)
    is_sampled = kind == "sampled"
    written = generate(
        model,
        prompt_ids,
        num_token_ids=tokenizer.vocab_size,
        max_new_tokens=NUM_TOKENS,
        temperature=_TEMPERATURE if is_sampled else 0.0,
        seed=seed if is_sampled else None,
        end_of_text_ids=() if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,),
        progress=progress,
    )
    ids = written.token_ids
    special = {token.id for token in tokenizer.definition.added_tokens}
    return WrittenText(
        kind=kind,
        num_tokens=len(ids),
        distinct=len(Counter(ids)) / max(1, len(ids)),
        longest_run=max((len(list(run)) for _, run in groupby(ids)), default=0),
        is_all_special=bool(ids) and special.issuperset(ids),
        entropy=_entropy(model, prompt_ids, ids, tokenizer.vocab_size),
    )


def _prompt_ids(tokenizer: Tokenizer, prompt: str, architecture: Architecture) -> list[int]:
    """The prompt, short enough that a model of few positions can go on from it."""
    ids = tokenizer.encode(prompt).tolist()
    return ids[: max(1, architecture.max_position_embeddings // 2)]


@torch.inference_mode()
def _entropy(
    model: Transformer, prompt_ids: list[int], token_ids: list[int], num_ids: int
) -> float:
    """Mean entropy of the next token along a text, as a share of ln(number of ids)."""
    if not token_ids or num_ids < 2:
        return 0.0
    logits_TV = model(torch.tensor([prompt_ids + token_ids[:-1]]))[0, :, :num_ids].float()
    log_p_TV = torch.log_softmax(logits_TV[len(prompt_ids) - 1 :], dim=-1)
    entropy_T = -(log_p_TV.exp() * log_p_TV).sum(dim=-1)
    return float(entropy_T.mean()) / log(num_ids)
