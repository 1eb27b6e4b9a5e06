"""What a run reads: opened, verified byte by byte, and laid out in rows."""

from dataclasses import dataclass
from pathlib import Path

from apr.architecture import Architecture, preset
from apr.errors import Refusal, UsageRefusal
from apr.progress import Report, silent
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.config import TrainConfig
from apr.train.data_plan import DataPlan, plan_data
from apr.train.init_file import InitFile
from apr.train.mixture import require_every_source
from apr.train.sources import require_distinct


@dataclass(frozen=True)
class Inputs:
    """What a run reads, opened and verified."""

    tokenizer: Tokenizer
    train: tuple[ShardReader, ...]
    """One for each source, in the order they were given."""
    val: ShardReader | None
    architecture: Architecture
    data: DataPlan
    init: InitFile | None = None

    @property
    def shards(self) -> list[ShardReader]:
        """Every shard directory of the run, the held-out one last."""
        return [*self.train, *([self.val] if self.val else [])]

    @property
    def num_documents(self) -> int:
        """Documents of all of them."""
        return sum(reader.num_documents for reader in self.shards)

    @property
    def unique_train_tokens(self) -> int:
        """Tokens of the training documents, over all sources, each text counted once."""
        return self.data.unique_train_tokens


def open_inputs(
    config: TrainConfig,
    *,
    init: InitFile | None = None,
    architecture: Architecture | None = None,
    verify: bool = True,
    progress: Report = silent,
) -> Inputs:
    """Open what a run reads; with `verify`, read every byte and compare every hash.

    The model's shape is the one given, else that of `init`, whose gates have passed, else the
    preset's.

    Refuses: config.unknown-preset, config.sequence-too-long, config.mixture-repeated,
    config.mixture-share, and whatever the tokenizer and the shards refuse.
    """
    tokenizer = Tokenizer.load(config.tokenizer)
    require_distinct(config.dataset)
    train = tuple(
        ShardReader.open(source.path, verify=verify, progress=progress) for source in config.dataset
    )
    val = None
    if config.val_shard:
        val = open_val_shards(config.val_shard, verify=verify, progress=progress)
    architecture = architecture or (init and init.architecture)
    if architecture is None:
        assert config.arch is not None, "an initial file was opened without its gates"
        architecture = preset(
            config.arch, tokenizer_vocab_size=tokenizer.vocab_size, vocab_size=config.vocab_size
        )
    require_positions(config, architecture)
    data = plan_data(
        train,
        val,
        weights=[source.weight for source in config.dataset],
        sequence_length=config.seq_length,
        batch_size=config.batch_size,
    )
    require_every_source(data.train, num_rows=config.num_steps * config.batch_size)
    return Inputs(tokenizer, train, val, architecture, data, init)


def require_positions(config: TrainConfig, architecture: Architecture) -> None:
    """Refuse sequences that are longer than the model is meant for.

    Refuses: config.sequence-too-long.
    """
    if config.seq_length > architecture.max_position_embeddings:
        raise UsageRefusal(
            "config.sequence-too-long",
            "--seq-length",
            found=config.seq_length,
            expected=f"at most {architecture.max_position_embeddings}, the model's positions",
            fix=f"pass --seq-length {architecture.max_position_embeddings} or less",
        )


def require_enough_held_out(config: TrainConfig, data: DataPlan) -> None:
    """Refuse a periodic subset larger than the set it is taken from.

    Refuses: config.eval-tokens.
    """
    if config.eval_tokens is not None and config.eval_tokens > data.val.num_targets:
        raise UsageRefusal(
            "config.eval-tokens",
            "--eval-tokens",
            found=config.eval_tokens,
            expected=f"at most {data.val.num_targets}, the held-out tokens there are",
            fix="ask for fewer, or leave the option out: a small set is read whole",
        )


def open_val_shards(
    directory: Path, *, verify: bool = True, progress: Report = silent
) -> ShardReader:
    """Open held-out shards; what is wrong with them carries upstream's id for it."""
    try:
        return ShardReader.open(directory, verify=verify, progress=progress)
    except Refusal as refusal:
        if refusal.upstream_id is None:
            refusal.upstream_id = "FALSIFY-PRETRAIN-VAL-SHARD-001"
        raise
