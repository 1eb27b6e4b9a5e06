"""preflight.split-certificate: whether what is held out was checked against what is trained on."""

from apr.corpus.certificate import Certificate, ExactCheck, NearCheck, NgramCheck
from apr.shards.certified import certificate_of
from apr.shards.described import Described
from apr.train.gates import Finding

_EXPECTED = "a certificate of these training and these held-out documents"
_FIX = (
    "split the corpus (apr corpus split), remove what repeats (apr corpus dedup, decontaminate), "
    "and encode both sides with the certificate of the last step; or --waive "
    "preflight.split-certificate=REASON"
)


def check_split_certificate(train: Described, val: Described | None) -> Finding:
    """A certificate beside either side's shards names the documents of both sides.

    The certificate of the training documents may be a later one than that of the held-out ones,
    which stay as they were while training documents are removed. Documents that the run itself
    reserves from `train` are no pair that could have been certified.
    """
    if val is None:
        return Finding(
            "PASS",
            "held-out documents are reserved whole by the run itself; near-duplicates between "
            "them and the others were not looked for",
            f"{_EXPECTED}, or documents that the run reserves",
        )
    repaired = [side.directory.name for side in (train, val) if side.manifest.repaired]
    if repaired:
        found = f"repaired manifests, whose original documents are not known: {repaired}"
        return Finding("UNKNOWN", found, _EXPECTED, _FIX)
    certificates = [found for side in (train, val) if (found := certificate_of(side))]
    if not certificates:
        return Finding("UNKNOWN", "no certificate beside the shards", _EXPECTED, _FIX)
    for certificate in certificates:
        if _names(certificate, train, val):
            return Finding("PASS", describe_checks(certificate), _EXPECTED)
    certificate = certificates[0]
    held_out = certificate.held_out
    return Finding(
        "FAIL",
        f"a certificate of training documents {certificate.train.documents_sha256[:12]} and "
        f"held-out documents {held_out.documents_sha256[:12] if held_out else '(none)'}",
        f"{train.manifest.documents_sha256[:12]} and {val.manifest.documents_sha256[:12]}, the "
        "documents of the shards",
        _FIX,
    )


def describe_checks(certificate: Certificate) -> str:
    """What a certificate says was checked between its two sides, and what was not."""
    made = [_describe(check) for check in certificate.checks]
    kinds = {check.kind for check in certificate.checks}
    missing = {"near": "near-duplicates", "ngram": "common runs of words"}
    not_made = [name for kind, name in missing.items() if kind not in kinds]
    return "; ".join(made + ([f"not looked for: {' and '.join(not_made)}"] if not_made else []))


def _names(certificate: Certificate, train: Described, val: Described) -> bool:
    return (
        certificate.train.documents_sha256 == train.manifest.documents_sha256
        and certificate.held_out is not None
        and certificate.held_out.documents_sha256 == val.manifest.documents_sha256
    )


def _describe(check: ExactCheck | NearCheck | NgramCheck) -> str:
    if isinstance(check, ExactCheck):
        return f"no copy left ({check.num_removed} removed)"
    if isinstance(check, NearCheck):
        return (
            f"no near-duplicate from {check.jaccard:g} on ({check.num_removed} removed; "
            f"largest left {_number(check.largest_jaccard_left)})"
        )
    sets = ", ".join(each.name for each in check.evaluation_sets) or "no evaluation set"
    return (
        f"common runs of {check.words} words below {check.containment:g} ({check.num_overlapping} "
        f"removed; largest left {_number(check.largest_overlap_left)}); {sets} "
        f"({check.num_contaminated} removed)"
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
