"""F01: another model is computed.

The architecture comes from config.json alone, and a key that changes the mathematics is refused by
its name. That the numbers agree with an independent forward pass is for the proof of an import.
"""

from pathlib import Path
from typing import Any

import pytest
from tests.hf_models import LLAMA3_SCALING, hf_model, rotary_frequencies

from apr.architecture import HF_CLASSES
from apr.convert.huggingface.source import read_hf_source
from apr.errors import Refusal


def refusal_of(tmp_path: Path, family: str, keys: dict[str, Any]) -> Refusal:
    model = hf_model(family)
    model.config |= keys
    with pytest.raises(Refusal) as caught:
        read_hf_source(model.write(tmp_path))
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir())
    return caught.value


@pytest.mark.parametrize("family", HF_CLASSES)
def test_the_harmless_twins(tmp_path: Path, family: str) -> None:
    model = hf_model(family)
    plain = read_hf_source(model.write(tmp_path)).architecture
    model.config |= {
        "rope_scaling": None,
        "hidden_act": "swish",
        "sliding_window": None,
        "mlp_bias": False,
        "attention_dropout": 0.1,
    }
    assert read_hf_source(model.write(tmp_path)).architecture == plain


@pytest.mark.parametrize("family", HF_CLASSES)
@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "linear"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"partial_rotary_factor": 0.25}, "partial_rotary_factor"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ({"sliding_window": 16, "use_sliding_window": True}, "sliding_window"),
    ],
)
def test_a_key_that_changes_the_mathematics(
    tmp_path: Path, family: str, keys: dict[str, Any], named: str
) -> None:
    refusal = refusal_of(tmp_path, family, keys)
    assert refusal.id == "import.config-unsupported"
    assert named in f"{refusal.where} {refusal.found}"


@pytest.mark.parametrize("family", HF_CLASSES)
def test_a_key_of_tomorrow_that_smells_of_mathematics(tmp_path: Path, family: str) -> None:
    refusal = refusal_of(tmp_path, family, {"attention_temperature": 1.3})
    assert refusal.id == "import.config-unknown-key"
    assert "attention_temperature" in refusal.where


def test_a_scaling_that_is_here_is_read_and_not_dropped(tmp_path: Path) -> None:
    model = hf_model()
    model.config["rope_scaling"] = LLAMA3_SCALING
    source = read_hf_source(model.write(tmp_path))
    assert source.architecture.rope_scaling is not None
    assert source.reference.rope_scaling is not None
    assert source.architecture.rope_scaling.factor == source.reference.rope_scaling["factor"] == 8.0


def test_an_old_buffer_convicts_a_changed_theta(tmp_path: Path) -> None:
    # rope_theta 1e6 -> 1e4 in config.json, in a checkpoint that still carries its frequencies.
    model = hf_model()
    model.config["rope_theta"] = 1e6
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    model.arrays[name] = rotary_frequencies(1e6)
    read_hf_source(model.write(tmp_path / "sound"))
    model.config["rope_theta"] = 1e4
    with pytest.raises(Refusal) as caught:
        read_hf_source(model.write(tmp_path / "changed"))
    assert caught.value.id == "import.rotary-buffer-differs"
    assert "from rope_theta 10000" in caught.value.expected
