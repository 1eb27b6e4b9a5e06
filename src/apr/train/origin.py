"""Where the weights of a run come from, as every file with weights says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apr.train.inputs import Inputs


@dataclass(frozen=True)
class Origin:
    """The record of the run itself, and what it started from."""

    run_record_sha256: str
    init_sha256: str | None = None
    tokens_seen_before: int | None = 0
    """Tokens the initial model had seen; None where nobody says."""
    provenance: tuple[dict[str, Any], ...] = ()
    """The initial model's own chain, which is carried on."""
    carried: Mapping[str, Any] = field(default_factory=dict)
    """Its free keys that hold for these weights too."""

    def chain(
        self, inputs: Inputs, what: str, *, step: int, tokens_seen: int, **measured: Any
    ) -> list[dict[str, Any]]:
        """The provenance of weights after a step, as a container carries it."""
        entry = {
            "what": what,
            "run_record_sha256": self.run_record_sha256,
            "train_manifests_sha256": [shards.manifest_sha256 for shards in inputs.train],
            "val_manifest_sha256": inputs.val and inputs.val.manifest_sha256,
            "tokenizer_fingerprint": inputs.tokenizer.fingerprint,
            "step": step,
            "tokens_seen": tokens_seen,
        }
        if self.init_sha256 is not None:
            entry["init_sha256"] = self.init_sha256
            entry["tokens_seen_before"] = self.tokens_seen_before
        return [*self.provenance, entry | measured]
