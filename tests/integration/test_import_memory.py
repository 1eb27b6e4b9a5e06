"""A model far larger than the memory that importing it takes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.hf_models import HfModel
from tests.peak_memory import measured

from apr.architecture import Architecture

pytestmark = pytest.mark.slow

# Two layers and a large embedding, as the tied models of this size have.
LARGE = Architecture(
    model_type="llama",
    vocab_size=120_000,
    hidden_size=576,
    intermediate_size=768,
    num_hidden_layers=2,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    max_position_embeddings=512,
    rope_theta=10_000.0,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
)
IMPORT = """
import json, sys
from pathlib import Path
from apr.jobs.import_model import import_model
from tests.peak_memory import peak_kib
directory, output, quantize = sys.argv[1:]
before = peak_kib()
imported = import_model(
    Path(directory), output=Path(output), quantize=quantize, ask_transformers=False
)
grown_mib = (peak_kib() - before) / 1024
print(json.dumps({"grown_mib": grown_mib, "size_bytes": imported.size_bytes}))
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("large") / "m"
    HfModel(LARGE.to_hf_config() | {"bos_token_id": None, "eos_token_id": None}, {}).write(
        directory
    )
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: 0.05 * torch.randn(shape, generator=generator)
        for name, shape in LARGE.parameter_shapes().items()
    }
    assert 4 * sum(each.numel() for each in weights.values()) > 270 * 2**20
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_an_import_holds_pieces_not_the_model(directory: Path, tmp_path: Path) -> None:
    """Rounding on the way, which reads, changes, compares and writes every value."""
    found = measured(IMPORT, directory, tmp_path / "m.apr", "bf16")
    assert found["size_bytes"] == pytest.approx(140 * 2**20, rel=0.03)
    # Some 140 MiB, and no more for a model twice as large; the embedding alone has 264.
    assert 0 < found["grown_mib"] < 200
