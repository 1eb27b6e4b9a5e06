"""preflight.tokenizer-fingerprint and preflight.vocab-size: one tokenizer for shards and model.

Both are judged from what files say of themselves, before a token or a weight is read.
"""

from collections.abc import Sequence

from apr.shards.described import Described
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.gates import Finding
from apr.train.init_file import InitFile
from apr.train.sources import short_names


def check_tokenizer(
    given: Tokenizer | None, shards: Sequence[Described], init: InitFile | None
) -> Finding:
    """The given tokenizer made the shards and the initial model's ids, all of them alike.

    Where none is given, that of the initial model stands for it, or else of the first shards.
    """
    names = short_names([each.directory for each in shards])
    named = list(zip(names, shards, strict=True))
    made_with = [(name, each.manifest.tokenizer_fingerprint) for name, each in named]
    if init is not None and init.tokenizer is not None:
        made_with.append((init.path.name, init.tokenizer.fingerprint))
    wanted, whose = _reference(
        given, made_with, is_initial=init is not None and bool(init.tokenizer)
    )
    foreign = [pair for pair in made_with if pair[1] != wanted]
    unknown = [_describe_repair(name, each) for name, each in named if each.manifest.repaired]
    if init is not None and init.tokenizer is None:
        unknown.append(f"{init.path.name}: {init.tokenizer_reason}")
    if unknown and not foreign:
        return Finding(
            "UNKNOWN",
            "; ".join(unknown),
            f"{wanted[:12]}, {whose}, on record since the encoding or the import",
            "encode the corpus again, add the tokenizer to the model (apr stamp --tokenizer DIR), "
            "or --waive preflight.tokenizer-fingerprint=REASON",
        )
    return Finding(
        "FAIL" if foreign else "PASS",
        "; ".join(f"{name} {fingerprint[:12]}" for name, fingerprint in foreign or made_with),
        f"{wanted[:12]}, {whose}",
        "encode the corpus again with this tokenizer, or pass the one that made the shards and "
        "that the model has learned",
    )


def _reference(
    given: Tokenizer | None, made_with: list[tuple[str, str]], *, is_initial: bool
) -> tuple[str, str]:
    """The fingerprint that all others are held against, and whose it is."""
    if given is not None:
        return given.fingerprint, "the given tokenizer"
    name, fingerprint = made_with[-1 if is_initial else 0]
    return fingerprint, f"the tokenizer of {name}"


def check_vocab_size(entries: int, rows: int, *, is_initial: bool) -> Finding:
    """From scratch, the model has exactly one row per token id; an initial one may have spare."""
    found = f"{entries} tokenizer entries"
    if is_initial:
        return Finding(
            "PASS" if entries <= rows else "FAIL",
            found,
            f"at most {rows}, the rows of the initial model",
            "use the tokenizer of the initial model",
            upstream_id="FALSIFY-APR-PRETRAIN-ARCH-0" + ("09" if entries <= rows else "10"),
        )
    return Finding(
        "PASS" if entries == rows else "FAIL",
        found,
        f"{rows}, the model's rows",
        f"choose another --arch, or pass --vocab-size {entries}",
    )


def _describe_repair(name: str, shards: Described) -> str:
    """What is known of the tokenizer of a directory whose manifest was repaired."""
    repaired = shards.manifest.repaired
    assert repaired is not None
    return (
        f"{name}: assumed in a repair; {repaired.num_same_ids} of "
        f"{repaired.num_compared} documents encode to their ids"
    )
