"""Everything that decides what a run does: one closed object, resolved once, recorded whole.

A command-line flag is an override of one field here, nothing else. Fields that the mode or
another field decides are None until `resolve_config`, so that what was asked for and what follows
from it stay apart.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from apr.architecture import Architecture
from apr.errors import UsageRefusal
from apr.files import io_refusals
from apr.train import flags
from apr.train.hidden_matrices import OptimizerName
from apr.train.sources import LocalPath, Sources

_TRAINED_PER_EVAL_TOKEN, _LEAST_EVAL_TOKENS, _MOST_EVAL_TOKENS = 16, 10_000, 100_000


# Beyond any run, and products of two of them stay exact as a float.
Positive = Annotated[int, Field(gt=0, le=1 << 40)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


DataParallel = Literal["auto", "ddp", "fsdp"]


class TrainConfig(BaseModel):
    """One run, as a person asks for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Sources
    """Directories of training shards; several make a mixture."""
    tokenizer: LocalPath
    """Tokenizer directory, or a tokenizer.json."""
    run_dir: LocalPath
    """Directory that the run is written to."""
    val_shard: LocalPath | None = None
    """Directory of held-out shards; without it the first documents of the dataset are reserved."""
    init: LocalPath | None = None
    """An `.apr` file to start from: its architecture, its weights, strictly."""
    mode: Literal["from-scratch", "finetune"] | None = None
    """Regime; decides the defaults of learning rate, warm-up and target; by `init`."""
    arch: str | None = None
    """Preset of the model's shape; llama-370m where no `init` brings one."""
    vocab_size: Positive | None = None
    """Rows of the embedding, where the preset should not decide."""
    num_steps: Positive = flags.NUM_STEPS
    """Optimizer updates."""
    batch_size: Positive = flags.BATCH_SIZE
    """Sequences per optimizer update."""
    seq_length: Positive = flags.SEQ_LENGTH
    """Tokens per sequence."""
    grad_accum: Positive | None = None
    """Micro-batches per update; divides the batch size; by default as few as fit in memory."""
    activation_checkpointing: bool | None = None
    """Blocks computed again for their gradient, not kept; by default where nothing else fits."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Peak learning rate; by mode."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Updates of linear warm-up; by mode, at most half of the run."""
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    decay_fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """Last part of a wsd run, over which the rate falls; a fifth."""
    optimizer: OptimizerName = "adamw"
    """What updates the matrices inside the blocks; all else is AdamW's."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    """Decoupled decay of matrices; norms and biases are never decayed."""
    adam_beta1: Fraction = 0.9
    """Decay of AdamW's first moment."""
    adam_beta2: Fraction = 0.95
    """Decay of AdamW's second moment."""
    max_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Global gradient norm above which gradients are scaled down."""
    document_mask: bool = True
    """Whether packed documents are hidden from each other."""
    eval_every: Positive = flags.EVAL_EVERY
    """Updates between validations; by default a hundred, or the whole of a shorter run."""
    checkpoint_every: Positive | None = None
    """Updates between checkpoints, by default `eval_every`; the best and the last are saved too."""
    eval_tokens: Positive | None = None
    """Held-out tokens of a periodic validation; a 16th of the training between, 10,000-100,000."""
    target_val_loss: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Held-out loss in nats per token at which the run has met its target and stops; by mode."""
    stop_at_target: bool = True
    """Whether a target is set at all; off, the run spends its whole budget."""
    patience: Positive = flags.PATIENCE
    """Validations without improvement before the run stops early."""
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Standard errors by which a held-out loss must be lower to count as an improvement."""
    resolution_nats: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """Smallest difference that the held-out set is asked to show."""
    divergence_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    """Multiple of the best held-out loss above which the run has diverged and is aborted."""
    max_skipped_steps: Annotated[int, Field(ge=0)] = 3
    """Updates of any hundred that may be skipped; one more aborts the run."""
    spike_factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 20.0
    """Multiple of the median gradient norm above which an update is skipped."""
    keep: Positive = flags.KEEP
    """Latest checkpoints kept; the best one is kept besides."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = flags.SEED
    """Decides the initial weights and the order of the batches."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:N`, or `auto`, which alone may fall back."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the computation; weights and optimizer stay fp32."""
    data_parallel: DataParallel = "auto"
    """How several ranks share a run: each the whole model, or each a part of it; by memory."""
    deterministic: bool = False
    """On a GPU, only kernels that give the same bits every time; a CPU always does."""
    compile: bool | None = None
    """Compiled kernels; by default where a probe compiles one and the run is long enough."""
    attention: Literal["auto", "plain", "pieces", "flash", "cudnn", "varlen"] = "auto"
    """How attention is computed; what is asked for and not to be had is refused."""
    sample_prompts: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Prompts whose completions are recorded at the end."""
    waive: dict[str, str] = Field(default_factory=dict)
    """Gates that may fail, each with the reason."""

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches per update, once they have been chosen (`train.division`)."""
        assert self.grad_accum is not None, "a batch is divided once the model's shape is known"
        return self.grad_accum

    @property
    def batch_tokens(self) -> int:
        """Tokens per optimizer update."""
        return self.batch_size * self.seq_length

    @property
    def planned_tokens(self) -> int:
        """Tokens the whole run would see."""
        return self.num_steps * self.batch_tokens

    @property
    def periodic_eval_tokens(self) -> int:
        """How many held-out tokens a periodic validation reads, where so many are there.

        A forward pass takes a third of the time of a step: the share costs some 2 % of a run.
        """
        if self.eval_tokens is not None:
            return self.eval_tokens
        share = self.eval_every * self.batch_tokens // _TRAINED_PER_EVAL_TOKEN
        return min(max(share, _LEAST_EVAL_TOKENS), _MOST_EVAL_TOKENS)


def without_a_met_target(config: TrainConfig, init_loss_nats: float) -> TrainConfig:
    """The configuration with a target that is still to be met, or with none.

    The target of a mode says nothing about a model that is past it before step 1; one that a
    person asked for is then a mistake.

    Refuses: config.target-met-already.
    """
    target = config.target_val_loss
    if target is None or init_loss_nats > target:
        return config
    assert config.mode is not None
    if target != flags.BY_MODE[config.mode].target_val_loss:
        raise UsageRefusal(
            "config.target-met-already",
            "--target-val-loss",
            found=f"{target:g}, and a held-out loss of {init_loss_nats:.4f} before step 1",
            expected="a target that training is needed for",
            fix="ask for a lower loss",
        )
    return config.model_copy(update={"target_val_loss": None, "stop_at_target": False})


def within_positions(config: TrainConfig, architecture: Architecture | None) -> TrainConfig:
    """The configuration with a sequence length that an initial model has positions for.

    Only where none was asked for: one that was is refused, and not cut.
    """
    if architecture is None or "seq_length" in config.model_fields_set:
        return config
    length = min(config.seq_length, architecture.max_position_embeddings)
    return config.model_copy(update={"seq_length": length})


def absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same run, independent of the directory it was started from."""
    with io_refusals(config.run_dir):
        paths = {name: value.absolute() for name, value in config if isinstance(value, Path)}
        dataset = tuple(
            source.model_copy(update={"path": source.path.absolute()}) for source in config.dataset
        )
    return config.model_copy(update=paths | {"dataset": dataset})
