"""What a container holds, as one object: the answer of `apr inspect`.

No tensor is read, so a file of any size answers at once. What that leaves unproved is said in
`integrity`; `validation` reads every byte.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from apr.container import free_keys, layout
from apr.container.metadata import Metadata, architecture_from_metadata, claims_a_model
from apr.container.provenance import check_chain, entries_of
from apr.container.reader import Container
from apr.container.sections import Sections
from apr.errors import Refusal

_SHOWN_BY_READING = (
    "footer checksum",
    "padding",
    "tensor values",
    "recorded sha256 of the tensors",
)


def describe(path: Path) -> dict[str, Any]:
    """What a file holds: format, metadata, architecture, tensors, tokenizer, provenance.

    Under `integrity` stands what was verified of it, and what was not.

    Refuses: as `Container.open`.
    """
    with Container.open(path) as container:
        sections = container.sections
        architecture, architecture_reason = _architecture(container)
        return {
            "path": str(path),
            "format": _format(sections, container.size_bytes),
            "metadata": container.metadata.spelled(),
            "architecture": architecture,
            "architecture_reason": architecture_reason,
            "num_parameters": sum(entry.num_elements for entry in container.tensors.values()),
            "tensors": _tensors(container),
            "tokenizer": tokenizer_summary(container.metadata),
            "provenance": _provenance(container.metadata),
            "integrity": _integrity(sections),
        }


def tokenizer_summary(metadata: Metadata) -> dict[str, Any] | None:
    """What the metadata says about its tokenizer, without restoring it; None when it has none."""
    free = metadata.free
    if free_keys.VOCABULARY not in free and free_keys.TOKENIZER_JSON not in free:
        return None
    return {
        "model_type": free.get(free_keys.TOKENIZER_MODEL_TYPE),
        "vocab_size": _length(free.get(free_keys.VOCABULARY)),
        "num_merges": _length(free.get(free_keys.MERGES)),
        "eos_token": free.get(free_keys.EOS_TOKEN),
        "eos_token_id": free.get(free_keys.EOS_TOKEN_ID),
        "fingerprint": free.get(free_keys.TOKENIZER_FINGERPRINT),
        "has_tokenizer_json": free_keys.TOKENIZER_JSON in free,
    }


def _format(sections: Sections, size_bytes: int) -> dict[str, Any]:
    header = sections.header
    return {
        "name": "apr",
        "version": "{}.{}".format(*header.version),
        "flags": layout.flag_names(header.flags),
        "size_bytes": size_bytes,
        "metadata_bytes": header.metadata_bytes,
        "index_offset": header.index_offset,
        "data_offset": header.data_offset,
        "num_tensors": header.num_tensors,
        "notes": list(sections.notes),
    }


def _architecture(container: Container) -> tuple[dict[str, Any] | None, str | None]:
    if not claims_a_model(container.metadata, container.tensors):
        return None, "the file does not present itself as a transformer"
    try:
        architecture = architecture_from_metadata(
            container.metadata, container.tensors, container.path
        )
    except Refusal as err:
        return None, f"{err.id}: found {err.found}; expected {err.expected}"
    derived = {
        "hf_architecture": architecture.hf_architecture,
        "attention_bias": architecture.attention_bias,
        "num_parameters": architecture.num_parameters,
    }
    return asdict(architecture) | derived, None


def _provenance(metadata: Metadata) -> dict[str, Any]:
    chain = check_chain(metadata)
    return {"entries": entries_of(metadata), "verdict": chain.verdict, "found": chain.found}


def _tensors(container: Container) -> list[dict[str, Any]]:
    recorded = container.metadata.free.get(free_keys.TENSOR_SHA256)
    hashes = cast(dict[str, Any], recorded) if isinstance(recorded, dict) else {}
    return [
        {
            "name": entry.name,
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "offset": entry.offset,
            "size_bytes": entry.size_bytes,
            "sha256": hashes.get(entry.name),
        }
        for entry in container.tensors.values()
    ]


def _integrity(sections: Sections) -> dict[str, Any]:
    not_verified = ["padding", "tensor values"]
    if sections.has_footer:
        not_verified.insert(0, "footer checksum")
    if free_keys.TENSOR_SHA256 in sections.metadata.free:
        not_verified.append("recorded sha256 of the tensors")
    if tokenizer_summary(sections.metadata):
        not_verified.append("embedded tokenizer")
    return {
        "verified": [
            "header checksum",
            "metadata",
            "index",
            "tensor extents and sizes",
            "file length",
        ],
        "not_verified": not_verified,
        "has_footer": sections.has_footer,
        "verify_with": "apr validate",
    }


def with_bytes_read(integrity: dict[str, Any]) -> dict[str, Any]:
    """The same, once every byte was read and compared with the checksums in the file."""
    is_open = [each for each in integrity["not_verified"] if each not in _SHOWN_BY_READING]
    read = [each for each in integrity["not_verified"] if each in _SHOWN_BY_READING]
    verified = [*integrity["verified"], *read]
    return integrity | {"verified": verified, "not_verified": is_open}


def _length(value: Any) -> int | None:
    return len(cast(list[Any], value)) if isinstance(value, list) else None
