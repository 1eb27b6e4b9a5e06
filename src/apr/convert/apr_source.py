"""A container of ours, or of the Rust tools, as the source of another one."""

from functools import partial
from pathlib import Path
from typing import Any, cast

from apr.container import free_keys
from apr.container.contents import EMBEDDING, HEAD, require_contents
from apr.container.embedded_tokenizer import restore_tokenizer
from apr.container.provenance import entries_of
from apr.container.reader import Container
from apr.convert.source import ReferenceConfig, Source, SourceTensor
from apr.convert.weights import chunk_bytes
from apr.files import read_chunks
from apr.progress import Report, silent

_SAID = ("name", "description", "author", "license", "data_source", "data_license", "version")


def read_apr_source(path: Path, *, progress: Report = silent) -> Source:
    """Read a container after verifying every byte of it.

    A copied head of a tied model, which the Rust importers write, is left out.

    Refuses: container.*, tokenizer.*.
    """
    with Container.open(path) as container:
        container.verify(progress=progress)
        architecture = require_contents(container)
        metadata, start = container.metadata, container.sections.header.data_offset
        tensors = {
            entry.name: SourceTensor(
                entry.name,
                entry.dtype,
                entry.shape,
                partial(
                    read_chunks,
                    path,
                    start=start + entry.offset,
                    size_bytes=entry.size_bytes,
                    chunk_bytes=chunk_bytes(entry.dtype),
                ),
            )
            for entry in container.tensors.values()
            if not (entry.name == HEAD and architecture.tie_word_embeddings)
        }
        assert EMBEDDING in tensors
        notes = list(container.sections.notes)
        if HEAD in container.tensors and architecture.tie_word_embeddings:
            notes.append("the copy of the embedding under lm_head.weight was left out")
        free = metadata.free
        spelled = metadata.spelled()
        return Source(
            where=path,
            format="apr",
            architecture=architecture,
            tensors=tensors,
            stored=tensors,
            reference=ReferenceConfig(
                vocab_size=spelled["vocab_size"],
                hidden_size=spelled["hidden_size"],
                num_hidden_layers=spelled["num_layers"],
                num_attention_heads=spelled["num_heads"],
                num_key_value_heads=spelled["num_kv_heads"],
                head_dim=spelled.get("head_dim") or spelled["hidden_size"] // spelled["num_heads"],
                rms_norm_eps=spelled["rms_norm_eps"],
                rope_theta=spelled["rope_theta"],
                rope_scaling=free.get(free_keys.ROPE_SCALING),
                rotary_pairs="halves",
            ),
            tokenizer=restore_tokenizer(metadata, where=path),
            hf_config=_object(free.get(free_keys.HF_CONFIG)) or {},
            generation_config=_object(free.get(free_keys.GENERATION_CONFIG)),
            chat_template=metadata.chat_template,
            said={key: text for key in _SAID if (text := spelled.get(key)) is not None},
            pretraining_tokens=free.get(free_keys.PRETRAINING_TOKENS),
            provenance=tuple(entries_of(metadata)),
            files=(path,),
            notes=tuple(notes),
        )


def _object(value: Any) -> dict[str, Any] | None:
    return cast(dict[str, Any], value) if isinstance(value, dict) else None
