"""What to do with shards that were just encoded: verify them, encode the other side, train."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from apr.cli import output
from apr.cli.free_name import free_name
from apr.cli.tokenize.options import repeat
from apr.corpus.certificate import CERTIFICATE_NAME, read_certificate
from apr.errors import Refusal
from apr.shards.encoding.request import Request
from apr.shards.manifest import Manifest, read_manifest
from apr.shards.tokenizer_of import recorded_path

# What `apr corpus split` calls the two directories that it writes.
_TRAIN, _HELD_OUT = "train", "held-out"
# Both sides are read alike; which documents are removed is decided for one of them.
_SHARED_OPTIONS = ("content_field", "eos_token", "eos_policy")


def next_steps(ctx: click.Context, request: Request, manifest: Manifest) -> tuple[str, ...]:
    """The commands that come next; each names what is there, or what the one before it writes."""
    directory, tokenizer_path = request.output, ctx.params["tokenizer_path"]
    verify = output.command_line(
        "apr", "tokenize", "verify", directory, "--tokenizer", tokenizer_path
    )
    side = manifest.certificate
    if side is None:
        return verify, _pretrain(directory, None, tokenizer_path)
    other = _shards_of_other_side(directory, manifest)
    if side.side == "held-out":
        return (verify, _pretrain(other, directory, tokenizer_path)) if other else (verify,)
    if other is not None:
        return verify, _pretrain(directory, other, tokenizer_path)
    held_out = _held_out_beside(request.corpus)
    if held_out is None:
        return verify, _pretrain(directory, None, tokenizer_path)
    target = _held_out_name(directory)
    return (
        verify,
        _encode(ctx, held_out, request.find_certificate(), target),
        _pretrain(directory, target, tokenizer_path),
    )


def after_verifying(
    directory: Path, manifest: Manifest, tokenizer_path: Path | None
) -> tuple[str, ...]:
    """The command that trains on shards that were verified, where both sides of it are known."""
    tokenizer = tokenizer_path or recorded_path(directory)
    side = manifest.certificate
    other = _shards_of_other_side(directory, manifest)
    if tokenizer is None:
        return ()
    if side is not None and side.side == "held-out":
        return (_pretrain(other, directory, tokenizer),) if other else ()
    return (_pretrain(directory, other, tokenizer),)


def _pretrain(train: Path, held_out: Path | None, tokenizer_path: Path) -> str:
    val_shard = [] if held_out is None else ["--val-shard", held_out]
    return output.command_line(
        "apr", "pretrain", "--dataset", train, *val_shard, "--tokenizer", tokenizer_path,
        "--arch", "tiny", "--run-dir", free_name(Path("runs/first")), "--dry-run",
    )  # fmt: skip


def _encode(ctx: click.Context, corpus: Path, certificate: Path | None, target: Path) -> str:
    shared: list[Any] = []
    for option in ctx.command.params:
        given = ctx.get_parameter_source(option.name or "") == ParameterSource.COMMANDLINE
        if given and option.name in _SHARED_OPTIONS:
            shared += [option.opts[0], ctx.params[option.name]]
    return output.command_line(
        "apr", "tokenize", "encode-corpus", "--corpus", corpus,
        *repeat("--certificate", [certificate] if certificate else []),
        "--tokenizer", ctx.params["tokenizer_path"], *shared, "-o", target,
    )  # fmt: skip


def _shards_of_other_side(directory: Path, manifest: Manifest) -> Path | None:
    """Shards beside `directory`, by its tokenizer, that a certificate names as the other side."""
    if manifest.certificate is None:
        return None
    for beside in sorted(directory.absolute().parent.iterdir()):
        found = None
        with suppress(Refusal):
            found = read_manifest(beside)[0]
        if found is None or found.tokenizer_fingerprint != manifest.tokenizer_fingerprint:
            continue
        if _are_certified(directory, manifest, beside, found):
            return directory.with_name(beside.name)
    return None


def _are_certified(directory: Path, manifest: Manifest, beside: Path, other: Manifest) -> bool:
    """Whether these are the two sides; the training side's certificate may be a later one."""
    sides = {manifest.documents_sha256, other.documents_sha256}
    for place in (directory, beside):
        with suppress(Refusal):
            certificate, _ = read_certificate(place / CERTIFICATE_NAME)
            held_out = certificate.held_out
            named = {certificate.train.documents_sha256, held_out and held_out.documents_sha256}
            if sides == named:
                return True
    return False


def _held_out_beside(corpus: Sequence[Path | str]) -> Path | None:
    places = {path.with_name(_HELD_OUT) for path in corpus if isinstance(path, Path)}
    if len(corpus) != 1 or len(places) != 1 or corpus[0] in places:
        return None
    (place,) = places
    return place if place.exists() else None


def _held_out_name(directory: Path) -> Path:
    """Where the held-out shards go: beside the others, under a name that is free."""
    short = directory.with_name(_HELD_OUT)
    if directory.name == _TRAIN and not short.exists():
        return short
    return free_name(directory.with_name(f"{directory.name}-{_HELD_OUT}"))
