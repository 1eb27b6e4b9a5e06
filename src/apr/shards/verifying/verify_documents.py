"""The checks of a verification that look at documents: their text, their ids, their sources."""

from collections import Counter

from apr.errors import DamagedFile, Refusal
from apr.shards.certified import certificate_of
from apr.shards.manifest import CertifiedSide
from apr.shards.provenance import PROVENANCE_NAME, has_provenance, read_provenance
from apr.shards.reader import ShardReader
from apr.shards.verifying.round_trip import RoundTrip, text_problem
from apr.shards.verifying.verification import Check, failed, passed, unknown

_NOT_COMPARED = "no document could be compared without the tokenizer that made the shards"


def check_text(reader: ShardReader, returned: RoundTrip | None) -> Check:
    """The ids decode to the documents whose hashes the indexes hold."""
    expected = "the text of the recorded hash, or one that the normalizer changed"
    if returned is None or not returned.num_compared:
        return unknown("text", _NOT_COMPARED, expected)
    if reader.manifest.repaired is not None:
        return unknown("text", "the hashes were made from the ids when it was repaired", expected)
    found = f"{returned.num_same_text} of {_of_all(reader, returned)} have the recorded text"
    problem = text_problem(reader, returned)
    if problem is not None:
        return failed(
            "text",
            DamagedFile(
                "shards.verify-text",
                reader.directory,
                found=problem[0],
                expected=problem[1],
                fix="copy the whole directory again, or encode the corpus again",
            ),
        )
    found += f", {returned.num_changed_by_normalizer} were changed by the normalizer"
    if not returned.num_same_text:
        return unknown("text", found, expected)
    return passed("text", found, expected)


def check_encoding(reader: ShardReader, returned: RoundTrip | None) -> Check:
    """The reference encoder gives the decoded documents the ids that are stored."""
    expected = "the ids that the reference encoder gives the same text"
    if returned is None or not returned.num_compared:
        return unknown("encoding", _NOT_COMPARED, expected)
    if returned.ids_mismatch is not None:
        return failed(
            "encoding",
            DamagedFile(
                "shards.verify-ids",
                reader.directory,
                found=f"{returned.num_same_ids} of {_of_all(reader, returned)} agree; "
                f"{returned.ids_mismatch.found}",
                expected=returned.ids_mismatch.expected,
                fix="encode the corpus again; if it comes out the same, report it with the "
                "tokenizer",
            ),
        )
    found = f"{returned.num_same_ids} of {_of_all(reader, returned)} agree"
    return passed("encoding", found, expected)


def check_provenance(reader: ShardReader) -> Check:
    """documents.jsonl.zst accounts for every row that was read, as the manifest counts them."""
    manifest, path = reader.manifest, reader.directory / PROVENANCE_NAME
    expected = "one object for each row that was read, with its fate"
    if not has_provenance(reader.directory):
        found = f"no {PROVENANCE_NAME}: the sources of the documents are not known"
        return unknown("sources", found, expected, is_optional=True)
    num_documents = 0
    drops: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    try:
        for row in read_provenance(reader.directory):
            num_documents += row.is_document
            if row.dropped is not None:
                drops[row.dropped] += 1
            if row.quarantined is not None:
                quarantined[row.quarantined] += 1
    except Refusal as refusal:
        return failed("sources", refusal)
    for name, found, recorded in (
        ("documents", num_documents, manifest.total_documents),
        ("dropped", dict(drops), manifest.drops),
        ("quarantined", dict(quarantined), manifest.quarantined),
    ):
        if found != recorded:
            return failed(
                "sources",
                DamagedFile(
                    "shards.verify-sources",
                    path,
                    found=f"{name}: {found}",
                    expected=f"{recorded}, as the manifest counts",
                    fix="it belongs to another encoding; copy the right one, or delete it",
                ),
            )
    num_rows = num_documents + drops.total() + quarantined.total()
    return passed("sources", f"{num_rows} rows, {num_documents} of them documents", expected)


def check_certificate(reader: ShardReader, named: CertifiedSide) -> Check:
    """certificate.json is the one that the manifest names, and is of these documents."""
    expected = "the certificate that the manifest names, with these documents as one side"
    try:
        certificate_of(reader)
    except Refusal as refusal:
        return failed("certificate", refusal)
    return passed("certificate", f"{named.sha256}, {named.side} side", expected)


def _of_all(reader: ShardReader, returned: RoundTrip) -> str:
    return f"{returned.num_compared} compared documents ({reader.num_documents} in all)"
