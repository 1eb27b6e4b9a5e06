"""What a run would read, as far as it was named, by what it says of itself.

Manifests, indexes, the tokenizer and the metadata of an initial model are read, tokens and weights
are not, so that a plan is made in a moment.
"""

from dataclasses import dataclass

from apr.shards.described import Description
from apr.shards.manifest import read_manifest
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.config import TrainConfig
from apr.train.copies import SourceDocuments, documents_of_directory
from apr.train.init_file import InitFile, describe_init
from apr.train.sources import require_distinct


@dataclass(frozen=True)
class DescribedInputs:
    """The inputs of a run by their descriptions; None, or nothing, for what was not named."""

    tokenizer: Tokenizer | None
    train: tuple[Description, ...]
    val: Description | None
    init: InitFile | None
    train_documents: tuple[SourceDocuments, ...]
    """Of each source; without hashes where it has no index files."""
    val_documents: SourceDocuments | None

    @property
    def shards(self) -> list[Description]:
        """Every shard directory that was named, the held-out one last."""
        return [*self.train, *([self.val] if self.val else [])]

    @property
    def vocab_size(self) -> int | None:
        """Token ids of the tokenizer, or of the one that made the shards."""
        if self.tokenizer is not None:
            return self.tokenizer.vocab_size
        return max((each.manifest.vocab_size for each in self.shards), default=None)


def describe_inputs(config: TrainConfig, *, unnamed: tuple[str, ...]) -> DescribedInputs:
    """Read what the inputs of a run say of themselves, but for the fields that are `unnamed`.

    Refuses: config.mixture-repeated, and what a manifest, an index, a tokenizer or a container
    refuses.
    """
    sources = () if "dataset" in unnamed else config.dataset
    require_distinct(sources)
    train = tuple(Description(each.path, read_manifest(each.path)[0]) for each in sources)
    val = None
    if config.val_shard is not None and "val_shard" not in unnamed:
        val = Description(config.val_shard, read_manifest(config.val_shard)[0])
    return DescribedInputs(
        None if "tokenizer" in unnamed else Tokenizer.load(config.tokenizer),
        train,
        val,
        describe_init(config.init) if config.init else None,
        tuple(documents_of_directory(each.directory, each.manifest) for each in train),
        documents_of_directory(val.directory, val.manifest) if val else None,
    )
