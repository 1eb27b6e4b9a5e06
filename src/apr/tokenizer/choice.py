"""Which encoder a run uses: the fast one where it was proven equal, else the reference.

Three hurdles: every component of the tokenizer is on a closed list; no text of the comparison
differs, at the first use of this tokenizer with these versions; nor does a sample of the corpus,
in every run. A difference that is seen later, in the middle of a run, is kept like one seen here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from apr.errors import FeatureMissing
from apr.progress import Report, silent
from apr.tokenizer import trap_texts
from apr.tokenizer.allowed import why_not_allowed
from apr.tokenizer.comparison import Comparison, compare, prove
from apr.tokenizer.encoders import (
    FastEncoder,
    NotAllowed,
    ReferenceEncoder,
    installed_version,
)
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.trap_texts import num_code_points
from apr.tokenizer.verdicts import Subject, Verdict, keep_verdict, read_verdict

Proof = dict[str, str | int | None]


@dataclass(frozen=True)
class Choice:
    """The encoder to use, and why."""

    name: str
    version: str
    reference_version: str
    proof: Proof
    """For a manifest: nothing in it depends on a path, a time or a machine."""
    detail: str | None = None
    """Where a difference was seen, for the person."""


def choose_encoder(
    tokenizer: Tokenizer,
    *,
    cache_directory: Path | None,
    sample: Sequence[str] = (),
    progress: Report = silent,
) -> Choice:
    """Name the encoder for a run, after the fast one was compared with the reference.

    The comparison takes seconds at the first use of a tokenizer; what came of it is kept in
    `cache_directory`. `sample` are texts of the corpus, compared in every run.

    Refuses: tokenizer.lone-surrogate (in the sample), tokenizer.encoder-failed.
    Writes: one file in `cache_directory`, where that is possible.
    """
    kept = None if sample else _kept_choice(tokenizer, cache_directory)
    if kept is not None:
        return kept
    candidate = tokenizer.fast
    if isinstance(candidate, NotAllowed):
        return _reference_choice(_proof(candidate.verdict, candidate.reason), None)
    subject = _subject(tokenizer, candidate.version)
    verdict = read_verdict(cache_directory, subject)
    if verdict is None:
        verdict = _verdict(prove(candidate, tokenizer, progress=progress))
        keep_verdict(cache_directory, subject, verdict)
    choice = _choice(candidate.version, verdict)
    if choice.name == ReferenceEncoder.name:
        return choice
    seen = compare(candidate, tokenizer.reference, sample).difference
    if seen is None:
        return choice
    return record_difference(
        tokenizer,
        choice,
        cache_directory=cache_directory,
        place=f"text {seen.text_index} of the sample",
        token_index=seen.token_index,
        found=seen.found,
        expected=seen.expected,
    )


def _kept_choice(tokenizer: Tokenizer, cache_directory: Path | None) -> Choice | None:
    """What an earlier verdict says, without building an encoder, which takes a second."""
    version = installed_version()
    if version is None or why_not_allowed(tokenizer.definition) is not None:
        return None
    verdict = read_verdict(cache_directory, _subject(tokenizer, version))
    return None if verdict is None else _choice(version, verdict)


def choose_reference() -> Choice:
    """The choice of a person who asks for the reference encoder."""
    return _reference_choice(_proof("not-asked", "the reference was asked for"), None)


def record_difference(
    tokenizer: Tokenizer,
    choice: Choice,
    *,
    cache_directory: Path | None,
    place: str,
    token_index: int | None,
    found: str,
    expected: str,
) -> Choice:
    """Give up a fast encoder that a document showed to differ, in this run and in later ones.

    Writes: one file in `cache_directory`, where that is possible.
    """
    at = "" if token_index is None else f", token {token_index}"
    verdict = Verdict(
        verdict="differs",
        reason="a document of a corpus gets other ids",
        num_strings=cast(int, choice.proof["num_strings"]),
        num_code_points=cast(int, choice.proof["num_code_points"]),
        # A file's name need not be valid text.
        detail=f"{place}{at}: {found}, expected {expected}".encode(errors="replace").decode(),
    )
    keep_verdict(cache_directory, _subject(tokenizer, choice.version), verdict)
    return _reference_choice(_proof_of(verdict), verdict.detail)


def build_encoder(tokenizer: Tokenizer, *, version: str) -> FastEncoder:
    """The fast encoder that another process has chosen, for one that works for it.

    Refuses: tokenizer.fast-encoder-missing.
    """
    encoder = tokenizer.fast
    if isinstance(encoder, FastEncoder) and encoder.version == version:
        return encoder
    is_other = isinstance(encoder, FastEncoder)
    raise FeatureMissing(
        "tokenizer.fast-encoder-missing",
        tokenizer.where,
        found=f"{encoder.name} {encoder.version}" if is_other else encoder.reason,
        expected=f"{FastEncoder.name} {version}, as when the encoder was chosen",
        fix=f"pip install '{FastEncoder.name}=={version}' on this machine too",
    )


def _subject(tokenizer: Tokenizer, version: str) -> Subject:
    return Subject(
        fingerprint=tokenizer.fingerprint,
        reference_version=ReferenceEncoder.version,
        encoder=FastEncoder.name,
        encoder_version=version,
    )


def _verdict(comparison: Comparison) -> Verdict:
    difference = comparison.difference
    return Verdict(
        verdict="equal" if difference is None else "differs",
        reason=None if difference is None else str(difference),
        num_strings=comparison.num_texts,
        num_code_points=num_code_points() if difference is None else 0,
        detail=None,
    )


def _choice(version: str, verdict: Verdict) -> Choice:
    proof = _proof_of(verdict)
    if verdict.verdict == "differs":
        return _reference_choice(proof, verdict.detail)
    return Choice(FastEncoder.name, version, ReferenceEncoder.version, proof)


def _reference_choice(proof: Proof, detail: str | None) -> Choice:
    version = ReferenceEncoder.version
    return Choice(ReferenceEncoder.name, version, version, proof, detail)


def _proof_of(verdict: Verdict) -> Proof:
    return _proof(
        verdict.verdict,
        verdict.reason,
        num_strings=verdict.num_strings,
        num_code_points=verdict.num_code_points,
    )


def _proof(
    verdict: str, reason: str | None, *, num_strings: int = 0, num_code_points: int = 0
) -> Proof:
    return {
        "verdict": verdict,
        "reason": reason,
        "num_strings": num_strings,
        "num_code_points": num_code_points,
        "seed": trap_texts.SEED,
        "texts_version": trap_texts.VERSION,
    }
