"""Processes: one without torchrun, several under it; sharding of images and gathering of results.

PyTorch is imported where several processes meet: a single one needs none of it.
"""

import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from common.run.errors import UserError, first_line
from common.run.lock import unlock_all
from common.run.parent import end_with_parent

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
OTHERS = {  # rank and number of processes by other launchers
    "SLURM_PROCID": "SLURM_NTASKS", "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE", "PMI_RANK": "PMI_SIZE",
}  # fmt: skip
LAUNCH = "Start several processes with torchrun --nproc_per_node N SCRIPT, which sets all variables; unset them for one"


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

    def on_main(self, action: Callable[[], object]) -> None:
        """Does something on the main process; its `UserError` is raised on all."""
        error = ""
        if self.is_main:
            try:
                action()
            except UserError as failure:
                error = str(failure)
        error = "".join(self.gather_objects(error))
        if error:
            raise UserError(error)

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


def launched() -> tuple[int, int, int] | None:
    """Rank, local rank and number of processes, as the launcher's variables say together; None for a single process.

    Raises:
        UserError: they are incomplete, contradict each other, or another launcher has started several processes.
    """
    given = {name: os.environ.get(name, "").strip() for name in NUMBERS}
    numbers = {name: given[name] for name in NUMBERS if given[name]}
    try:
        rank, local_rank, world = (
            int(numbers.get(name, usual)) for name, usual in zip(NUMBERS, (0, 0, 1), strict=True)
        )
    except ValueError:
        raise UserError(f"the launcher's variables are no numbers: {_listed(numbers)}. {LAUNCH}") from None
    if not numbers:
        _refuse_other_launchers()
    if world <= 1 and rank == 0:
        return None
    _refuse_missing(given)
    if not (0 <= rank < world and 0 <= local_rank < world):
        raise UserError(f"the launcher's variables contradict each other: {_listed(numbers)}. {LAUNCH}")
    return rank, local_rank, world


def _refuse_missing(given: dict[str, str]) -> None:
    missing = [name for name, value in given.items() if not value]
    if missing:
        there = _listed({name: value for name, value in given.items() if value})
        raise UserError(f"the launcher has set {there}, but not {', '.join(missing)}. {LAUNCH}")


def _refuse_other_launchers() -> None:
    """Raises `UserError` in a further copy of the script that a launcher without torchrun's variables has started."""
    for name, total in OTHERS.items():
        if os.environ.get(name, "").isdigit() and int(os.environ[name]) > 0:
            raise UserError(
                f"{name}={os.environ[name]} of {os.environ.get(total, 'several')}: this process would do the work of "
                f"process 0 again. {LAUNCH}"
            )


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def process_count() -> int:
    """Processes of the run, as the launcher's variables say; 1 without them."""
    found = launched()
    return found[2] if found else 1


def start_processes() -> Processes:
    """Joins the process group that torchrun's variables describe; a single process needs none.

    The first thing a script does: gloo on CPU, NCCL on GPUs.

    Raises:
        UserError: as `launched`; or the other processes cannot be reached.
    """
    found = launched()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()
    if found is None:
        return Processes()
    _refuse_missing({name: os.environ.get(name, "").strip() for name in (*NUMBERS, *ADDRESS)})
    import torch
    import torch.distributed as torch_dist

    rank, local_rank, world = found
    if not torch_dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank % torch.cuda.device_count())
        try:
            torch_dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        except (RuntimeError, ValueError) as error:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise UserError(f"the processes cannot meet at {place}: {first_line(error)}. {LAUNCH}") from error
    return Processes(rank, local_rank, world)


def stop_processes() -> None:
    """Releases the locks of the process, and leaves the process group, if there is one."""
    unlock_all()
    if "torch.distributed" not in sys.modules:  # then none was joined
        return
    import torch.distributed as torch_dist

    if torch_dist.is_initialized():
        # torch 2.6 with gloo can deadlock here while its worker thread still frees the tensors of the last collective.
        time.sleep(0.1)
        torch_dist.destroy_process_group()
