"""A command that torchrun has started several times: who speaks, and how all of them end."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from apr.cli import output
from apr.errors import Interrupted, Refusal, UsageRefusal

if TYPE_CHECKING:
    from apr.train.ranks import Ranks

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_LARGEST_WORLD = 1 << 16
# So long a rank that refuses waits for the first one to say the same.
_TO_SAY_IT_S = 5.0


def numbers_of_environment(environment: Mapping[str, str]) -> list[int] | None:
    """Rank and number of ranks, in all and on this machine; None for a process that is alone.

    Refuses: ranks.environment.
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        if "RANK" in environment and environment.get("WORLD_SIZE", "1") != "1":
            # Alone it would train as if there were no others, and each of them so.
            raise _contradiction("WORLD_SIZE", f"{environment['WORLD_SIZE']!r} without torchrun")
        return None
    numbers = list[int]()
    for name in _VARIABLES:
        text = environment.get(name, "")
        if not (text.isascii() and text.isdigit() and int(text[:9]) <= _LARGEST_WORLD):
            raise _contradiction(name, repr(text))
        numbers.append(int(text))
    rank, world_size, local_rank, local_world_size = numbers
    if not (rank < world_size and local_rank < local_world_size <= world_size):
        raise _contradiction(", ".join(_VARIABLES), ", ".join(map(str, numbers)))
    return numbers if world_size > 1 else None


def run_on_ranks(job: "Callable[[Ranks], output.Result]") -> output.Result | int:
    """Do a job alone, or as one of several ranks, of which the first answers.

    What all ranks refuse is said once; what one of them alone refuses is said by that one.
    """
    numbers = numbers_of_environment(os.environ)
    from apr.train.ranks import ALONE, Ranks, joined

    if numbers is None:
        return job(ALONE)
    rank, world_size, local_rank, local_world_size = numbers
    if os.environ.get("OMP_NUM_THREADS") == "1":
        _use_own_cores(local_world_size)
    try:
        with joined(Ranks(rank, world_size, local_rank, local_world_size)) as ranks:
            try:
                result = job(ranks)
            except (Refusal, Interrupted) as ending:
                raise _ending_of(ranks, ending) from None
            return result if ranks.is_first else result.exit_code
    except _SaidByFirst as ending:
        return ending.exit_code


def has_started_this() -> bool:
    """Whether torchrun has started this process, and waits for its exit code."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _use_own_cores(local_world_size: int) -> None:
    """Undo what torchrun sets where nobody has: one thread, however many cores a rank has."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_world_size))


class _SaidByFirst(Exception):
    """The way out of a rank that has nothing to add."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


def _ending_of(ranks: "Ranks", ending: Refusal | Interrupted) -> Exception:
    said = ending.id if isinstance(ending, Refusal) else "interrupted"
    if ranks.is_first:
        ranks.post_ending(said)
        return ending
    first = ranks.ending_of_first(wait_s=_TO_SAY_IT_S)
    # To notice that the first rank has ended adds nothing to what that one says.
    if first is not None and said in (first, "ranks.lost"):
        return _SaidByFirst(ending.exit_code)
    if isinstance(ending, Refusal):
        ending.where = f"rank {ranks.rank}: {ending.where}"
    return ending


def _contradiction(name: str, found: str) -> UsageRefusal:
    return UsageRefusal(
        "ranks.environment",
        name,
        found=found,
        expected="whole numbers as torchrun sets them",
        fix="start the command with torchrun --nproc-per-node N -m apr pretrain ...",
    )
