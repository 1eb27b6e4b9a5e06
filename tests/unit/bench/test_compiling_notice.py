"""Who waits for a compiler is told so before, and nobody else."""

from collections.abc import Callable
from typing import Any

import pytest

from apr.jobs.bench_checkpoint import bench_checkpoint
from apr.jobs.bench_train import bench_train
from apr.train.compiling import COMPILING


class _Reached(Exception):
    """The measuring would begin here."""


def _reached(*_args: Any, **_kwargs: Any) -> None:
    raise _Reached


@pytest.mark.parametrize("bench", [bench_train, bench_checkpoint])
@pytest.mark.parametrize(
    ("options", "says_so"),
    [
        ({"compile": True}, True),
        ({"compile": False}, False),
        # By default by how much there is to compute: next to nothing, and a lot.
        ({"batch_size": 2}, False),
        ({"batch_size": 2, "arch": "qwen2-0.5b", "seq_length": 2048}, True),
    ],
)
def test_compiling_is_announced_where_it_is_chosen(
    bench: Callable[..., Any], options: dict[str, Any], says_so: bool
) -> None:
    heard: list[str] = []
    tiny = {"arch": "tiny", "vocab_size": 300, "seq_length": 32, "device": "cpu"}
    if "arch" in options:
        del tiny["vocab_size"]
    with pytest.raises(_Reached):
        bench(tiny | options, runner=_reached, notify=heard.append)
    assert heard == [COMPILING] * says_so
