"""Device, number format, threads and seeds of a run."""

import contextlib

import torch

from common.run.errors import UserError
from common.run.options import RuntimeConfig
from common.run.processes import Processes
from common.run.random import seed_everything


class Runtime:
    """Device and autocast of this process."""

    def __init__(self, config: RuntimeConfig, processes: Processes) -> None:
        """Picks the device and seeds every generator (each process its own stream).

        Raises:
            UserError: the configured device is missing.
        """
        self.config, self.processes = config, processes
        self.device = self._pick_device()
        self.precision = config.precision
        is_cuda = self.device.type == "cuda"
        # The reference's PyTorch 2.0 computes matrix products in full float32 and convolutions in TF32 on GPUs.
        torch.backends.cuda.matmul.allow_tf32 = is_cuda and config.precision != "fp32"
        torch.backends.cudnn.allow_tf32 = is_cuda and config.precision != "fp32"
        torch.backends.cudnn.benchmark = is_cuda and not config.deterministic
        if config.deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        seed_everything(config.seed, processes.rank)

    def _pick_device(self) -> torch.device:
        kind = self.config.device
        if kind == "auto":
            kind = "cuda" if torch.cuda.is_available() else "cpu"
        if kind == "cuda" and not torch.cuda.is_available():
            raise UserError("runtime.device=cuda, but this PyTorch sees no CUDA device; use runtime.device=cpu or auto")
        if kind == "mps" and not torch.backends.mps.is_available():
            raise UserError("runtime.device=mps, but there is none; use runtime.device=cpu or auto")
        index = self.processes.local_rank % torch.cuda.device_count() if kind == "cuda" else None
        return torch.device(kind, index) if index is not None else torch.device(kind)

    def describe(self) -> str:
        """Device, processes and number format as text."""
        name = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else f"{self.device} ({torch.get_num_threads()} threads)"
        )
        compiled = ", compiled" if self.config.compile else ""
        return f"{self.processes.world} x {name}, {self.precision}{compiled}"

    def autocast(self) -> contextlib.AbstractContextManager:
        """The block in which forward passes run: bf16 or fp16 where configured, else nothing."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype) if dtype else contextlib.nullcontext()

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for fp16; does nothing for the other formats."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def to_device(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Moves tensors to the device, asynchronously where their memory is pinned."""
        return [tensor.to(self.device, non_blocking=True) for tensor in tensors]
