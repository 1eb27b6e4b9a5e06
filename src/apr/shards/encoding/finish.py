"""The last step of an encoding: accounts are balanced, parts become shards, shards get a name.

Nothing takes the target's name before every law has been checked on what was written.
"""

import json
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from apr import __version__
from apr.corpus.reading.account import Account
from apr.corpus.reading.locations import location_text
from apr.corpus.removals import require_matched
from apr.errors import DamagedFile
from apr.files import io_refusals, publish_directory, to_disk, write_bytes, write_json
from apr.shards.certified import certify_shards
from apr.shards.encoding.completed import job_record
from apr.shards.encoding.merge import Merged, merge_parts
from apr.shards.encoding.receipts import Receipt, merged_account, total
from apr.shards.encoding.request import ENCODE_NAME, Plan, Request, empty_corpus
from apr.shards.encoding.statistics import summarize
from apr.shards.manifest import EncoderRecord, Manifest, write_manifest
from apr.shards.reader import ShardReader

QUARANTINE_NAME = "quarantine.jsonl"


def finish(
    request: Request, plan: Plan, receipts: Sequence[Receipt], *, num_resumed: int
) -> Manifest:
    """Make the shards from finished parts, prove them, publish them, and clean up.

    Refuses: corpus.quarantined, corpus.removals-unmatched, corpus.empty, corpus.rows-lost,
    shards.part-damaged, shards.tokens-lost, corpus.certificate-mismatch, files.exists,
    files.io-failed.
    """
    account = _balanced_account(request, plan, receipts)
    workplace = request.workplace
    # What has been written comes to the disk while the rest is written, and all of it is verified.
    with io_refusals(workplace.staged), to_disk() as written:
        manifest = _stage(
            request, plan, receipts, account, num_resumed=num_resumed, written=written
        )
    publish_directory(workplace.staged, request.output, overwrite=request.overwrite)
    workplace.remove()
    return manifest


def _stage(
    request: Request,
    plan: Plan,
    receipts: Sequence[Receipt],
    account: Account,
    *,
    num_resumed: int,
    written: Callable[[Path], None],
) -> Manifest:
    """Everything that the target will hold, read back."""
    workplace = request.workplace
    shutil.rmtree(workplace.staged, ignore_errors=True)
    workplace.staged.mkdir()
    merged = merge_parts(
        workplace.parts,
        receipts,
        workplace.staged,
        unopened=plan.unopened,
        settings=plan.settings,
        shard_tokens=request.shard_tokens,
        vocab_size=request.tokenizer.vocab_size,
        num_threads=request.num_threads,
        progress=request.progress,
        written=written,
    )
    # Where other documents than the certified ones were named, this refusal says so first.
    manifest = _manifest(request, plan, receipts, account, merged)
    matched = {number for receipt in receipts for number in receipt.matched_removals}
    require_matched(request.removals, plan.removal_lists, matched)
    how = _how(request, plan, receipts, account, num_resumed=num_resumed)
    how |= job_record(request, plan, receipts)
    write_json(workplace.staged / ENCODE_NAME, how)
    if account.num_quarantined:
        _write_quarantine(workplace.staged / QUARANTINE_NAME, account)
    write_manifest(workplace.staged, manifest)
    ShardReader.open(workplace.staged, num_threads=request.num_threads, progress=request.progress)
    return manifest


def _balanced_account(request: Request, plan: Plan, receipts: Sequence[Receipt]) -> Account:
    account = merged_account([plan.listed, *(receipt.read_account() for receipt in receipts)])
    account.require_balanced()
    if account.num_quarantined > request.max_quarantined:
        # The rows stay to be looked at; the finished tasks stay for the next attempt.
        _write_quarantine(request.workplace.quarantine, account)
    account.require_quarantined_at_most(
        request.max_quarantined, listed_in=request.workplace.quarantine
    )
    if not account.num_documents:
        request.workplace.remove()  # Finished tasks without a document are worth nothing.
        raise empty_corpus(request, plan.files, account)
    return account


