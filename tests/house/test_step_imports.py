"""A training step needs torch and numpy and nothing else, so that it runs on a bare GPU machine."""

import subprocess
import sys

PROGRAM = """
import sys
from importlib.abc import MetaPathFinder

ALLOWED = {{"apr", "torch", "numpy", *sys.stdlib_module_names}}

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        # What torch itself finds useful is its own affair; what apr asks for is not.
        asked_by = sys._getframe(1)
        while asked_by and "importlib" in asked_by.f_code.co_filename:
            asked_by = asked_by.f_back
        asker = asked_by.f_globals.get("__name__", "") if asked_by else ""
        if asker.partition(".")[0] == "apr" and name.partition(".")[0] not in ALLOWED:
            raise ImportError(f"{{name}} is not there, and {{asker}} asks for it")
        return None

sys.meta_path.insert(0, Blocked())
from types import SimpleNamespace

import numpy as np
import torch
from apr.architecture import preset
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.train.acceleration import Acceleration
from apr.train.batches import Batch
from apr.train.gradients_gate import check_gradients
from apr.train.optimizer import build_optimizer
from apr.train.step import train_step
{extra}

model = Transformer(preset("tiny", tokenizer_vocab_size=64))
initialize(model, seed=0)
settings = SimpleNamespace(
    optimizer="adamw", weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.95
)
optimizer = build_optimizer(model, settings)
ids = np.random.default_rng(0).integers(64, size=(2, 9))
batch = Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), np.zeros((2, 8), np.int64), (0, 1))
acceleration = Acceleration(torch.device("cpu"), torch.float32, False, ())
result = train_step(
    model, optimizer, [batch], step=1, learning_rate=1e-3, max_grad_norm=1.0, document_mask=True,
    summed_loss=acceleration.loss_function(),
)
print(result.num_tokens)
"""


def ended(extra: str = "") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(extra=extra)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_a_step_is_taken_where_only_torch_and_numpy_are() -> None:
    done = ended()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["16"]


def test_another_import_would_be_seen() -> None:
    done = ended("import apr.train.config")
    assert done.returncode == 1
    assert "pydantic is not there, and apr.train" in done.stderr
