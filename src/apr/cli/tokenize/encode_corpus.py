"""`apr tokenize encode-corpus`: a corpus becomes shards."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from apr.cli import output
from apr.cli.cache import encoder_proofs
from apr.cli.tokenize.options import PATH, corpus_options
from apr.cli.typed import typed_again
from apr.cli.values import require_used
from apr.errors import Interrupted
from apr.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from apr.shards.encode import Unfinished
    from apr.shards.encoding.estimate import Estimate
    from apr.shards.manifest import Manifest


# More threads than this do not write faster.
_MOST_THREADS = 8


class _Slice(click.ParamType):
    name = "i/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        index, slash, count = str(value).partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            self.fail(f"{value!r} is not of the form i/N, such as 0/4", param, ctx)
        return int(index), int(count)


@click.command("encode-corpus")
@corpus_options
@click.option(
    "--tokenizer",
    "tokenizer_path",
    required=True,
    type=PATH,
    help="Tokenizer directory, or a tokenizer.json.",
)
@click.option("--eos-token", help="The document separator, where the tokenizer declares none.")
@click.option(
    "--eos-policy",
    type=click.Choice(["after", "between", "none"]),
    default="after",
    show_default=True,
    help="Separators for N documents: N, N-1 or 0.",
)
@click.option(
    "--normalization",
    type=click.Choice(["nfc", "none"]),
    help="What the tokenizer must do to text, or it is refused; its own normalizer is applied.",
)
@click.option(
    "--shard-tokens", default=10_000_000, show_default=True, help="Tokens that end a shard."
)
@click.option(
    "--remove",
    "removals",
    multiple=True,
    type=PATH,
    help="A removal list, as apr corpus dedup writes it; repeatable.",
)
@click.option(
    "--certificate",
    type=PATH,
    help="The certificate of these documents; default: certificate.json beside the corpus.",
)
@click.option(
    "--max-quarantined",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Rows that may claim to be documents and be none.",
)
@click.option(
    "--encoder",
    type=click.Choice(["auto", "reference"]),
    default="auto",
    show_default=True,
    help="auto: the fast encoder, where it was proven equal to the reference.",
)
@click.option("--num-workers", type=int, help="Worker processes; default: one per core.")
@click.option(
    "--executor",
    "executor_kind",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who does the tasks.",
)
@click.option(
    "--task",
    "slice_",
    type=_Slice(),
    help="Do only every N-th task from the i-th on, as one of N jobs on a shared file system.",
)
@click.option("--estimate-only", is_flag=True, help="Sample the corpus, say what to expect, stop.")
@click.option(
    "--estimate-sample-docs",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Documents of the sample.",
)
@click.option(
    "--progress-interval-seconds",
    "progress_interval_s",
    default=output.PLAIN_INTERVAL_S,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Between lines of progress, where stderr is no terminal.",
)
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context,
    corpus: tuple[Path | str, ...],
    directory: Path,
    tokenizer_path: Path,
    eos_token: str | None,
    normalization: Literal["nfc", "none"] | None,
    num_workers: int | None,
    executor_kind: Literal["local", "ray"],
    slice_: tuple[int, int] | None,
    estimate_only: bool,
    progress_interval_s: float,
    estimate_sample_docs: int,
    **options: Any,
) -> output.Result:
    """Turn a corpus into shards of token ids, with a manifest that proves them.

    \b
    apr tokenize encode-corpus --corpus src --tokenizer tok -o shards
    apr tokenize encode-corpus --corpus a.jsonl.zst --tokenizer Qwen2.5-0.5B \\
        --eos-token '<|endoftext|>' -o shards

    Stopped at any moment, the same command continues; the result is the same, byte for byte, for
    any number of workers. Text that spells a control token is encoded as ordinary text. A row
    that claims to be a document and is none fails the command at its end, unless allowed; in a
    source tree, what is no text is left out and counted.
    """  # noqa: D301  click reads the escaped character
    if not estimate_only:
        require_used(ctx, "estimate_sample_docs", unless="without --estimate-only")
    # One process is one core: workers share the machine better than the encoder's threads do.
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    from apr.shards.encoding.nursery import Nursery

    workers = (os.cpu_count() or 1) if num_workers is None else num_workers
    nursery = Nursery()
    if executor_kind == "local" and workers > 1 and not estimate_only:
        # Before anything large is imported here: it imports the same on another core.
        ctx.call_on_close(nursery.stop)
        nursery.start()
    from apr.cli.tokenize.next_steps import next_steps
    from apr.shards import encode
    from apr.shards.encoding.executors import make_executor
    from apr.shards.encoding.plan import TASK_BYTES
    from apr.shards.encoding.request import Request
    from apr.tokenizer.tokenizer import Tokenizer

    proofs = encoder_proofs()
    tokenizer = Tokenizer.load(tokenizer_path, eos_token=eos_token, cache_directory=proofs)
    if normalization is not None:
        tokenizer.require_normalization(normalization)
    request = Request(
        corpus=corpus,
        tokenizer=tokenizer,
        output=directory,
        task_bytes=TASK_BYTES,
        cache_directory=proofs,
        num_threads=min(workers, _MOST_THREADS),
        progress=output.progress(plain_interval_s=progress_interval_s),
        **options,
    )
    run = make_executor(executor_kind, num_workers=workers, nursery=nursery)
    if estimate_only:
        from apr.shards.encoding.estimate import estimate

        found = estimate(request, num_documents=estimate_sample_docs, num_workers=workers)
        return output.Result(
            data=asdict(found),
            text=_estimate_text(found, workers),
            next_commands=(typed_again(ctx, without=("estimate_only", "estimate_sample_docs")),),
        )
    try:
        if slice_ is None:
            result = encode.encode(request, executor=run)
        else:
            result = encode.encode_slice(request, index=slice_[0], count=slice_[1], executor=run)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; finished tasks are kept, the same command continues",
            resume_command=typed_again(ctx),
        ) from None
    if isinstance(result, encode.Unfinished):
        return output.Result(
            data={"complete": False, **asdict(result)}, text=_unfinished_text(result, directory)
        )
    made_before = isinstance(result, encode.MadeBefore)
    if isinstance(result, encode.MadeBefore):
        result = result.manifest
    if result.certificate is None and (beside := request.find_certificate()) is not None:
        output.notify(f"note: {beside} is of other documents, so these shards carry none")
    return _finished(result, directory, next_steps(ctx, request, result), made_before=made_before)


def _finished(
    manifest: "Manifest", directory: Path, next_commands: tuple[str, ...], *, made_before: bool
) -> output.Result:
    from apr.files import sha256_file

    identity = {
        "output": str(directory),
        "complete": True,
        "manifest_sha256": sha256_file(directory / "manifest.json"),
    }
    return output.Result(
        data=identity | manifest.model_dump(by_alias=True),
        text=("complete before this slice began, by others of its job\n" if made_before else "")
        + _manifest_text(manifest, directory),
        next_commands=next_commands,
    )


def _manifest_text(manifest: "Manifest", directory: Path) -> str:
    separator = "" if manifest.eos_token is None else f" {manifest.eos_token}"
    lines = [
        f"shards: {directory}",
        f"  {format_count(manifest.total_tokens)} tokens in {_shards(manifest.shard_count)}, "
        f"{manifest.statistics.bytes_per_token:.2f} bytes per token",
        f"  {format_count(manifest.rows_read)} rows read: "
        f"{format_count(manifest.total_documents)} documents "
        f"({format_bytes(manifest.text_bytes)}); left out: {_reasons(manifest.drops)}"
        f"; quarantined: {_reasons(manifest.quarantined)}",
        f"  {manifest.eos_token_count} separators{separator} ({manifest.eos_policy})",
        f"  tokenizer fingerprint {manifest.tokenizer_fingerprint}",
        f"  {_encoder_text(manifest)}",
    ]
    if manifest.certificate is not None:
        lines.append(
            f"  the {manifest.certificate.side} side of certificate {manifest.certificate.sha256}"
        )
    return "\n".join(lines)


def _shards(count: int) -> str:
    return "1 shard" if count == 1 else f"{count} shards"


def _encoder_text(manifest: "Manifest") -> str:
    encoder = manifest.encoder
    assert encoder is not None, "an encoding knows its encoder"
    proof = encoder.proof
    if encoder.name == "tokenizers":
        return f"encoded by the reference, tokenizers {encoder.version}: {proof['reason']}"
    return (
        f"encoded by {encoder.name} {encoder.version}; equal to tokenizers "
        f"{encoder.reference_version} on {proof['num_strings']} test strings and on "
        f"{encoder.num_shadowed} documents while it ran"
    )


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing"


def _unfinished_text(unfinished: "Unfinished", directory: Path) -> str:
    missing = unfinished.num_tasks - unfinished.num_tasks_done
    return (
        f"slice done; {missing} of {unfinished.num_tasks} tasks are still to be done by other "
        f"slices\n  there are no shards in {directory} yet; the slice that ends last makes them"
    )


def _estimate_text(found: "Estimate", num_workers: int) -> str:
    workers = "1 worker" if num_workers == 1 else f"{num_workers} workers"
    return "\n".join(
        [
            f"estimate from {found.num_sampled_documents} documents, "
            f"{format_bytes(found.sampled_bytes)}; nothing was written",
            f"  corpus: {found.num_files} files, {format_bytes(found.corpus_bytes)}, about "
            f"{format_bytes(found.estimated_text_bytes)} of text",
            f"  about {format_count(found.estimated_tokens)} tokens "
            f"({found.bytes_per_token:.2f} bytes per token) in {_shards(found.estimated_shards)}",
            f"  about {format_duration(found.estimated_s)} with {workers}, and up to "
            f"{format_bytes(found.estimated_disk_bytes)} of disk while it runs",
        ]
    )
