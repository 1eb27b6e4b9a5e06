"""`apr bench train`: how fast a model is trained here, of what could be, and beside others."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apr.bench.peers import PEERS, measure_peer, require_installed, require_peers
from apr.bench.reference import Workload, workload
from apr.bench.rounds import APR, summarize
from apr.bench.side import Side
from apr.bench.training import measure_apr
from apr.errors import Refusal
from apr.jobs.fresh_process import Runner, in_fresh_process
from apr.progress import Report, silent
from apr.train.acceleration import choose_device
from apr.train.compiling import COMPILING, will_compile
from apr.train.device_memory import read_device_memory
from apr.train.device_option import require_device
from apr.train.gates import judge, require_passed
from apr.train.inputs import require_positions
from apr.train.resources_gate import check_memory
from apr.train.resources_gate import workload as memory_workload

_SHARED = " + apr's settings"
# What tells the tracer of a profile to be quiet; it would write to the terminal.
_QUIET_TRACER = {"KINETO_LOG_LEVEL": "99"}
Measure = Callable[[int], Side | Refusal]


def bench_train(
    options: Mapping[str, Any],
    *,
    against: Sequence[str] = (),
    num_rounds: int = 1,
    num_steps: int = 20,
    num_warmup_steps: int = 4,
    share_settings: bool = False,
    strangers_environment: Mapping[str, str | None] | None = None,
    runner: Runner = in_fresh_process,
    progress: Report = silent,
    notify: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Train on made-up ids for some steps, in turn with the peers; return what was measured.

    `options` are fields of a training configuration; each side of each round is a process of its
    own. With `share_settings` every peer runs a second time with the settings of apr's process;
    otherwise it runs with `strangers_environment`, which is what apr did not set.

    Refuses: bench.unknown-peer, bench.peer-missing, bench.out-of-memory, preflight.memory,
    config.unknown-preset, config.sequence-too-long, config.device-unavailable, and as
    `resolve_config`. What a peer refuses is in the answer.
    """
    require_peers(against, PEERS)
    require_installed(against)
    work = prepared_workload(options, num_steps=num_steps, num_warmup_steps=num_warmup_steps)
    if will_compile(work.config, work.architecture):
        notify(COMPILING)
    before = {"load_average": os.getloadavg()[0], "num_cores": os.cpu_count()}
    sides = {APR: _ours(work, runner, progress)}
    for name in against:
        stranger = dict(strangers_environment or {})
        sides[name] = _theirs(name, work, runner, progress, environment=stranger)
        if share_settings:
            sides[name + _SHARED] = _theirs(name, work, runner, progress, share_settings=True)
    rounds = [
        {name: measure(number) for name, measure in sides.items()} for number in range(num_rounds)
    ]
    return summarize(work, rounds) | {"before": before}


def prepared_workload(
    options: Mapping[str, Any], *, num_steps: int, num_warmup_steps: int
) -> Workload:
    """The workload of these options, on a device that is there and is not known to be too small.

    Refuses: preflight.memory, config.unknown-preset, config.sequence-too-long,
    config.device, config.device-unavailable, and as `resolve_config`.
    """
    wanted = str(options.get("device") or "auto")
    require_device(wanted)
    device = choose_device(wanted)
    work = workload(
        dict(options),
        on_cpu=device.type == "cpu",
        num_steps=num_steps,
        num_warmup_steps=num_warmup_steps,
    ).on(str(device))
    require_positions(work.config, work.architecture)
    _require_memory(work)
    return work


def _ours(work: Workload, runner: Runner, progress: Report) -> Measure:
    def measure(number: int) -> Side:
        return runner(
            measure_apr,
            work,
            thorough=number == 0,
            progress=progress,
            environment=_QUIET_TRACER,
        )

    return measure


def _theirs(
    name: str,
    work: Workload,
    runner: Runner,
    progress: Report,
    *,
    share_settings: bool = False,
    environment: Mapping[str, str | None] | None = None,
) -> Measure:
    def measure(_number: int) -> Side | Refusal:
        # A peer that fails is an answer too; the other sides go on.
        try:
            return runner(
                measure_peer,
                name,
                work,
                share_settings=share_settings,
                progress=progress,
                environment=environment,
            )
        except Refusal as refusal:
            return refusal

    return measure


def _require_memory(work: Workload) -> None:
    """Refuse a workload that the device is known not to hold."""
    device = read_device_memory(work.config.device)
    measured = memory_workload(work.config, work.architecture, device)
    gate = judge("preflight.memory", lambda: check_memory(measured, device))
    if gate.verdict == "FAIL":
        require_passed([gate], "apr bench")
