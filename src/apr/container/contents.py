"""Whether a container holds exactly one model: the tensors of its architecture and no others.

Counting elements is not enough. Upstream once compared only counts and ignored what was left over,
and 72 biases were lost without a word.
"""

from apr.architecture import Architecture
from apr.container.layout import WRITABLE_DTYPES
from apr.container.metadata import Metadata, architecture_from_metadata
from apr.container.reader import Container
from apr.errors import Refusal

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def require_contents(container: Container, *, claimed: Metadata | None = None) -> Architecture:
    """The architecture of a container, proved by name, shape and type of every tensor.

    `claimed` is other metadata that the same tensors are held against. A tied model may carry a
    copy of its embedding as a head, as Rust importers write it; the two must be equal to the byte.

    Refuses: container.tensor-missing, container.tensor-unexpected, container.tensor-dtype,
    container.tensor-shape-differs, container.tied-head-differs, container.parameter-count, and as
    `metadata.architecture_from_metadata`.
    """
    metadata = claimed or container.metadata
    architecture = architecture_from_metadata(metadata, container.tensors, container.path)
    expected = architecture.parameter_shapes()
    if HEAD in container.tensors and HEAD not in expected:
        _require_equal_head(container)
        expected[HEAD] = expected[EMBEDDING]
    _require_names(container, set(expected))
    for name, shape in expected.items():
        _require_shape(container, name, shape)
    _require_count(container, architecture, metadata)
    return architecture


def _require_names(container: Container, expected: set[str]) -> None:
    present = set(container.tensors)
    if missing := sorted(expected - present):
        raise Refusal(
            "container.tensor-missing",
            container.path,
            found=f"no {_first_of(missing)}",
            expected=f"the {len(expected)} tensors of the architecture",
            fix="import the model again from its source",
            upstream_id="FALSIFY-APR-PRETRAIN-INIT-007",
        )
    if unexpected := sorted(present - expected):
        raise Refusal(
            "container.tensor-unexpected",
            container.path,
            found=_first_of(unexpected),
            expected=f"only the {len(expected)} tensors of the architecture",
            fix="the metadata describes another model; import it again from its source",
        )


def _require_shape(container: Container, name: str, shape: tuple[int, ...]) -> None:
    entry = container.tensors[name]
    where = f"{container.path}, tensor {name!r}"
    if entry.shape != shape:
        raise Refusal(
            "container.tensor-shape-differs",
            where,
            found=list(entry.shape),
            expected=f"{list(shape)}, from the architecture",
            fix="the metadata describes another model; import it again from its source",
        )
    if entry.dtype not in WRITABLE_DTYPES:
        raise Refusal(
            "container.tensor-dtype",
            where,
            found=entry.dtype,
            expected="one of " + ", ".join(WRITABLE_DTYPES),
            fix="import the model again from its source",
        )


def _require_equal_head(container: Container) -> None:
    head, embedding = (container.tensors.get(name) for name in (HEAD, EMBEDDING))
    is_equal = (
        head is not None
        and embedding is not None
        and (head.dtype, head.shape) == (embedding.dtype, embedding.shape)
        and container.raw(HEAD) == container.raw(EMBEDDING)
    )
    if not is_equal:
        raise Refusal(
            "container.tied-head-differs",
            f"{container.path}, tensor {HEAD!r}",
            found="other bytes than the embedding's, in a model that says it is tied",
            expected="no head of its own, or an exact copy of the embedding",
            fix="write the model again: untied, or without the head",
        )


def _require_count(container: Container, architecture: Architecture, metadata: Metadata) -> None:
    stored = sum(entry.num_elements for entry in container.tensors.values())
    claimed = metadata.param_count
    # Zero is how the format spells unset; a copied head may or may not be counted.
    if claimed not in (0, architecture.num_parameters, stored):
        raise Refusal(
            "container.parameter-count",
            container.path,
            found=f"param_count={claimed}",
            expected=f"{architecture.num_parameters}, counted from the tensors",
            fix="write the file again from its source",
        )


def _first_of(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return names[0] + more
