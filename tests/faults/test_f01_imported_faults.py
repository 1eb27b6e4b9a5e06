"""F01 to F03: a fault between a source and its container is refused by the job as a whole.

Each fault is planted in what `import_model` hands on; the target must not exist afterwards.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.hf_models import HfModel
from tests.source_models import (
    ARCHITECTURES,
    QUICK,
    Fault,
    adjacent_rows,
    random_arrays,
    swapped,
    tensor,
    with_array,
    with_field,
)

from apr.convert.precision import converted
from apr.convert.source import Source
from apr.errors import Refusal
from apr.jobs.import_model import import_model
from apr.jobs.prove_source import prove_source
from apr.jobs.read_source import read_source

LLAMA = ARCHITECTURES["llama-untied"]
LAYER = "model.layers.1."
DOWN = f"{LAYER}mlp.down_proj.weight"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LLAMA.to_hf_config() | {"bos_token_id": None, "eos_token_id": None}
    return HfModel(config, dict(random_arrays(LLAMA))).write(tmp_path_factory.mktemp("hf") / "m")


def same(good: Source) -> Source:
    return good


def lost(name: str) -> Fault:
    def fault(good: Source) -> Source:
        kept = {each: tensor for each, tensor in good.tensors.items() if each != name}
        return replace(good, tensors=kept)

    return fault


def rounded_wrongly(good: Source) -> Source:
    """Every value of one tensor as f16, and one of them a step too far."""
    halves = converted(good.tensors[DOWN], "f16")
    values = np.frombuffer(b"".join(halves.chunks()), "<f2").reshape(halves.shape).copy()
    values[3, 5] = np.nextafter(values[3, 5], np.float16(np.inf))
    return replace(good, tensors={**good.tensors, DOWN: tensor(DOWN, values)})


def refused(directory: Path, target: Path, fault: Callable[[Source], Source]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        import_model(
            directory,
            output=target,
            between=fault,
            **QUICK,
        )
    assert list(target.parent.iterdir()) == []
    return caught.value


@pytest.mark.parametrize(
    ("fault", "id", "named"),
    [
        (with_field(rope_theta=10_000.0), "proof.differs", "rope_theta is 10000"),
        (
            with_array(f"{LAYER}self_attn.k_proj.weight", adjacent_rows(2)),
            "proof.differs",
            "k_proj.weight is not the source's",
        ),
        (
            swapped("model.layers.0.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight"),
            "proof.differs",
            "model.layers.0.mlp.up_proj.weight is not the source's",
        ),
        (rounded_wrongly, "convert.rounding", DOWN),
        (lost(DOWN), "import.tensors-differ", DOWN),
        (with_field(tie_word_embeddings=True), "import.tensors-differ", "lm_head.weight"),
    ],
    ids=["rope-theta", "key-rows", "layers-swapped", "rounded-wrongly", "lost", "tied"],
)
def test_a_fault_leaves_no_container(
    directory: Path, tmp_path: Path, fault: Fault, id: str, named: str
) -> None:
    refusal = refused(directory, tmp_path / "m.apr", fault)
    assert refusal.id == id
    assert named in f"{refusal.where} {refusal.found}"


def test_the_harmless_twin(directory: Path, tmp_path: Path) -> None:
    imported = import_model(
        directory,
        output=tmp_path / "m.apr",
        between=same,
        **QUICK,
    )
    assert imported.path.exists()
    assert imported.proof.reference.num_layers == 3
    assert imported.proof.transformers_reason == "it was not asked for"


@pytest.mark.slow
def test_transformers_is_a_second_witness(directory: Path, tmp_path: Path) -> None:
    """A reading of config.json that both of our implementations share is found by it alone.

    The fault is planted on both sides: the architecture and what the reference is told.
    """

    imported = import_model(directory, output=tmp_path / "sound.apr")
    assert imported.proof.transformers
    assert imported.proof.transformers["is_tied"] is False
    good = read_source(directory)
    bad = with_field(rope_theta=10_000.0)(good)
    fooled = replace(good, reference=replace(good.reference, rope_theta=10_000.0))
    with pytest.raises(Refusal) as caught:
        prove_source(fooled, bad.architecture, bad.tensors)
    assert caught.value.id == "proof.transformers-differs"
