"""The certificate that documents were encoded under: a copy of it lies beside their shards.

The manifest names it by hash, so that whoever opens the shards knows what was checked between
them and the other side, without asking where the corpus was.
"""

from collections.abc import Sequence
from pathlib import Path

from apr.corpus.certificate import (
    CERTIFICATE_NAME,
    Certificate,
    read_certificate,
    write_certificate,
)
from apr.errors import DamagedFile
from apr.shards.described import Described
from apr.shards.manifest import CertifiedSide


def certify_shards(
    directory: Path,
    *,
    documents_sha256: str,
    certificate: Path | None,
    corpus: Sequence[Path | str],
) -> CertifiedSide | None:
    """Put the certificate of these documents into `directory`; None where there is none.

    It is `certificate`, or else the certificate.json beside the corpus, which counts only if these
    documents are one of its sides.

    Refuses: corpus.certificate-mismatch, when `certificate` is of other documents, and as
    read_certificate.
    Writes: certificate.json below `directory`.
    """
    path = find_certificate(certificate, corpus)
    if path is None:
        return None
    found, _ = read_certificate(path)
    if certificate is not None:
        side = found.require_side(documents_sha256, certificate)
    else:
        side = found.side_of(documents_sha256)
    if side is None:
        return None
    return CertifiedSide(sha256=write_certificate(directory / CERTIFICATE_NAME, found), side=side)


def find_certificate(certificate: Path | None, corpus: Sequence[Path | str]) -> Path | None:
    """The certificate that was named, or else the one beside the corpus, where there is one."""
    return _beside(corpus) if certificate is None else certificate


def certificate_of(shards: Described) -> Certificate | None:
    """The certificate that shards were encoded under; None where they name none.

    Refuses: shards.certificate-missing, shards.certificate-differs, and as read_certificate.
    """
    named = shards.manifest.certificate
    if named is None:
        return None
    path = shards.directory / CERTIFICATE_NAME
    if not path.is_file():
        raise DamagedFile(
            "shards.certificate-missing",
            path,
            found="no such file",
            expected=f"the certificate {named.sha256} that the manifest names",
            fix="copy the whole directory again, or encode the corpus again",
        )
    certificate, sha256 = read_certificate(path)
    side = certificate.side_of(shards.manifest.documents_sha256)
    if (sha256, side) != (named.sha256, named.side):
        raise DamagedFile(
            "shards.certificate-differs",
            path,
            found=f"certificate {sha256}, of which these documents are "
            + (f"the {side} side" if side else "no side"),
            expected=f"{named.sha256} and its {named.side} side, as the manifest says",
            fix="copy the whole directory again, or encode the corpus again",
        )
    return certificate


def _beside(corpus: Sequence[Path | str]) -> Path | None:
    """The one certificate that lies beside every part of a corpus."""
    places = {path.absolute().parent for path in corpus if isinstance(path, Path)}
    if len(places) != 1 or len(corpus) != sum(isinstance(path, Path) for path in corpus):
        return None
    beside = places.pop() / CERTIFICATE_NAME
    return beside if beside.is_file() else None
