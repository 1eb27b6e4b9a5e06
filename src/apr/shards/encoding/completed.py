"""Whether the shards in a target are already what a slice would help to make.

A slice may start after the others have done all of its work and put the shards together.
encode.json then names the job by a hash of its plan, and for every task what it read. The same job
over the same input is complete; anything else in the target belongs to somebody else.
"""

from collections.abc import Sequence
from typing import Any, cast

import orjson

from apr.corpus.reading.spans import span_sha256
from apr.errors import Refusal
from apr.files import parse_json, require_absent, sha256_bytes, sha256_file
from apr.shards.encoding.plan import Task
from apr.shards.encoding.receipts import Receipt
from apr.shards.encoding.request import ENCODE_NAME, Plan, Request
from apr.shards.manifest import Manifest
from apr.shards.reader import ShardReader


def job_record(request: Request, plan: Plan, receipts: Sequence[Receipt]) -> dict[str, Any]:
    """What encode.json says of the job, for `completed` to compare."""
    return {
        "job_sha256": _job_sha256(request, plan),
        "input_sha256": [_joined(receipt.input_sha256) for receipt in receipts],
    }


def is_finished(request: Request) -> bool:
    """Whether the target holds the end of some job that may be this one."""
    return _recorded(request) is not None


def completed(request: Request, plan: Plan, numbers: Sequence[int]) -> Manifest | None:
    """The manifest of a target that this very job has made, None where the target is free.

    `numbers` are the tasks, counted in the plan, whose input the caller answers for: it is read
    again. So is every byte of the shards.

    Refuses: files.exists for a target of another job or of other input, and, without `overwrite`,
    what opening the shards refuses.
    """
    record = _recorded(request)
    if record is None or not _is_same_job(record, request, plan, numbers):
        require_absent(request.output, overwrite=request.overwrite)
        return None
    try:
        return ShardReader.open(request.output, progress=request.progress).manifest
    except Refusal:
        if request.overwrite:
            return None
        raise


def _recorded(request: Request) -> dict[str, Any] | None:
    try:
        record: Any = parse_json((request.output / ENCODE_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or "job_sha256" not in record:
        return None
    return cast("dict[str, Any]", record)


def _is_same_job(
    record: dict[str, Any], request: Request, plan: Plan, numbers: Sequence[int]
) -> bool:
    inputs: Any = record.get("input_sha256")
    if record["job_sha256"] != _job_sha256(request, plan) or not isinstance(inputs, list):
        return False
    inputs = cast("list[Any]", inputs)
    if len(inputs) != len(plan.tasks):
        return False
    return all(inputs[number] == _input_sha256(plan.tasks[number]) for number in numbers)


def _job_sha256(request: Request, plan: Plan) -> str:
    certificate = request.find_certificate()
    return _joined(
        {
            "tasks": [task.key for task in plan.tasks],
            "listed": plan.listed.as_dict(),
            "shard_tokens": request.shard_tokens,
            "max_quarantined": request.max_quarantined,
            "certificate_sha256": certificate and sha256_file(certificate),
        }
    )


def _input_sha256(task: Task) -> str:
    return _joined([span_sha256(span) for span in task.spans])


def _joined(value: Any) -> str:
    return sha256_bytes(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
