"""F02: tied weights come apart.

The tie state of a container is what its tensors show; a flag that says otherwise is refused.
"""

from pathlib import Path

import pytest
from tests.container_models import LLAMA, UNTIED, model_file

from apr.container import free_keys
from apr.container.contents import require_contents
from apr.container.inspecting.validation import validate
from apr.container.metadata import architecture_from_metadata
from apr.container.reader import Container
from apr.errors import Refusal

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def refusal_of(path: Path) -> Refusal:
    with pytest.raises(Refusal) as caught, Container.open(path) as container:
        require_contents(container)
    assert validate(path).verdict == "FAIL"
    return caught.value


def test_the_harmless_twins(tmp_path: Path) -> None:
    for architecture in (LLAMA, UNTIED):
        path = model_file(architecture).write(tmp_path / "model.apr")
        with Container.open(path) as container:
            assert require_contents(container) == architecture
            assert (HEAD in container.tensors) is not architecture.tie_word_embeddings


def test_a_copied_head_is_accepted_and_a_changed_one_refused(tmp_path: Path) -> None:
    # The Rust importers store the embedding twice.
    file = model_file(LLAMA)
    file.arrays[HEAD] = file.arrays[EMBEDDING].copy()
    path = file.write(tmp_path / "model.apr")
    with Container.open(path) as container:
        assert require_contents(container) == LLAMA
    assert validate(path).verdict == "PASS"
    file.arrays[HEAD] = file.arrays[EMBEDDING] + 1e-2
    assert refusal_of(file.write(path)).id == "container.tied-head-differs"


def test_a_copied_head_of_another_type_is_refused(tmp_path: Path) -> None:
    file = model_file(LLAMA)
    file.arrays[EMBEDDING] = file.arrays[EMBEDDING].astype("<f2")
    file.arrays[HEAD] = file.arrays[EMBEDDING].astype("<f4")
    assert refusal_of(file.write(tmp_path / "x.apr")).id == "container.tied-head-differs"
    # The same bytes read as bf16 are other numbers.
    file.arrays[HEAD] = file.arrays[EMBEDDING].view("<u2")
    assert refusal_of(file.write(tmp_path / "x.apr")).id == "container.tied-head-differs"


def test_an_untied_model_that_lost_its_head(tmp_path: Path) -> None:
    file = model_file(UNTIED)
    del file.arrays[HEAD]
    refusal = refusal_of(file.write(tmp_path / "x.apr"))
    assert refusal.id == "container.tie-mismatch"
    assert "without lm_head.weight" in refusal.found


def test_the_flag_flipped_in_each_direction(tmp_path: Path) -> None:
    untied = model_file(UNTIED)
    untied.set_free({free_keys.TIED: True})
    assert refusal_of(untied.write(tmp_path / "x.apr")).id == "container.tied-head-differs"
    tied = model_file(LLAMA)
    tied.set_free({free_keys.TIED: False})
    assert refusal_of(tied.write(tmp_path / "x.apr")).id == "container.tie-mismatch"


@pytest.mark.parametrize("flag", [1, 0, "true", {}])
def test_a_flag_that_is_no_flag(tmp_path: Path, flag: object) -> None:
    file = model_file(LLAMA)
    file.set_free({free_keys.TIED: flag})
    assert refusal_of(file.write(tmp_path / "x.apr")).id == "container.tie-mismatch"


def test_without_a_flag_the_tensors_decide() -> None:
    for architecture in (LLAMA, UNTIED):
        metadata = model_file(architecture).metadata.with_free({free_keys.TIED: None})
        found = architecture_from_metadata(metadata, architecture.parameter_shapes(), "x.apr")
        assert found == architecture
