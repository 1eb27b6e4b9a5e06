"""The processes of one run: which of them this one is, and what they ask each other.

A run of one process is `ALONE`, and every answer its own. Questions are small and go over the
host's network even where gradients go from device to device, so that asking waits for no kernel.
"""

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from apr.errors import FeatureMissing, Refusal

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_MEETING_LIMIT = timedelta(minutes=5)
# The first rank writes the last checkpoint and the model while the others wait for its word.
_ANSWER_LIMIT = timedelta(hours=2)
_ENDING = "ending of the first rank"
# How a broken connection words itself; a lost NCCL peer has a class of its own.
_BROKEN = ("gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe")

Value = TypeVar("Value")
Array = TypeVar("Array", NDArray[np.int64], NDArray[np.float64])


@dataclass(frozen=True)
class Ranks:
    """One process among those of a run, numbered from 0; the first is the one that writes."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """The number among the processes on this machine."""
    local_world_size: int = 1
    """How many processes share this machine."""
    _board: "Store | None" = None
    """Where ranks leave a word that outlasts them."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    @property
    def are_many(self) -> bool:
        """Whether there is anybody to ask."""
        return self.world_size > 1

    def total(self, array: Array) -> Array:
        """The sum of an array over all ranks; each gets the same bits."""
        if self.are_many:
            # Not at the top: alone, a run's plan is made without torch.
            import torch
            from torch import distributed

            with self.noticing_losses():
                tensor = torch.from_numpy(array.copy())
                distributed.all_reduce(tensor)
                return tensor.numpy()  # pyright: ignore[reportReturnType]
        return array

    def any(self, *flags: bool) -> list[bool]:
        """Each question answered with yes where any rank says so."""
        return [bool(count) for count in self.total(np.array(flags, np.int64))]

    def gathered(self, numbers: Sequence[int]) -> list[list[int]]:
        """The whole numbers of every rank, below 2**63, in the order of ranks."""
        if not self.are_many:
            return [list(numbers)]
        table = np.zeros((self.world_size, len(numbers)), np.int64)
        table[self.rank] = numbers
        return self.total(table).tolist()

    def same_as_first(self, value: Value) -> Value:
        """What the first rank says; the others give anything of the same JSON type."""
        return self.same_as(0, value)

    def same_as(self, rank: int, value: Value) -> Value:
        """What that rank says; the others give anything of the same JSON type."""
        if not self.are_many:
            return value
        speaks = rank == self.rank
        text = np.frombuffer(json.dumps(value).encode(), np.uint8) if speaks else b""
        size = int(self.total(np.array([len(text)], np.int64))[0])
        letters = np.zeros(size, np.int64)
        if speaks:
            letters[:] = text
        return json.loads(self.total(letters).astype(np.uint8).tobytes())

    def wait(self) -> None:
        """Go on when every rank has come this far."""
        self.any(False)

    def post_ending(self, word: str) -> None:
        """Leave a word for ranks that will find this one gone."""
        if self._board is not None:
            with suppress(RuntimeError):
                self._board.set(_ENDING, word)

    def ending_of_first(self, *, wait_s: float) -> str | None:
        """The word that the first rank has left, or leaves within some seconds."""
        if self._board is not None:
            with suppress(RuntimeError):
                self._board.wait([_ENDING], timedelta(seconds=wait_s))
                return self._board.get(_ENDING).decode()
        return None

    @contextmanager
    def noticing_losses(self) -> Generator[None]:
        """Turn what a broken connection raises into a refusal.

        Refuses: ranks.lost.
        """
        try:
            yield
        except RuntimeError as err:
            if not self.are_many or not _is_about_peers(err):
                raise
            raise Refusal(
                "ranks.lost",
                f"rank {self.rank} of {self.world_size}",
                found=f"another rank has ended or cannot be reached: {_first_line(err)}",
                expected=f"all {self.world_size} ranks until the run ends",
                fix="see what the other rank said, or dmesg for one that was killed; then continue "
                "from the last checkpoint with --resume, on any number of ranks",
            ) from err


ALONE = Ranks()


@contextmanager
def joined(ranks: Ranks) -> Generator[Ranks]:
    """Meet the other ranks where torchrun says, and part at the end.

    Refuses: ranks.no-meeting, ranks.not-built for a torch without torch.distributed.
    """
    if not ranks.are_many:
        yield ranks
        return
    import torch
    from torch import distributed

    if not distributed.is_available():
        raise FeatureMissing(
            "ranks.not-built",
            f"torch {torch.__version__}",
            found="a build without torch.distributed",
            expected=f"one that can run {ranks.world_size} ranks",
            fix="install a build of torch with it, or start one process",
        )
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    try:
        board, *_ = next(rendezvous("env://", ranks.rank, ranks.world_size, timeout=_MEETING_LIMIT))
        distributed.init_process_group(
            backend,
            store=PrefixStore("ranks", board),
            rank=ranks.rank,
            world_size=ranks.world_size,
            timeout=_ANSWER_LIMIT,
        )
        ranks.wait()
    except (RuntimeError, ValueError, Refusal) as err:
        raise Refusal(
            "ranks.no-meeting",
            f"rank {ranks.rank} of {ranks.world_size}",
            found=_first_line(err),
            expected=f"all {ranks.world_size} ranks within {_MEETING_LIMIT.seconds // 60} minutes",
            fix="start all of them with one torchrun command; on several machines look at its "
            "--rdzv-endpoint, and whether a firewall is between them",
        ) from err
    is_done = False
    try:
        yield replace(ranks, _board=board)
        is_done = True
    finally:
        # NCCL parts only together with all others, for whom one that failed would wait.
        if is_done or backend == "gloo":
            with suppress(RuntimeError):
                distributed.destroy_process_group()


def _is_about_peers(err: RuntimeError) -> bool:
    from torch import distributed

    return isinstance(err, distributed.DistError) or any(word in str(err) for word in _BROKEN)


def _first_line(err: Any) -> str:
    return str(err).strip().partition("\n")[0][:200]
