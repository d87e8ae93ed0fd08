"""Processes: one without torchrun, several under it; sharding of images and gathering of results.

PyTorch is imported where several processes meet: a single one needs none of it.
"""

import functools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among all of the run."""

    rank: int = 0
    local_rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process prints, logs and writes the files of the whole run."""
        return self.rank == 0

    def say(self, text: object) -> None:
        """Prints on the main process alone."""
        if self.is_main:
            print(text)

    def shard(self, items: Sequence[T]) -> list[T]:
        """This process's share: every ``world``-th item, so that neighbours in a sorted list are spread."""
        return list(items[self.rank :: self.world])

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.world > 1:
            import torch.distributed as torch_dist

            torch_dist.barrier()

    def gather_objects(self, value: T) -> list[T]:
        """Every process's value, in rank order, on all processes."""
        if self.world == 1:
            return [value]
        import torch.distributed as torch_dist

        values: list[Any] = [None] * self.world
        torch_dist.all_gather_object(values, value)
        return values

    def gather_rows(self, rows: "torch.Tensor") -> "torch.Tensor":
        """Concatenates (n, ...) tensors of one shape in rank order; no gradient."""
        if self.world == 1:
            return rows
        import torch
        import torch.distributed as torch_dist

        parts = [torch.empty_like(rows) for _ in range(self.world)]
        torch_dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process; cheap enough for every step."""
        if self.world == 1:
            return flag
        import torch
        import torch.distributed as torch_dist

        shared = torch.tensor(int(flag))
        torch_dist.all_reduce(shared, op=torch_dist.ReduceOp.MAX)
        return bool(shared)


@functools.cache
def say_once(text: str) -> None:
    """Prints a line on the main process, but not again."""
    if os.environ.get("RANK", "0") == "0":
        print(text)


def process_count() -> int:
    """Processes of the run, as torchrun's environment says; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ else 1


def start_processes() -> Processes:
    """Joins the process group that torchrun's environment describes; a single process needs none.

    The first thing a script does: gloo on CPU, NCCL on GPUs.
    """
    if "RANK" not in os.environ:
        return Processes()
    import torch
    import torch.distributed as torch_dist

    rank, local_rank, world = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    if world > 1 and not torch_dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank % torch.cuda.device_count())
        torch_dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Processes(rank, local_rank, world)


def stop_processes() -> None:
    """Leaves the process group, if there is one."""
    if "torch.distributed" not in sys.modules:  # then none was joined
        return
    import torch.distributed as torch_dist

    if torch_dist.is_initialized():
        # torch 2.6 with gloo can deadlock here while its worker thread still frees the tensors of the last collective.
        time.sleep(0.1)
        torch_dist.destroy_process_group()
