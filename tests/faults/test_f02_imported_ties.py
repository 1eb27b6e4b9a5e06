"""F02: tied weights come apart, on the way in from Hugging Face's files and out into them.

The tie state of a source is what config.json and tensors say together; where they contradict each
other the model is refused, in both directions.
"""

from pathlib import Path

import numpy as np
import pytest
from tests.hf_models import HfModel, hf_model

from apr.architecture import HF_CLASSES
from apr.convert.huggingface.source import read_hf_source
from apr.errors import Refusal

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def refusal_of(path: Path, model: HfModel) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_hf_source(model.write(path))
    return caught.value


@pytest.mark.parametrize("family", HF_CLASSES)
def test_the_harmless_twins(tmp_path: Path, family: str) -> None:
    tied, untied = hf_model(family), hf_model(family, tied=False)
    assert HEAD not in read_hf_source(tied.write(tmp_path / "tied")).tensors
    assert HEAD in read_hf_source(untied.write(tmp_path / "untied")).tensors
    # A redundant head, as some writers store it, is compared and left out.
    tied.arrays[HEAD] = tied.arrays[EMBEDDING].copy()
    source = read_hf_source(tied.write(tmp_path / "copied"))
    assert HEAD not in source.tensors
    assert source.architecture.tie_word_embeddings
    assert "copy of the embedding" in source.notes[0]


def test_a_head_that_was_trained_away_from_the_embedding(tmp_path: Path) -> None:
    model = hf_model()
    model.arrays[HEAD] = model.arrays[EMBEDDING] + np.float32(1e-2)
    refusal = refusal_of(tmp_path, model)
    assert refusal.id == "import.tied-head-differs"
    assert "tie_word_embeddings to false" in refusal.fix


def test_one_value_of_the_last_row_is_enough(tmp_path: Path) -> None:
    model = hf_model()
    model.arrays[HEAD] = model.arrays[EMBEDDING].copy()
    model.arrays[HEAD][-1, -1] += np.float32(1e-6)
    assert refusal_of(tmp_path, model).id == "import.tied-head-differs"


@pytest.mark.parametrize("dtype", ["<f2", "<i4"])
def test_a_copied_head_of_another_type(tmp_path: Path, dtype: str) -> None:
    model = hf_model()
    model.arrays[HEAD] = model.arrays[EMBEDDING].astype(dtype)
    assert refusal_of(tmp_path, model).id == "import.tied-head-differs"


def test_a_head_with_a_row_more(tmp_path: Path) -> None:
    model = hf_model()
    model.arrays[HEAD] = np.concatenate([model.arrays[EMBEDDING], model.arrays[EMBEDDING][:1]])
    assert refusal_of(tmp_path, model).id == "import.tied-head-differs"


@pytest.mark.parametrize("family", HF_CLASSES)
def test_an_untied_config_without_a_head(tmp_path: Path, family: str) -> None:
    model = hf_model(family)
    model.config["tie_word_embeddings"] = False
    refusal = refusal_of(tmp_path, model)
    assert refusal.id == "import.head-missing"
    assert "config.json says so" in refusal.expected


def test_a_config_that_leaves_the_flag_out_and_weights_without_a_head(tmp_path: Path) -> None:
    model = hf_model()
    del model.config["tie_word_embeddings"]
    refusal = refusal_of(tmp_path, model)
    assert refusal.id == "import.head-missing"
    assert "leaves tie_word_embeddings out" in refusal.expected
    # With a head it is the untied model that Hugging Face loads too.
    model = hf_model(tied=False)
    del model.config["tie_word_embeddings"]
    source = read_hf_source(model.write(tmp_path))
    assert not source.architecture.tie_word_embeddings


def test_a_flag_flipped_to_tied(tmp_path: Path) -> None:
    model = hf_model(tied=False)
    model.config["tie_word_embeddings"] = True
    assert refusal_of(tmp_path, model).id == "import.tied-head-differs"
