"""`apr selftest`: the proofs of a run on its own model and data, before it is started.

Nothing is written to the run directory. The files a proof needs lie in a temporary directory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.architecture import Architecture
from apr.jobs.sitting import SILENT, Listener
from apr.train.acceleration import choose_device
from apr.train.allocator import keep_freed_memory
from apr.train.config import TrainConfig, absolute_paths, within_positions
from apr.train.device_option import require_device
from apr.train.gates import Gate, judge, require_passed
from apr.train.init_file import read_init
from apr.train.inputs import open_inputs
from apr.train.preflight import check_id_range
from apr.train.prepare import prepare
from apr.train.repeatable import repeatable
from apr.train.replay import Replay, replay_skipped
from apr.train.selftest.proofs import Proofs, prove
from apr.train.skipped_step import load_skipped_step


@dataclass(frozen=True)
class Selftest:
    """A run as it was proven: its resolved configuration, its model, its verdicts."""

    config: TrainConfig
    architecture: Architecture
    proofs: Proofs

    @property
    def gates(self) -> list[Gate]:
        """The proofs that apply to this run, judged."""
        return self.proofs.gates

    @property
    def passed(self) -> bool:
        """Whether there was a proof, and none blocks."""
        return bool(self.gates) and not any(gate.blocks for gate in self.gates)

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr selftest --json` prints."""
        return {
            "passed": self.passed,
            "gates": [gate.as_record() for gate in self.gates],
            "not_applicable": self.proofs.not_applicable,
            "num_parameters": self.architecture.num_parameters,
            "config": self.config.model_dump(mode="json"),
        }


def selftest(config: TrainConfig, *, listener: Listener = SILENT) -> Selftest:
    """Prove on a run's own model and data that it computes what it claims to.

    The files are judged by `apr pretrain --dry-run`; only ids beyond the model's rows, which no
    proof would survive, are refused here as well.

    Refuses: preflight.init-file, preflight.init-family, preflight.init-tensors,
    preflight.id-range, and what opening tokenizer and shards refuses; a failed proof is
    in the answer.
    """
    config = absolute_paths(config)
    keep_freed_memory()
    with repeatable(config.device, seed=config.seed, deterministic=config.deterministic):
        init = read_init(config.init, progress=listener.progress) if config.init else None
        if init is not None:
            require_passed(init.gates, init.path)
        config = within_positions(config, init and init.architecture)
        inputs = open_inputs(config, init=init, progress=listener.progress)
        ids = judge("preflight.id-range", lambda: check_id_range(inputs))
        require_passed([ids], config.run_dir)
        run = prepare(config, inputs, notify=listener.notify, progress=listener.progress)
        proofs = prove(run, progress=listener.progress)
        return Selftest(run.config, run.model.architecture, proofs)


def replay(directory: Path, *, device: str = "cpu", listener: Listener = SILENT) -> Replay:
    """Compute a step that a run skipped again, from what the run kept of it.

    Refuses: files.not-found, skipped.damaged, container.*, config.device,
    config.device-unavailable.
    """
    require_device(device)
    device = str(choose_device(device))
    keep_freed_memory()
    with repeatable(device, seed=0):
        skipped = load_skipped_step(directory, device=device, progress=listener.progress)
        return replay_skipped(skipped, progress=listener.progress)