def _manifest(
    request: Request, plan: Plan, receipts: Sequence[Receipt], account: Account, merged: Merged
) -> Manifest:
    tokenizer = request.tokenizer
    _require_no_token_lost(request, receipts, account, merged)
    return Manifest(
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eos_policy=request.eos_policy,
        eos_token=tokenizer.eos_token,
        eos_token_id=tokenizer.eos_token_id,
        eos_token_count=merged.num_separators,
        total_tokens=sum(shard.num_tokens for shard in merged.shards),
        total_documents=merged.num_documents,
        text_bytes=total(receipts, "text_bytes"),
        shard_count=len(merged.shards),
        shards=merged.shards,
        documents_sha256=merged.documents_sha256,
        rows_read=account.num_rows,
        drops=dict(sorted(account.drops.items())),
        quarantined=dict(sorted(account.quarantined.items())),
        statistics=summarize(receipts, merged.counts, tokenizer),
        encoder=EncoderRecord(
            name=plan.choice.name,
            version=plan.choice.version,
            reference_version=plan.choice.reference_version,
            proof=plan.choice.proof,
            num_shadowed=total(receipts, "num_shadowed"),
        ),
        certificate=certify_shards(
            request.workplace.staged,
            documents_sha256=merged.documents_sha256,
            certificate=request.certificate,
            corpus=request.corpus,
        ),
    )


def _require_no_token_lost(
    request: Request, receipts: Sequence[Receipt], account: Account, merged: Merged
) -> None:
    """Receipts, token counts and shards are three accounts of the same tokens.

    Refuses: shards.tokens-lost.
    """
    num_separators = merged.num_separators
    trimmed = 1 if request.eos_policy == "between" else 0
    laws = [
        ("tokens in shards", merged.num_tokens, total(receipts, "num_tokens") - trimmed),
        ("separators", num_separators, merged.num_tokens - int(merged.counts.sum())),
        ("documents in shards", merged.num_documents, account.num_documents),
    ]
    for what, found, expected in laws:
        if found != expected:
            raise DamagedFile(
                "shards.tokens-lost",
                request.workplace.directory,
                found=f"{found} {what}",
                expected=f"{expected}, as the receipts say",
                fix=f"delete {request.workplace.directory} and run the same command again",
            )


def _write_quarantine(path: Path, account: Account) -> None:
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in account.entries]
    write_bytes(path, "".join(lines).encode("utf-8"))


def _how(
    request: Request, plan: Plan, receipts: Sequence[Receipt], account: Account, *, num_resumed: int
) -> dict[str, Any]:
    """What the manifest may not hold, because it differs from machine to machine."""
    elapsed_s = time.monotonic() - request.started_s
    num_tokens = total(receipts, "num_tokens")
    return {
        "apr_version": __version__,
        "python_version": platform.python_version(),
        "numpy_version": np.__version__,
        "corpus": [location_text(path) for path in request.corpus],
        "tokenizer": location_text(request.tokenizer.where),
        "content_field": request.content_field,
        "exclude": list(request.exclude),
        "removals": [location_text(path) for path in request.removals],
        "shard_tokens": request.shard_tokens,
        "started_at": request.started_at.isoformat(timespec="seconds"),
        "elapsed_s": round(elapsed_s, 3),
        "tokens_per_s": round(num_tokens / elapsed_s),
        "num_tasks": len(receipts),
        "num_tasks_resumed": num_resumed,
        "encoder": plan.choice.name,
        "encoder_detail": plan.choice.detail,
        "num_documents_decoded": total(receipts, "num_decoded"),
        "drop_examples": account.examples,
        "num_byte_order_marks": account.num_byte_order_marks,
        "control_text_examples": list(
            islice(chain.from_iterable(r.control_text_examples for r in receipts), 5)
        ),
    }
