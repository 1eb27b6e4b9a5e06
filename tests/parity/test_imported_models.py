"""What `apr import` wrote computes what transformers does with the same files.

Logits and gradients on tiny models of each family; a real trained model speaks its published text.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.hf_load import load
from tests.hf_models import HfModel
from tests.reference_data import reference
from tests.source_models import ARCHITECTURES, QUICK, random_arrays
from torch.nn import functional

from apr.architecture import Architecture
from apr.jobs.export_gguf import export_gguf
from apr.jobs.export_hf import export_hf
from apr.jobs.fresh_process import in_this_process
from apr.jobs.import_model import import_model
from apr.jobs.write_text import write_text
from apr.model.generate import generate
from apr.model.transformer import Transformer
from apr.model.weights import load_model

# One of each family, tied and untied, and Llama 3's scaling.
FAMILIES = {
    name: ARCHITECTURES[name]
    for name in (
        "llama-tied-scaled",
        "llama-untied",
        "mistral-untied",
        "qwen2-tied",
        "qwen3-untied",
    )
}
STORIES = "checkpoints/stories260K"


def transformers_model(directory: Path) -> Any:
    loaded = load(directory)
    assert loaded.said == []
    return loaded.model.float().eval()


@pytest.mark.parametrize("architecture", FAMILIES.values(), ids=FAMILIES.keys())
def test_logits_gradients_and_text(tmp_path: Path, architecture: Architecture) -> None:
    directory = HfModel(
        architecture.to_hf_config() | {"bos_token_id": None, "eos_token_id": None},
        dict(random_arrays(architecture)),
    ).write(tmp_path / "theirs")
    import_model(directory, output=tmp_path / "ours.apr", **QUICK)
    ours, theirs = load_model(tmp_path / "ours.apr").model, transformers_model(directory)
    assert ours.architecture == architecture
    compare(ours, theirs, num_parameters=len(architecture.parameter_shapes()))


def compare(ours: Transformer, theirs: Any, *, num_parameters: int) -> None:
    size = ours.architecture.vocab_size
    ids = torch.randint(size, (2, 40), generator=torch.Generator().manual_seed(1))
    logits, expected = ours(ids), theirs(ids).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    targets = torch.randint(size, (80,), generator=torch.Generator().manual_seed(2))
    functional.cross_entropy(logits.flatten(0, 1), targets).backward()
    functional.cross_entropy(expected.flatten(0, 1), targets).backward()
    compared = 0
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            ours.get_parameter(name).grad, parameter.grad, msg=lambda m, n=name: f"{n}: {m}"
        )
        compared += 1
    assert compared == num_parameters
    prompt = [5, 1, 20, 31]
    written = generate(ours, prompt, num_token_ids=size, max_new_tokens=20)
    assert written.token_ids == greedy(theirs, prompt, 20)


def greedy(model: Any, prompt: list[int], num_tokens: int) -> list[int]:
    found = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=num_tokens,
        min_new_tokens=num_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return found[0, len(prompt) :].tolist()


@pytest.mark.parametrize("fields", [{"rope_theta": 900_000.0}, {"rms_norm_eps": 2e-5}])
def test_the_comparison_sees_another_model(tmp_path: Path, fields: dict[str, float]) -> None:
    architecture = ARCHITECTURES["llama-untied"]
    config = architecture.to_hf_config() | {"bos_token_id": None, "eos_token_id": None}
    arrays = dict(random_arrays(architecture))
    theirs = transformers_model(HfModel(config, arrays).write(tmp_path / "theirs"))
    ours = Transformer(replace(architecture, **fields))
    ours.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    with pytest.raises(AssertionError):
        compare(ours, theirs, num_parameters=len(arrays))


# --- a real model


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> Path:
    return reference(shared_data, f"{STORIES}/hf/model.safetensors").parent


@pytest.fixture(scope="module")
def imported(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stories") / "stories.apr"
    proof = import_model(stories, output=path).proof
    assert proof.transformers
    assert proof.transformers["max_relative_error"] < 1e-5
    return path


def greedy_ids(path: Path) -> list[int]:
    loaded = load_model(path)
    return generate(loaded.model, [1], num_token_ids=512, max_new_tokens=256).token_ids


def test_the_published_numbers(imported: Path, shared_data: Path) -> None:
    stated = json.loads(reference(shared_data, f"{STORIES}/hf_reference.json").read_text())
    expected = np.load(reference(shared_data, f"{STORIES}/hf_reference_logits.npy"))
    with torch.no_grad():
        logits = load_model(imported).model(torch.tensor([stated["ids"]]))[0]
    torch.testing.assert_close(logits, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)
    loss = functional.cross_entropy(logits[:-1], torch.tensor(stated["ids"][1:]))
    assert float(loss) == pytest.approx(stated["loss"], abs=1e-5)


def test_the_published_text(imported: Path, shared_data: Path) -> None:
    stated = json.loads(reference(shared_data, f"{STORIES}/greedy_reference.json").read_text())
    assert greedy_ids(imported) == stated["greedy_ids"][1:]
    # As `apr run` writes it: from the empty prompt, which begins with the BOS.
    written = write_text(imported, "", max_new_tokens=100)
    assert written.prompt_token_ids == stated["prompt_ids"]
    assert len(written.token_ids) == 100
    assert written.token_ids == stated["greedy_ids"][1:101]
    assert stated["text"].strip().startswith(written.text.strip())


def test_there_and_back_it_speaks_the_same(imported: Path, stories: Path, tmp_path: Path) -> None:
    export_hf(imported, output=tmp_path / "hf", **QUICK)
    import_model(
        tmp_path / "hf",
        output=tmp_path / "a.apr",
        **QUICK,
    )
    export_gguf(tmp_path / "a.apr", output=tmp_path / "m.gguf", run_proof=in_this_process)
    import_model(tmp_path / "m.gguf", output=tmp_path / "b.apr")
    first, last = load_model(imported), load_model(tmp_path / "b.apr")
    names = [name for name, _ in first.model.named_parameters()]
    assert len(names) == 47
    for name in names:
        assert torch.equal(first.model.get_parameter(name), last.model.get_parameter(name)), name
    assert greedy_ids(tmp_path / "b.apr") == greedy_ids(imported)
    text = "Once upon a time, there was a little girl"
    assert first.tokenizer
    assert last.tokenizer
    assert last.tokenizer.encode(text).tolist() == first.tokenizer.encode(text).tolist()
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == (
        stories / "tokenizer.json"
    ).read_bytes()
