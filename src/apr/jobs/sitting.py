"""One sitting of a run: from a state to an ending, told truthfully."""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from apr.errors import Interrupted, IoFailed, Refusal
from apr.jobs.finish import end_run, note_progress
from apr.jobs.run_ceiling import note_ceiling
from apr.jobs.shared_directory import require_shared
from apr.progress import Report, silent
from apr.report.page import write_report
from apr.train.checkpoint_writer import CheckpointWriter
from apr.train.mixture import BatchPart
from apr.train.optimizer import applied_settings
from apr.train.origin import Origin
from apr.train.prefetch import Batches, prefetched
from apr.train.prepare import PreparedRun
from apr.train.run_record import RunRecord, StepLog, resume_command
from apr.train.train_state import TrainState
from apr.train.trainer import Trainer


@dataclass(frozen=True)
class Listener:
    """How a job under way talks to whoever started it; silent by default."""

    progress: Report = silent
    notify: Callable[[str], None] = lambda _text: None
    should_stop: Callable[[], bool] = lambda: False
    should_save: Callable[[], bool] = lambda: False
    """Whether a checkpoint was asked for since the last time of asking."""
    save_from_here: Callable[[], None] = lambda: None
    """Called before anything is written: `should_stop` is asked, and answered by saving, from here
    on. Until then whoever started the job may interrupt it, and nothing is lost."""


SILENT = Listener()


def sit(
    run: PreparedRun,
    record: RunRecord,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    *,
    listener: Listener,
) -> dict[str, Any]:
    """Train from `state` and end the run truthfully; return the run record.

    Refuses: what training and ending refuse. Raises Interrupted after saving.
    Writes: the run directory.
    """
    # Read back, so that the record says what is applied and not what was asked for.
    record.data["optimizer"] = applied_settings(optimizer)
    note_ceiling(run, record)
    origin = _origin(record)
    ranks = run.ranks
    # Nobody reads any more what is written from here on.
    ranks.wait()
    record.write()
    last_known_step = state.step if state.step > 0 else -1
    with (
        _truthful_ending(record),
        ranks.noticing_losses(),
        StepLog.open(
            record.run_dir, keep_through_step=last_known_step, is_kept=ranks.is_first
        ) as log,
        CheckpointWriter(
            record.run_dir,
            run.model,
            optimizer,
            tokenizer=run.inputs.tokenizer,
            carried=origin.carried,
            keep=run.config.keep,
            before_writing=log.sync,
            saved_step=state.step,
            ranks=ranks,
        ) as checkpoints,
        _batches_of(run) as batches,
    ):
        require_shared(record.run_dir, ranks)
        trainer = Trainer(
            run=run,
            run_dir=record.run_dir,
            optimizer=optimizer,
            origin=origin,
            log=log,
            checkpoints=checkpoints,
            batches=batches,
            progress=listener.progress,
            notify=listener.notify,
        )
        try:
            outcome = trainer.train(
                state, should_stop=listener.should_stop, should_save=listener.should_save
            )
        except BaseException:
            note_progress(trainer, record, state)
            raise
        end_run(trainer, record, state, outcome)
        ranks.wait()
    return record.data


@contextmanager
def _batches_of(run: PreparedRun) -> Generator[Batches]:
    """This rank's batches, built ahead where waiting for them would be felt."""
    part = BatchPart(run.order, run.ranks.rank, run.ranks.world_size)
    if run.acceleration.device.type != "cuda":
        yield part
        return
    with prefetched(part, last_step=run.config.num_steps, pinned=True) as ahead:
        yield ahead


def _origin(record: RunRecord) -> Origin:
    init = record.data["inputs"]["init"]
    if init is None:
        return Origin(record.frozen_sha256())
    return Origin(
        record.frozen_sha256(),
        init_sha256=init["sha256"],
        tokens_seen_before=init["tokens_seen"],
        provenance=tuple(init["provenance"]),
        carried=init["carried"],
    )


@contextmanager
def _truthful_ending(record: RunRecord) -> Generator[None]:
    """Give every way out of a run its own word in the record."""
    try:
        yield
    except Interrupted:
        raise
    except IoFailed as err:
        _try_to_finish(record, "artifact_lost", f"{err.where}: {err.found}")
        # The command that began a run is refused from its first record on.
        go_on = f"run {resume_command(record.run_dir)}"
        err.fix = err.fix.replace("run the same command again", go_on)
        raise
    except Refusal as err:
        _try_to_finish(record, "aborted", f"{err.id}: {err.where}: {err.found}")
        raise
    except KeyboardInterrupt:
        _try_to_finish(record, "interrupted", "stopped at once, without saving")
        raise
    except BaseException as err:
        _try_to_finish(record, "aborted", f"{type(err).__name__}: {err}")
        raise


def _try_to_finish(record: RunRecord, outcome: str, detail: str) -> None:
    # On a full disk the record keeps its last word, `running`, which is no success either.
    with suppress(Refusal):
        record.finish(outcome, detail=detail)
        if record.is_kept:
            write_report(record.run_dir)
