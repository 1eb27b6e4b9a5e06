"""F27: attention kernels that were asked for compute, or the run does not start.

Which kernels ran is counted in torch's dispatcher, so that it is not only the record that says so.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run_data import RunData
from torch.utils._python_dispatch import TorchDispatchMode

from apr.architecture import preset
from apr.cli.main import run
from apr.errors import Refusal
from apr.jobs.pretrain import pretrain
from apr.train.attention_choice import choose_attention
from apr.train.inputs import open_inputs
from apr.train.prepare import judge_gradients, prepare

ON_CPU = not torch.cuda.is_available()
FLASH, SOFTMAX = "_scaled_dot_product_flash_attention_for_cpu", "_softmax"


@contextmanager
def counting() -> Generator[dict[str, int]]:
    """How often each operation is dispatched inside the block."""
    counts: dict[str, int] = {}

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = func.overloadpacket.__name__
            counts[name] = counts.get(name, 0) + 1
            return func(*args, **(kwargs or {}))

    with Counting():
        yield counts


@pytest.mark.parametrize("way", ["cudnn", "varlen"])
@pytest.mark.skipif(not ON_CPU, reason="a CUDA device has them")
def test_attention_that_is_not_there_is_refused(
    run_data: RunData, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    flags = [*run_data.flags(tmp_path / "run"), "--attention", way]
    assert run(["pretrain", *flags, "--json"]) == 5
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert (refused["id"], refused["where"]) == (
        "config.attention-unavailable",
        f"--attention {way}",
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("way", "kernel"), [("plain", SOFTMAX), ("pieces", SOFTMAX), ("flash", FLASH)]
)
def test_what_was_asked_for_is_what_computes(
    run_data: RunData, tmp_path: Path, way: str, kernel: str
) -> None:
    config = run_data.config(tmp_path / "run", attention=way)
    prepared = prepare(config, open_inputs(config, verify=False), notify=lambda _text: None)
    batch = prepared.order.batch(1)
    tensors = (batch.input_ids_BT, batch.target_ids_BT, batch.document_numbers_BT)
    with counting() as counts:
        prepared.summed_loss(prepared.model, *(torch.from_numpy(each) for each in tensors))
    layers = prepared.model.architecture.num_hidden_layers
    assert {name: counts.get(name, 0) for name in (FLASH, SOFTMAX)} == {
        name: layers if name == kernel else 0 for name in (FLASH, SOFTMAX)
    }
    assert prepared.acceleration.environment()["attention"] == way
    assert prepared.config.attention == way
    assert judge_gradients(prepared).verdict == "PASS"


def test_the_harmless_twin_takes_what_is_there_and_the_record_names_it(
    run_data: RunData, tmp_path: Path
) -> None:
    record = pretrain(run_data.config(tmp_path / "run", num_steps=1, eval_every=1))
    assert record["config"]["attention"] == record["environment"]["attention"] == "pieces"


@pytest.mark.skipif(not ON_CPU, reason="the choice of a CPU")
@pytest.mark.parametrize(
    ("positions", "dtype", "way"),
    [
        (4095, torch.float32, "pieces"),
        (4096, torch.float32, "flash"),
        (4095, torch.bfloat16, "pieces"),
        (4096, torch.bfloat16, "flash"),
    ],
)
def test_by_itself_a_cpu_changes_with_the_length(
    run_data: RunData, tmp_path: Path, positions: int, dtype: torch.dtype, way: str
) -> None:
    config = run_data.config(tmp_path / "run", seq_length=positions)
    shape = preset("tiny", tokenizer_vocab_size=64)
    device = torch.device("cpu")
    assert choose_attention(config, shape, device, dtype) == (way, [])


def test_only_auto_falls_back_and_says_so(run_data: RunData, tmp_path: Path) -> None:
    """On a device that no kernel computes on."""
    shape, device = preset("tiny", tokenizer_vocab_size=64), torch.device("meta")
    config = run_data.config(tmp_path / "run", seq_length=4096)
    way, notices = choose_attention(config, shape, device, torch.bfloat16)
    assert way == "plain"
    assert "varlen" in notices[0]
    asked = config.model_copy(update={"attention": "varlen"})
    with pytest.raises(Refusal) as refused:
        choose_attention(asked, shape, device, torch.bfloat16)
    assert refused.value.id == "config.attention-unavailable"
