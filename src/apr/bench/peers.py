"""The other sides: what people train the same shape with, on ids as random as ours.

None of them masks documents, which is work that apr's side does. Each has its own defaults, in a
process without apr's settings, or a second time with them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from apr.bench.hand_loops import measure_litgpt, measure_plain
from apr.bench.hf_trainer import measure_trainer
from apr.bench.reference import Workload
from apr.bench.side import Side, memory_refusals
from apr.errors import FeatureMissing, UsageRefusal
from apr.progress import Report, silent
from apr.train.allocator import keep_freed_memory


@dataclass(frozen=True)
class Peer:
    """One other side, and the packages it needs."""

    what: str
    measure: Callable[..., Side]
    packages: tuple[str, ...] = ()


def measure_peer(
    name: str, work: Workload, *, share_settings: bool = False, progress: Report = silent
) -> Side:
    """Time a peer's steps, with its own defaults or with the allocator that apr sets.

    Refuses: bench.out-of-memory.
    """
    if share_settings:
        keep_freed_memory()
    with memory_refusals(name):
        side = PEERS[name].measure(work, name=name, progress=progress)
        return replace(side, what=PEERS[name].what)


def require_peers(names: Iterable[str], known: Mapping[str, Any]) -> None:
    """Refuse a name that is no peer.

    Refuses: bench.unknown-peer.
    """
    for name in names:
        if name not in known:
            raise UsageRefusal(
                "bench.unknown-peer",
                "--against",
                found=repr(name),
                expected=", ".join(known) or "no peer: this bench has none",
                fix="name peers of this list, separated by commas",
            )


def require_installed(names: Iterable[str]) -> None:
    """Refuse a peer of training whose packages are not there.

    Refuses: bench.peer-missing.
    """
    for name in names:
        missing = [each for each in PEERS[name].packages if find_spec(each) is None]
        if missing:
            raise peer_missing(name, missing)


def peer_missing(name: str, packages: Sequence[str]) -> FeatureMissing:
    """The refusal of a peer whose packages are not there."""
    return FeatureMissing(
        "bench.peer-missing",
        f"--against {name}",
        found=f"{' and '.join(packages)} not installed",
        expected="the packages of the peer, in apr's own environment",
        fix=f"pip install {' '.join(packages)}, or leave this peer out",
    )


_HF_PACKAGES = ("transformers", "accelerate")
PEERS: dict[str, Peer] = {
    "plain": Peer(
        "a loop written by hand: this model, eager, fp32, torch's AdamW, one mean cross-entropy",
        measure_plain,
    ),
    "hf-trainer": Peer(
        "Hugging Face's model and Trainer, with its defaults",
        partial(measure_trainer, fast=False),
        _HF_PACKAGES,
    ),
    "hf-trainer-bf16-compile": Peer(
        "Hugging Face's model and Trainer, bf16 and torch.compile",
        partial(measure_trainer, fast=True),
        _HF_PACKAGES,
    ),
    "litgpt": Peer(
        "litgpt's model, compiled, in a loop with bf16 autocast and fused AdamW",
        measure_litgpt,
        ("litgpt",),
    ),
}
