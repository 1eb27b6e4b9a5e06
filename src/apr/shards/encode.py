"""A corpus becomes a directory of shards: whole, proven, or not at all.

The input is cut into tasks, each task is encoded into a part with a receipt, and the parts are
put together in the order of the plan. Whoever does a task, and however often the work is
interrupted, the same input gives the same bytes. Running the same command again continues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apr.errors import Refusal, UsageRefusal
from apr.progress import Report, silent
from apr.shards.encoding.completed import completed, is_finished
from apr.shards.encoding.executors import Executor, run_here
from apr.shards.encoding.finish import finish
from apr.shards.encoding.meter import Meter
from apr.shards.encoding.plan import TASK_BYTES, Task
from apr.shards.encoding.proof import EncoderDiffers
from apr.shards.encoding.receipts import Receipt, read_receipt, verified_receipt
from apr.shards.encoding.request import EncoderName, Plan, Request, make_plan
from apr.shards.encoding.work import Work
from apr.shards.encoding.workplace import make_encoding
from apr.shards.manifest import EosPolicy, Manifest
from apr.tokenizer.choice import record_difference
from apr.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Unfinished:
    """What a slice leaves when others are still to be done: no shards yet."""

    num_tasks: int
    num_tasks_done: int


@dataclass(frozen=True)
class MadeBefore:
    """What a slice finds that starts after all work was done: the shards of its own job."""

    manifest: Manifest


def encode_corpus(
    corpus: Sequence[Path | str],
    *,
    tokenizer: Tokenizer,
    output: Path,
    shard_tokens: int = 10_000_000,
    content_field: str = "content",
    eos_policy: EosPolicy = "after",
    exclude: Sequence[str] = (),
    removals: Sequence[Path] = (),
    certificate: Path | None = None,
    max_quarantined: int = 0,
    overwrite: bool = False,
    task_bytes: int = TASK_BYTES,
    encoder: EncoderName = "auto",
    cache_directory: Path | None = None,
    executor: Executor = run_here,
    num_threads: int = 1,
    progress: Report = silent,
) -> Manifest:
    """Encode files, trees and tables of text into `output`.

    A shard ends with the document that brings it to `shard_tokens`. Work in progress lies in
    OUTPUT.partial and is continued by the same call. Documents that a list in `removals` names
    are dropped with its reasons. The manifest names the certificate that these documents are a
    side of: `certificate`, or the certificate.json beside the corpus. `task_bytes` of text make a
    task, and change nothing in the result. With `encoder` auto the fast one is used where it was
    proven equal to the reference; `cache_directory` keeps such verdicts, without it each call
    compares again. `num_threads` put the shards together at the end.

    Refuses: tokenizer.eos-undeclared, tokenizer.control-id, corpus.* (what cannot be read),
    corpus.quarantined, shards.text-lost, shards.shard-tokens, shards.busy, shards.worker-died,
    shards.worker-stalled, corpus.certificate-mismatch, corpus.removals-damaged,
    corpus.removals-unmatched, files.exists, files.foreign-content,
    files.output-overlaps-input, files.io-failed.
    Writes: shard-NNNNN.bin, shard-NNNNN.idx, documents.jsonl.zst, encode.json, manifest.json,
    certificate.json where the documents have one, quarantine.jsonl where rows were quarantined.
    """
    request = Request(
        corpus=corpus,
        tokenizer=tokenizer,
        output=output,
        shard_tokens=shard_tokens,
        content_field=content_field,
        eos_policy=eos_policy,
        exclude=exclude,
        removals=removals,
        certificate=certificate,
        max_quarantined=max_quarantined,
        overwrite=overwrite,
        task_bytes=task_bytes,
        encoder=encoder,
        cache_directory=cache_directory,
        num_threads=num_threads,
        progress=progress,
    )
    return encode(request, executor=executor)


def encode(request: Request, *, executor: Executor = run_here) -> Manifest:
    """As `encode_corpus`, for a request that was put together before."""
    request.require_possible()
    with request.workplace.hold(), request.workplace.forget_if_empty():
        plan = make_plan(request)
        request.workplace.clear_parts(keep={task.key for task in plan.tasks})
        plan, resumed = _do(request, plan, plan.tasks, executor)
        return finish(request, plan, _receipts(request, plan.tasks), num_resumed=resumed)


def encode_slice(
    request: Request, *, index: int, count: int, executor: Executor = run_here
) -> Manifest | MadeBefore | Unfinished:
    """Do every `count`-th task from `index` on; whoever ends last puts the shards together.

    Slices are counted from 0 and may run on different machines that share a file system. One that
    comes when the shards are there already says so, after it has looked at its share of the input
    and at the shards.

    Refuses: shards.slice, shards.slices-differ, and as `encode_corpus`.
    """
    if not 0 <= index < count:
        raise UsageRefusal(
            "shards.slice",
            "--task",
            found=f"{index}/{count}",
            expected="i/N with 0 <= i < N",
            fix="count the slices from 0",
        )
    if not is_finished(request):
        request.require_possible()
    # Before there is a workplace: a corpus that cannot be planned leaves nothing behind.
    plan = make_plan(request)
    if made := _made_before(request, plan, index, count):
        return made
    request.require_possible()
    workplace = request.workplace
    with workplace.hold(shared=True), workplace.hold_slice(index, count):
        workplace.require_same_job(plan.settings)
        plan, resumed = _do(request, plan, plan.tasks[index::count], executor)
        done = [task for task in plan.tasks if read_receipt(workplace.parts / task.key)]
        unfinished = Unfinished(len(plan.tasks), len(done))
        if len(done) < len(plan.tasks):
            return _made_meanwhile(request, plan, index, count) or unfinished
        try:
            with workplace.hold_merge():
                if made := _made_meanwhile(request, plan, index, count):
                    return made
                return finish(request, plan, _receipts(request, plan.tasks), num_resumed=resumed)
        except Refusal as refusal:
            if refusal.id != "shards.busy":
                raise
            # Another slice ended in the same moment and is putting the shards together.
            return unfinished


def _made_before(request: Request, plan: Plan, index: int, count: int) -> MadeBefore | None:
    manifest = completed(request, plan, range(len(plan.tasks))[index::count])
    return None if manifest is None else MadeBefore(manifest)


def _made_meanwhile(request: Request, plan: Plan, index: int, count: int) -> MadeBefore | None:
    """As `_made_before`, for a slice at work; whoever merged has deleted all parts but its own."""
    made = _made_before(request, plan, index, count)
    if made is not None:
        request.workplace.remove()
    return made


def _do(
    request: Request, plan: Plan, tasks: Sequence[Task], executor: Executor
) -> tuple[Plan, int]:
    """Let the tasks that have no good part yet be done; return how many had one."""
    workplace = request.workplace
    workplace.prepare(plan.settings, request.tokenizer, request.removals)
    finished = _verified(request, tasks)
    missing = [task for task in tasks if task.key not in finished]
    meter = Meter(missing, list(finished.values()), parts=workplace.parts, report=request.progress)
    work = Work(
        missing,
        workplace,
        lambda: make_encoding(plan.settings, request.tokenizer, request.removals),
        meter,
    )
    try:
        executor(work)
    except EncoderDiffers as err:
        choice = record_difference(
            request.tokenizer,
            plan.choice,
            cache_directory=request.cache_directory,
            place=err.place,
            token_index=err.token_index,
            found=err.found,
            expected=err.expected,
        )
        # What the fast encoder made before is not trusted either: it goes with its settings.
        numbers = {task.key: number for number, task in enumerate(plan.tasks)}
        again = plan.again_with(choice)
        return _do(request, again, [again.tasks[numbers[task.key]] for task in tasks], executor)
    meter.finish()
    return plan, len(finished)


def _verified(request: Request, tasks: Sequence[Task]) -> dict[str, Receipt]:
    """The receipts that still hold; a part whose receipt does not is deleted."""
    found: dict[str, Receipt] = {}
    for task in tasks:
        part = request.workplace.parts / task.key
        if not part.exists():
            continue
        receipt = verified_receipt(part, task)
        if receipt is None:
            request.workplace.remove_part(task.key)
        else:
            found[task.key] = receipt
    return found


def _receipts(request: Request, tasks: Sequence[Task]) -> list[Receipt]:
    receipts = [read_receipt(request.workplace.parts / task.key) for task in tasks]
    assert all(receipts)
    return [receipt for receipt in receipts if receipt is not None]
